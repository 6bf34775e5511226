"""Charts place values where they are, and follow the page's colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("matplotlib")

from benchmarks.report.charts import Bar, Curve, bars, lines, roofline, stacked

ROWS = [
    Bar("ours", 4.0, 3.0, 5.0, "4 tokens/s (3 to 5)"),
    Bar("a peer", 2.0, None, None, "2 tokens/s", own=False),
]


def boxes(svg: str, colour: str) -> list[tuple[float, float]]:
    """(left, right) of each filled path of a colour."""
    found = []
    for element in ElementTree.fromstring(svg).iter("path"):
        if f"fill: var(--{colour})" in element.get("style", ""):
            x = [float(n) for n in re.findall(r"[ML] (-?[\d.]+)", element.get("d", ""))]
            found.append((min(x), max(x)))
    return found


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter("text")]


CHARTS = {
    "bars": bars(ROWS, "a title"),
    "stacked": stacked({"a": [("x", 1.0, "1 s"), ("y", 3.0, "3 s")]}, "a title"),
    "lines": lines([Curve("c", [(1, 5), (2, 10)], [(4, 6), (9, 11)])], "x", "y", "a title"),
    "dates": lines([Curve("c", [(0, 5), (1, 10)])], "x", "y", "a title", ["11-01", "11-02"]),
    "roofline": roofline([("p", 0.5, 4e9)], 1e11, 1e10, "a title"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_needs_nothing_else(name: str) -> None:
    svg = CHARTS[name]
    assert svg.startswith('<svg role="img" aria-label="a title" viewBox=')
    assert not re.search(r"https?:|@import|<script|<style|<image|url\((?!#)", svg)
    root = ElementTree.fromstring(svg)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    used = {e.get("href", "#")[1:] for e in root.iter("use")}
    used |= set(re.findall(r"url\(#(\w+)\)", svg))
    assert used <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", CHARTS)
def test_its_colours_are_the_page_s(name: str) -> None:
    """No colour of matplotlib's own is left, so that dark mode changes all of them."""
    assert not re.search(r"#[0-9a-f]{6}\b", CHARTS[name])
    assert "var(--ink)" in CHARTS[name]


def test_ids_of_two_charts_do_not_meet() -> None:
    one, other = (set(re.findall(r'id="(\w+)"', bars(ROWS, "t"))) for _ in range(2))
    assert one
    assert not one & other


def test_bars_are_as_long_as_their_values() -> None:
    svg = CHARTS["bars"]
    ((left, right),) = boxes(svg, "c0")
    ((peer_left, peer_right),) = boxes(svg, "c6")
    assert left == peer_left
    assert right - left == pytest.approx(2 * (peer_right - peer_left), rel=0.01)
    assert texts(svg) == ["ours: 4 tokens/s (3 to 5)", "a peer: 2 tokens/s"]


def test_ranges_are_where_they_are() -> None:
    svg = CHARTS["bars"]
    ((left, right),) = boxes(svg, "c0")
    unit = (right - left) / 4
    marks = [float(e.get("x", 0)) for e in ElementTree.fromstring(svg).iter("use")]
    assert marks == pytest.approx([left + 3 * unit, left + 5 * unit], abs=0.1)


def test_long_names_have_a_line_of_their_own() -> None:
    row = Bar("a name that is rather long, threads auto", 1, None, None, "1.41 ms (1.41 to 1.57)")
    assert texts(bars([row], "t")) == [row.name, row.text]


def test_segments_follow_each_other() -> None:
    svg = stacked(
        {"a": [("x", 1.0, "1"), ("y", 3.0, "3")], "b": [("x", 2.0, "2"), ("y", 0.0, "0")]}, "t"
    )
    legend = 15  # points: what is narrower is its patch
    first, second = (
        sorted((b for b in boxes(svg, c) if b[1] - b[0] > legend), key=lambda box: box[1])
        for c in ("c0", "c1")
    )
    left, right = first[0]
    assert second[0][0] == pytest.approx(right, abs=0.1)
    assert second[0][1] - second[0][0] == pytest.approx(3 * (right - left), abs=0.2)


def test_lines_have_plain_numbers_and_names() -> None:
    many = lines([Curve("tokens", [(0, 15760.0), (2000, 31880.0)])], "x", "y", "t")
    assert "30,000" in texts(many)
    assert not any("e+" in text for text in texts(many))
    assert "11-02" in texts(CHARTS["dates"])


def test_points_lie_under_the_roof() -> None:
    svg = roofline([("p", 0.5, 4e9)], gemm=1e11, read=1e10, title="t")
    assert "p: 4 GFLOP/s" in texts(svg)
    roof = next(
        e.get("d", "")
        for e in ElementTree.fromstring(svg).iter("path")
        if "stroke: var(--ink); stroke-width: 1.5" in e.get("style", "")
    )
    points = [tuple(map(float, p)) for p in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", roof)]
    (_, low), (ridge, top), (end, flat) = points
    assert low > top == flat  # SVG's y goes down
    assert ridge < end
    marks = [
        e for e in ElementTree.fromstring(svg).iter("use") if "var(--c0)" in e.get("style", "")
    ]
    (mark,) = marks
    assert float(mark.get("y", 0)) > top
