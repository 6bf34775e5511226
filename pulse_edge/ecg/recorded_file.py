"""The file that a recording was read from, for the provenance of answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class RecordedFile:
    """A file, without its name.

    Attributes:
        format: as messages call it.
        sha256: of its bytes.
        size: of the file, in bytes.
    """

    format: str
    sha256: str
    size: int

    @classmethod
    def of(cls, form: str, data: bytes) -> RecordedFile:
        """A file of the format `form` that holds `data`."""
        return cls(form, hashlib.sha256(data).hexdigest(), len(data))
