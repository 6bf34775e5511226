"""What the cart that recorded an ECG says of it, and nothing of the patient or the staff."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_STATEMENTS = 40
MAX_LETTERS = 200  # of a statement
# Statements that name somebody, or a date. They are left out: no name of a file gets further.
_PERSONAL = re.compile(
    r"\b(?:(?:un)?confirm|review|over-?read|interpreted|signed|signature|verified|edited|refer"
    r"|order|request|attending|technician|operator|physician|cardiologist|clinician|doctor"
    r"|patient|name|age[ds]?\b|sex\b|born|birth|dob\b|mrn\b|dr\b|md\b|m\.d|mr\b|mrs\b|ms\b\.?\s[a-z])"
    r"|\d{1,4}[-/.](?:\d{1,2}|[a-z]{3})[-/.]\d{2,4}|\d{6,}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CartFilters:
    """Filters that the cart applied, in Hz; None where the file names none."""

    highpass: float | None = None
    lowpass: float | None = None
    notch: float | None = None


@dataclass(frozen=True)
class CartReport:
    """What a file holds beside the signals.

    Attributes:
        format: of the file, as messages call it; "" for signals of no file.
        filters: that were applied before the samples were stored.
        measurements: of the cart, by name, in /min, ms and degrees.
        statements: of the cart, as text. Those that may name somebody are left out.
        left_out: how many statements were left out.
    """

    format: str = ""
    filters: CartFilters = CartFilters()
    measurements: Mapping[str, float] = field(default_factory=dict)
    statements: tuple[str, ...] = ()
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the provenance of an answer."""
        return {
            "format": self.format,
            "filters_hz": asdict(self.filters),
            "measurements": dict(self.measurements),
            "statements": list(self.statements),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it."""
        if not self.left_out:
            return ()
        number = "1 statement" if self.left_out == 1 else f"{self.left_out} statements"
        return (f"Left out: {number} of the cart that may name somebody.",)


def cart_report(
    form: str,
    filters: CartFilters = CartFilters(),  # frozen
    measurements: Mapping[str, object] | None = None,
    statements: Iterable[str] = (),
) -> CartReport:
    """A report of what a file says, without what is no number and without personal text.

    Args:
        form: the file's format.
        filters: that were applied.
        measurements: by name. What is no finite number is left out.
        statements: as the file has them.
    """
    numbers = {
        name: float(value)
        for name, value in (measurements or {}).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    texts = [text for text in map(_printable, statements) if text]
    kept = [text for text in texts if not _PERSONAL.search(text)][:MAX_STATEMENTS]
    return CartReport(form, filters, numbers, tuple(kept), len(texts) - len(kept))


def _printable(text: str) -> str:
    """A text on one line, of letters that print, cut to `MAX_LETTERS`."""
    letters = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_LETTERS])
    return " ".join(letters.split())[:MAX_LETTERS]
