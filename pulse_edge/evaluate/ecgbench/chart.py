"""Accuracy beside latency as inline SVG: no script, no font, nothing fetched.

Colours are names of the page's style sheet, so that a chart follows light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

# In units of the picture, which are CSS pixels on a phone.
WIDTH = 320
HEIGHT = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 306, 14, 150  # of the field between the axes
LEAST = 0.1  # of the fractions that the axis upwards shows
_TICKS = 4  # about as many on an axis
COLOURS = 7  # of the style sheet: --c0 to --c6


@dataclass(frozen=True)
class ChartPoint:
    """A run in a chart.

    Attributes:
        number: from 1, as the legend has it.
        name: of the run.
        seconds: its median latency.
        value: a fraction.
        interval: 95 % of the value; None for none.
    """

    number: int
    name: str
    seconds: float
    value: float
    interval: Sequence[float] | None


@dataclass(frozen=True)
class _Axis:
    """An axis from `low` to `high`, drawn from `start` to `stop`, with a tick each `step`."""

    low: float
    high: float
    step: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """(place, number) of each tick."""
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        for index in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + index * self.step
            yield self.at(value), f"{value:.{digits}f}"


def latency_chart(points: Sequence[ChartPoint], figure: str) -> str:
    """A dot a run: its latency to the right, its figure upwards, with its interval.

    A latency of all runs that is 0 is drawn on an axis to 1 s.

    Args:
        points: at least one.
        figure: name of what is drawn upwards.
    """
    values = [value for point in points for value in (point.value, *(point.interval or ()))]
    upwards = _round_axis(*_wide_enough(min(values), max(values)), _BOTTOM, _TOP)
    right = _round_axis(0.0, max(point.seconds for point in points), _LEFT, _RIGHT)
    parts = [*_frame(upwards, right), *(_dot(each, upwards, right) for each in points)]
    told = "; ".join(
        f"{each.name}: {figure} {each.value:.3f}, {each.seconds:.2f} s" for each in points
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _wide_enough(low: float, high: float) -> tuple[float, float]:
    """A range of fractions of at least `LEAST`, so that noise does not fill the chart."""
    more = max(0.0, LEAST - (high - low)) / 2
    low = min(max(0.0, low - more), 1 - LEAST)
    return low, max(high, low + LEAST)


def _round_axis(low: float, high: float, start: float, stop: float) -> _Axis:
    """An axis with round ends around both values."""
    rough = (high - low or 1.0) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return _Axis(first * step, last * step, step, start, stop)


def _frame(upwards: _Axis, right: _Axis) -> Iterator[str]:
    for y, text in upwards.ticks():
        yield f'<line class="g" x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
    for x, text in right.ticks():
        yield f'<line class="g" x1="{x}" x2="{x}" y1="{_BOTTOM}" y2="{_BOTTOM + 4}"/>'
        yield f'<text x="{x}" y="{_BOTTOM + 16}" text-anchor="middle">{text}</text>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">median latency, s</text>'


def _dot(point: ChartPoint, upwards: _Axis, right: _Axis) -> str:
    x = right.at(point.seconds)
    y = upwards.at(point.value)
    colour = f"var(--c{(point.number - 1) % COLOURS})"
    bar = ""
    if point.interval is not None:
        low, high = (upwards.at(end) for end in point.interval)
        bar = f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" stroke="{colour}"/>'
    return (
        f'{bar}<circle cx="{x}" cy="{y}" r="8" fill="{colour}"/>'
        f'<text class="n" x="{x}" y="{y + 4}" text-anchor="middle">{point.number}</text>'
    )
