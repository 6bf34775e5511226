"""What one check of a page found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

CheckStatus = Literal["ok", "warn", "unknown"]


@dataclass(frozen=True)
class PageCheck:
    """What one check of a page found.

    Args:
        check: its name.
        status: `ok`, `warn`, or `unknown` where the page does not show it.
        value: what was measured; None if nothing could be.
        unit: of the value.
        message: what was found, a sentence.
        cannot_see: what the check is blind to, a sentence.
    """

    check: str
    status: CheckStatus
    value: float | None
    unit: str
    message: str
    cannot_see: str


def warnings_of(checks: Iterable[PageCheck]) -> tuple[PageCheck, ...]:
    """The checks that warn."""
    return tuple(check for check in checks if check.status == "warn")
