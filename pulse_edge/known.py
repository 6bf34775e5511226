"""Values that the operator knows: what can be measured, and how a prompt states what is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.errors import ParameterError


@dataclass(frozen=True)
class Quantity:
    """What can be measured: its unit, and the range outside of which a value is none."""

    name: str
    unit: str
    low: float
    high: float


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("heart rate", "/min", 10, 500),
        Quantity("RR interval", "ms", 100, 6000),
        Quantity("PR interval", "ms", 40, 800),
        Quantity("QRS duration", "ms", 20, 400),
        Quantity("QT interval", "ms", 100, 1000),
        Quantity("QTc interval", "ms", 100, 1000),
        Quantity("QTc interval (Bazett)", "ms", 100, 1000),
        Quantity("QTc interval (Fridericia)", "ms", 100, 1000),
        Quantity("P axis", "deg", -180, 270),
        Quantity("QRS axis", "deg", -180, 270),
        Quantity("T axis", "deg", -180, 270),
    )
}
# Short names of quantities, for `known`.
SHORT_NAMES = {
    "hr": "heart rate",
    "rr": "RR interval",
    "pr": "PR interval",
    "qrs": "QRS duration",
    "qt": "QT interval",
    "qtc": "QTc interval",
    "axis": "QRS axis",
}
_NAMES = SHORT_NAMES | {name.lower(): name for name in QUANTITIES}


def checked_value(name: str, value: float) -> float:
    """A value of a quantity.

    Args:
        name: a key of `QUANTITIES`.
        value: in the quantity's unit.

    Raises:
        ParameterError: it is no number of that quantity.
    """
    quantity = QUANTITIES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not quantity.low <= value <= quantity.high:
        raise ParameterError(
            f"{name} is {value!r:.40}, but must be from {quantity.low:g} to "
            f"{quantity.high:g} {quantity.unit}"
        )
    return float(value)


def known_values(values: Mapping[str, float] | None) -> dict[str, float]:
    """Values that a caller knows, by the names of `QUANTITIES`.

    Args:
        values: by a short or a whole name, in the quantity's unit.

    Raises:
        ParameterError: a name is unknown or occurs twice, or a value is out of its range.
    """
    known: dict[str, float] = {}
    for text, value in (values or {}).items():
        name = _NAMES.get(text.strip().lower()) if isinstance(text, str) else None
        if name is None:
            raise ParameterError(f"known value {text!r:.40} is unknown; there are {_legal()}")
        if name in known:
            raise ParameterError(f"{name} is given twice; give each known value once")
        known[name] = checked_value(name, value)
    return known


def parse_known(texts: Iterable[str]) -> dict[str, float]:
    """Known values of a command line, as `known_values` returns them.

    Args:
        texts: each one or more of NAME=VALUE, with commas between them.

    Raises:
        ParameterError: like `known_values`, or a text is no such list.
    """
    values: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            raise ParameterError(
                f"{part.strip()!r:.40} is no known value; write hr=72,pr=160, of {_legal()}"
            ) from None
        # Checked one by one, because a name may be spelled in two ways.
        key = next(iter(known_values({name: value})))
        if key in values:
            raise ParameterError(f"{key} is given twice; give each known value once")
        values[key] = value
    return values


def with_known(question: str, known: Mapping[str, float]) -> str:
    """The question as the model gets it, with the values before it.

    Args:
        question: of the caller.
        known: as `known_values` returns them.
    """
    if not known or not isinstance(question, str) or not question.strip():
        return question  # what is no question is refused as it is
    values = ", ".join(f"{name} {value:g} {_unit(name)}" for name, value in known.items())
    return f"Given by the operator, not read from the ECG: {values}.\n{question}"


def known_record(known: Mapping[str, float]) -> list[dict[str, Any]]:
    """Known values for provenance, ready for JSON."""
    return [
        {"name": name, "value": value, "unit": _unit(name), "source": "given"}
        for name, value in known.items()
    ]


def _unit(name: str) -> str:
    return QUANTITIES[name].unit


def _legal() -> str:
    """The short names with their units, and a hint at the others."""
    names = (f"{short} ({_unit(name)})" for short, name in SHORT_NAMES.items())
    others = [name for name in QUANTITIES if name not in SHORT_NAMES.values()]
    return ", ".join((*names, *(f"{name} ({_unit(name)})" for name in others)))
