"""The few kinds of charts that the report needs, as inline SVG: no script, no font, no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)  # Okabe and Ito's
WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 36, 28, 44
ROW = 22  # pixels of a bar or a line of the legend


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]


class Axis:
    """Values to pixels, and round values to label."""

    def __init__(
        self, values: Sequence[float], begin: float, end: float, log: bool = False
    ) -> None:
        self._begin, self._end, self._log = begin, end, log
        low, high = min(values), max(values)
        if log:
            self.low, self.high = (
                10 ** math.floor(math.log10(low)),
                10 ** math.ceil(math.log10(high) + 1e-9),
            )
            count = round(math.log10(self.high / self.low))
            self.ticks = [self.low * 10.0**i for i in range(count + 1)]
        else:
            step = _round_step((high or 1) / 5)
            self.low, self.high = 0.0, step * max(1, math.ceil(high / step))
            self.ticks = [step * i for i in range(round(self.high / step) + 1)]

    def __call__(self, value: float) -> float:
        share = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self._log
            else (value - self.low) / (self.high - self.low)
        )
        return round(self._begin + share * (self._end - self._begin), 1)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= least * (1 - 1e-9))


def bars(rows: Mapping[str, Sequence[tuple[str, float]]], stacked: bool = True) -> str:
    """A horizontal bar a row: segments one after the other, or over each other (the longest at the
    back).
    """
    over = sum if stacked else max
    longest = max(over([value for _, value in segments]) for segments in rows.values())
    names = [name for name, _ in next(iter(rows.values()))]
    bottom = 2 * ROW * len(rows)
    axis = Axis([longest], LEFT, WIDTH - RIGHT)
    out = []
    for index, (name, segments) in enumerate(rows.items()):
        y, at = 2 * ROW * index, 0.0
        out.append(_text(LEFT, y + 12, name))
        order = list(enumerate(segments))
        for colour, (segment, value) in order if stacked else order[::-1]:
            x, width = axis(at), axis(at + value) - axis(at)
            title = f"<title>{escape(segment)}: {value:.4g}</title>"
            fill = COLOURS[colour]
            box = f'x="{x}" y="{y + 16}" width="{width:.1f}" height="{ROW - 6}" fill="{fill}"'
            out.append(f"<rect {box}>{title}</rect>")
            at += value if stacked else 0
    out += [_text(axis(t), bottom + 14, f"{t:.3g}", "middle") for t in axis.ticks]
    return _svg([*out, *_legend(names, bottom + 24)], bottom + 30 + ROW * len(names))


def lines(curves: Sequence[Curve], x_label: str, y_label: str, x_names: Sequence[str] = ()) -> str:
    """Points joined by lines; `x_names` label x = 0, 1, … instead of round numbers."""
    points = [p for curve in curves for p in curve.points]
    x = Axis([*(p[0] for p in points), len(x_names) - 1], LEFT, WIDTH - RIGHT)
    y = Axis([p[1] for p in points], HEIGHT - BOTTOM, TOP)
    out = _grid(y)
    every = math.ceil(len(x_names) / 9) or 1
    labels = [(i, n) for i, n in enumerate(x_names) if i % every == 0] or [
        (t, f"{t:,.6g}") for t in x.ticks
    ]
    out += [_text(x(at), HEIGHT - BOTTOM + 16, label, "middle") for at, label in labels]
    out += [_text(WIDTH / 2, HEIGHT - 8, x_label, "middle"), _text(4, 12, y_label)]
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x(a)},{y(b)}" for a, b in sorted(curve.points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [_dot(x(a), y(b), colour, f"{a:,.6g}: {b:,.4g}") for a, b in curve.points]
    return _svg([*out, *_legend([c.name for c in curves], HEIGHT)], HEIGHT + 8 + ROW * len(curves))


def roofline(points: Sequence[tuple[str, float, float]], gemm: float, read: float) -> str:
    """(name, FLOP/byte, FLOP/s) under the roof min(gemm, read x intensity); both
    axes logarithmic.
    """
    ridge = gemm / read
    x = Axis([*(p[1] for p in points), ridge], LEFT, WIDTH - RIGHT, log=True)
    y = Axis(
        [*(p[2] for p in points), gemm, min(gemm, read * x.low)], HEIGHT - BOTTOM, TOP, log=True
    )
    roof = [(x.low, min(gemm, read * x.low)), (ridge, gemm), (x.high, gemm)]
    path = " ".join(f"{x(a)},{y(b)}" for a, b in roof)
    out = [
        *_grid(y, 1e9),
        f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="2"/>',
    ]
    out += [_text(x(t), HEIGHT - BOTTOM + 16, f"{t:g}", "middle") for t in x.ticks]
    out += [_text(WIDTH / 2, HEIGHT - 8, "FLOP per byte read", "middle"), _text(4, 12, "GFLOP/s")]
    for index, (name, intensity, speed) in enumerate(points):
        out.append(
            _dot(
                x(intensity),
                y(speed),
                COLOURS[index % len(COLOURS)],
                f"{name}: {speed / 1e9:.4g} GFLOP/s",
            )
        )
    return _svg(
        [*out, *_legend([name for name, *_ in points], HEIGHT)], HEIGHT + 8 + ROW * len(points)
    )


def _grid(y: Axis, unit: float = 1) -> list[str]:
    out = []
    for tick in y.ticks:
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
        )
        out.append(_text(LEFT - 6, y(tick) + 4, f"{tick / unit:,.6g}", "end"))
    return out


def _legend(names: Sequence[str], top: float) -> list[str]:
    out = []
    for index, name in enumerate(names):
        y = top + ROW * index
        out.append(
            f'<rect x="{LEFT}" y="{y}" width="12" height="12" '
            f'fill="{COLOURS[index % len(COLOURS)]}"/>'
        )
        out.append(_text(LEFT + 18, y + 11, name))
    return out


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return (
        f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(title)}</title></circle>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: float) -> str:
    frame = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg {frame} font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'
