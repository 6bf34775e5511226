"""A page of a file that has several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pulse_edge.errors import ParameterError


@dataclass(frozen=True, eq=False)
class FilePage:
    """A page of a PDF or a TIFF, for `Model.ask` and others that take an image.

    Args:
        image: a path, bytes or a binary file object.
        number: of the page, from 1.

    Raises:
        ParameterError: the number is below 1, or no whole number.
    """

    image: Any
    number: int

    def __post_init__(self) -> None:
        whole = isinstance(self.number, int) and not isinstance(self.number, bool)
        if not whole or self.number < 1:
            raise ParameterError(f"page is {self.number!r:.40}, but must be 1 or more")
