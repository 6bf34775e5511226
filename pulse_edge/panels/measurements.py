"""Measurements of a result: what a cart measured, what the caller gives, what a report says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pulse_edge.errors import ParameterError
from pulse_edge.known import QUANTITIES as QUANTITIES
from pulse_edge.known import checked_value

Source = Literal["cart", "given", "model"]


@dataclass(frozen=True)
class Measurement:
    """A value of a quantity.

    Args:
        name: a key of `QUANTITIES`.
        value: in `unit`; None if a text gives several different ones.
        unit: the quantity's.
        source: `cart` (measured by the machine that recorded), `given` (by the caller) or `model`
            (read in the model's text).
        question: id of the panel's question in whose answer it was read.
        spans: characters (start, stop) of that answer.
    """

    name: str
    value: float | None
    unit: str
    source: Source
    question: str | None = None
    spans: tuple[tuple[int, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by docs/result.schema.json."""
        return asdict(self) | {"spans": [list(span) for span in self.spans]}


def known_measurements(values: Mapping[str, float], source: Source) -> tuple[Measurement, ...]:
    """Values that are known beforehand, as measurements.

    Args:
        values: name -> value, in the quantity's unit.
        source: where they are from.

    Raises:
        ParameterError: a name is unknown, or a value is no number of that quantity.
    """
    measurements = []
    for name, value in values.items():
        if name not in QUANTITIES:
            legal = ", ".join(QUANTITIES)
            raise ParameterError(f"measurement {name!r:.80} is unknown; there are {legal}")
        number = checked_value(name, value)
        measurements.append(Measurement(name, number, QUANTITIES[name].unit, source))
    return tuple(measurements)


def cart_measurements(values: Mapping[str, float]) -> tuple[Measurement, ...]:
    """The cart's measurements that a recording's file holds.

    A cart may write 0 where it measured nothing: what is no value of its quantity is left out.

    Args:
        values: name -> value, in the quantity's unit.
    """
    return tuple(
        Measurement(name, float(value), QUANTITIES[name].unit, "cart")
        for name, value in values.items()
        if name in QUANTITIES and QUANTITIES[name].low <= value <= QUANTITIES[name].high
    )


_NUMBER = r"(?P<value>\d{1,4}(?:\.\d{1,3})?)"
_ANGLE = r"(?P<value>(?:[-+\u2212]\s?|minus )?\d{1,3}(?:\.\d)?)"
# No range ("120-200 ms"), no fraction ("380/420"), no part of a longer number.
_ALONE = r"(?!\d|\.\d|\s*(?:[-\u2013\u2014/]|to|and|or)\s*\d)"
# Words between a name and its value. None of them compares: "over 100 bpm" is no measurement.
_LINK = (
    r"(?:\s*(?:\b(?:is|was|of|at|a|an|the|measures|measured|measuring|approximately|approx|about"
    r"|around|roughly|estimated|calculated|normal|prolonged|short(?:ened)?|narrow|wid(?:e|ened)"
    r"|broad|increased|borderline|mildly|slightly|markedly|regular|within|limits|to|be)\b"
    r"|[:=(~\u2248])){0,8}\s*"
)
_RATE_UNIT = r"\s*(?:bpm|beats\s*(?:per|/)\s*min(?:ute)?|/\s*min(?:ute)?|per minute)\b"
_TIME_UNIT = r"\s*(?P<unit>ms(?:ec)?|milliseconds?|s(?:ec)?|seconds?)\b"
_DEGREES = r"\s*(?:°|deg(?:rees?)?\b)"


def _time(name: str) -> str:
    return rf"(?<![\w/-]){name}{_LINK}{_NUMBER}{_ALONE}{_TIME_UNIT}"


def _axis(name: str) -> str:
    return rf"(?<![\w/-]){name}{_LINK}{_ANGLE}{_ALONE}{_DEGREES}"


# (quantity, pattern). Each pattern has a group `value`, and `unit` if it may be seconds.
_PATTERNS = tuple(
    (name, re.compile(pattern, re.I))
    for name, pattern in (
        (
            "heart rate",
            rf"(?<![\w/-])(?:(?:heart|ventricular|pulse) rate|hr){_LINK}{_NUMBER}{_ALONE}"
            rf"(?:{_RATE_UNIT}|(?!\s*(?:%|ms|s\b|°|years?)))",
        ),
        (
            "heart rate",
            r"(?<![\w/-])(?<!atrial )(?<!heart )(?<!ventricular )(?<!pulse )"
            rf"(?:rate|at)(?:\s+(?:of|a rate of|is|about|approximately|around)|\s*[:=])*\s*"
            rf"{_NUMBER}{_ALONE}{_RATE_UNIT}",
        ),
        ("RR interval", _time(r"r-?r(?: interval)?")),
        ("PR interval", _time(r"p-?[rq](?: interval| duration)?")),
        ("QRS duration", _time(r"qrs(?: complex)?(?: duration| width| interval)?")),
        ("QT interval", _time(r"(?<!corrected )q-?t(?: interval| duration)?")),
        ("QTc interval (Bazett)", _time(r"(?:qtcb|qtc(?: interval)? \(?bazett\)?)")),
        ("QTc interval (Fridericia)", _time(r"(?:qtcf|qtc(?: interval)? \(?fridericia\)?)")),
        ("QTc interval", _time(r"(?:qtc|corrected qt)(?: interval| duration)?")),
        ("P axis", _axis(r"p(?: wave)? axis")),
        ("T axis", _axis(r"t(?: wave)? axis")),
        (
            "QRS axis",
            _axis(
                r"(?<!\bp )(?<!\bt )(?<!wave )(?:qrs |frontal (?:plane )?|electrical |mean )*axis"
            ),
        ),
    )
)
_QT_PAIR = re.compile(
    r"(?<![\w/-])qt\s*/\s*qtc(?: interval)?s?\s*[:=]?\s*(?P<qt>\d{3})\s*/\s*(?P<qtc>\d{3})\s*ms\b",
    re.I,
)


def report_measurements(text: str, question: str) -> tuple[Measurement, ...]:
    """Measurements that a report states, with the characters that state them.

    Values outside a quantity's range, ranges and comparisons ("over 120 ms") are left out. A
    quantity with several different values has the value None.

    Args:
        text: of the report.
        question: id of the question that it answers.
    """
    found: dict[str, dict[tuple[int, int], float]] = {}
    for name, span, value in (*_readings(text), *_pairs(text)):
        quantity = QUANTITIES[name]
        if quantity.low <= value <= quantity.high:
            found.setdefault(name, {})[span] = value
    return tuple(
        Measurement(
            name,
            next(iter(set(values.values()))) if len(set(values.values())) == 1 else None,
            QUANTITIES[name].unit,
            "model",
            question,
            tuple(sorted(values)),
        )
        for name, values in found.items()
    )


def _readings(text: str) -> Iterator[tuple[str, tuple[int, int], float]]:
    for name, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            yield name, match.span(), _value(match)


def _value(match: re.Match[str]) -> float:
    """The value in the quantity's unit: seconds become milliseconds."""
    digits = re.sub(r"minus |[\u2212-]\s?", "-", match["value"].lower()).replace("+", "")
    value = float(digits)
    unit = match.groupdict().get("unit")
    seconds = unit is not None and unit.lower().startswith("s")
    return float(round(value * 1000, 3)) if seconds else value


def _pairs(text: str) -> Iterator[tuple[str, tuple[int, int], float]]:
    for match in _QT_PAIR.finditer(text):
        yield "QT interval", match.span(), float(match["qt"])
        yield "QTc interval", match.span(), float(match["qtc"])


def parse_assignments(texts: Iterable[str]) -> dict[str, float]:
    """Values that a command line gives.

    Args:
        texts: each "NAME=VALUE".

    Raises:
        ParameterError: a text is no such pair, or a name occurs twice.
    """
    values: dict[str, float] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or math.isnan(value):
            raise ParameterError(f"{text!r:.80} is no measurement; write it as 'heart rate=72'")
        if name in values:
            raise ParameterError(f"{name!r:.80} is given twice; give each measurement once")
        values[name] = value
    return values
