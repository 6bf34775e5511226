"""Charts as inline SVG, drawn by matplotlib: no script, no font, nothing fetched.

A chart is as narrow as a phone, so its text is not scaled down there. Its colours are names of the
page's style sheet, so it follows light, dark and print.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 4.0  # inches of 72 points; a phone of 360 pixels shows a point as 1.25 pixels
ROW = 0.3  # inches of a bar
LINE = 46  # letters that fit beside each other
NEW_LINE = "\n"
# matplotlib wants colours: these stand for the style sheet's, and are replaced in what it writes.
INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0{i}0a0b" for i in range(1, 8))
_STYLED = {INK: "var(--ink)", GRID: "var(--grid)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(SERIES)
}
_SALT = itertools.count()  # makes the ids of each chart its own


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart.

    Attributes:
        name: of what was measured.
        value: its median.
        low: least of its repetitions; None for none.
        high: largest.
        text: the value with its unit, as it is written beside the bar.
        own: whether it is ours, which has its own colour.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    own: bool = True


@dataclass(frozen=True)
class Curve:
    """Points joined by lines.

    Attributes:
        name: for the legend.
        points: (x, y).
        ranges: (low, high) of each y; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    ranges: Sequence[tuple[float, float]] = ()


def bars(rows: Sequence[Bar], title: str) -> str:
    """A horizontal bar a row, with its range and its value.

    Args:
        rows: at least one.
        title: for readers who cannot see it.
    """
    one_line = all(len(row.name) + len(row.text) < LINE for row in rows)
    figure, axes = _figure(ROW * (1.75 if one_line else 2.2) * len(rows) + 0.1)
    largest = max(max(row.value, row.high or 0) for row in rows)
    for y, row in enumerate(rows):
        colour = SERIES[0] if row.own else SERIES[6]
        axes.barh(y, row.value, height=0.42, color=colour)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=INK, linewidth=1.4)
            axes.plot([row.low, row.high], [y, y], "|", color=INK, markersize=6)
        label = f"{row.name}{': ' if one_line else NEW_LINE}{row.text}"
        axes.text(0, y - 0.27, label, va="bottom", color=INK, fontsize=9, linespacing=1.1)
    axes.set_xlim(0, largest * 1.02)
    axes.set_ylim(len(rows) - 0.6, -0.95)
    axes.set_axis_off()
    return _svg(figure, title)


def stacked(rows: Mapping[str, Sequence[tuple[str, float, str]]], title: str) -> str:
    """A horizontal bar a row, of segments one after the other.

    Args:
        rows: name -> (segment, value, value as text), the same segments in each.
        title: see `bars`.
    """
    names = [name for name, *_ in next(iter(rows.values()))]
    figure, axes = _figure(ROW * 1.75 * len(rows) + 0.25 * len(names) + 0.1)
    for y, (name, segments) in enumerate(rows.items()):
        left = 0.0
        for colour, (_, value, _) in zip(SERIES, segments, strict=False):
            axes.barh(y, value, left=left, height=0.42, color=colour)
            left += value
        axes.text(0, y - 0.34, name, va="bottom", color=INK, fontsize=9)
    axes.set_ylim(len(rows) - 0.6, -0.95)
    axes.set_axis_off()
    first = next(iter(rows.values()))
    labels = [f"{name}: {text}" if len(rows) == 1 else name for name, _, text in first]
    _legend(figure, axes, labels)
    return _svg(figure, title)


def lines(
    curves: Sequence[Curve], x_label: str, y_label: str, title: str, x_names: Sequence[str] = ()
) -> str:
    """Points joined by lines, with their ranges.

    Args:
        curves: at least one, with a point.
        x_label: below the axis.
        y_label: above it.
        title: see `bars`.
        x_names: label x = 0, 1, … instead of round numbers.
    """
    figure, axes = _figure(2.3 + 0.2 * len(curves))
    for colour, curve in zip(itertools.cycle(SERIES), curves):
        x, y = zip(*sorted(curve.points), strict=True)
        axes.plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.5)
        if curve.ranges:
            for (at, _), (low, high) in zip(curve.points, curve.ranges, strict=True):
                axes.plot([at, at], [low, high], color=colour, linewidth=1)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.yaxis.set_major_formatter(_plain)
    axes.xaxis.set_major_formatter(_plain)
    _name_axes(axes, x_label, y_label)
    if x_names:
        step = -(-len(x_names) // 5)
        axes.set_xticks(range(0, len(x_names), step), x_names[::step])
        axes.set_xlim(-0.3, len(x_names) - 0.7)
    _legend(figure, axes, [curve.name for curve in curves], lines=True)
    return _svg(figure, title)


def roofline(
    points: Sequence[tuple[str, float, float]], gemm: float, read: float, title: str
) -> str:
    """Points under the roof min(gemm, read x intensity); both axes logarithmic.

    Args:
        points: (name, FLOP/byte, FLOP/s), at least one.
        gemm: FLOP/s of the flat roof.
        read: bytes/s of the slope.
        title: see `bars`.
    """
    figure, axes = _figure(2.5 + 0.2 * len(points))
    ridge = gemm / read
    least = min(ridge, *(intensity for _, intensity, _ in points)) / 2
    most = max(ridge, *(intensity for _, intensity, _ in points)) * 2
    roof = [(least, read * least), (ridge, gemm), (most, gemm)]
    axes.loglog([x for x, _ in roof], [y / 1e9 for _, y in roof], color=INK, linewidth=1.5)
    for colour, (_, intensity, speed) in zip(itertools.cycle(SERIES), points):
        axes.loglog([intensity], [speed / 1e9], "o", color=colour, markersize=5)
    speeds = [gemm, *(speed for *_, speed in points)]
    axes.set_ylim(
        10 ** math.floor(math.log10(min(speeds) / 1e9)),
        10 ** math.ceil(math.log10(max(speeds) / 1e9)),
    )
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain)
    _name_axes(axes, "FLOP per byte read", "GFLOP/s")
    labels = [f"{name}: {_digits(speed / 1e9)} GFLOP/s" for name, _, speed in points]
    _legend(figure, axes, labels, lines=True)
    return _svg(figure, title)


def _plain(value: float, _: int) -> str:
    """A tick's number, without an exponent."""
    return f"{value:,.10g}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(height: float) -> tuple[Any, Any]:
    """A figure and its axes. matplotlib is an extra, and takes a second to import."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit(
            "error: the charts need matplotlib; pip install 'pulse-edge[report]'"
        ) from None

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _name_axes(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.set_title(y_label, color=INK, fontsize=9, loc="left")
    axes.tick_params(colors=INK, labelsize=8.5)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _legend(figure: Any, axes: Any, names: Sequence[str], lines: bool = False) -> None:
    """Names under the chart, one a line: a phone has no room beside it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kind: Any = Line2D if lines else Patch
    values: Any = ([0], [0]) if lines else ()
    handles = [
        kind(*values, color=colour, linewidth=3 if lines else 0)
        for colour, _ in zip(itertools.cycle(SERIES), names)
    ]
    figure.legend(
        handles, names, loc="outside lower left", frameon=False, fontsize=9,
        labelcolor=INK, handlelength=1, borderpad=0.1, labelspacing=0.3,
    )  # fmt: skip


def _svg(figure: Any, title: str) -> str:
    """The figure as an element of a page: no prologue, no metadata, no address, own ids."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": str(next(_SALT))}):
        figure.savefig(out, format="svg")
    text = out.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S
    )
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r'font-family: [^;"]*', "font-family: system-ui, sans-serif", text)
    text = re.sub(r'font: [^;"]*?(\d[\d.]*px)[^;"]*', r"font: \1 system-ui, sans-serif", text)
    for colour, name in _STYLED.items():
        text = text.replace(colour, name)
    label = f'role="img" aria-label="{escape(title, quote=True)}"'
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f"<svg {label}", text, count=1)
    return re.sub(r"\s*\n\s*", " ", text).strip()
