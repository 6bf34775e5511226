"""Charts place values where they are."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.svg import Axis, Curve, bars, lines, roofline


def test_charts_place_values_where_they_are() -> None:
    axis = Axis([3, 87], 0, 100)
    assert axis.ticks == [0, 20, 40, 60, 80, 100]
    assert (axis(0), axis(50)) == (0, 50)
    log = Axis([0.2, 50], 0, 300, log=True)
    assert log.ticks == pytest.approx([0.1, 1, 10, 100])
    assert log(1) == 100
    drawn = ElementTree.fromstring(
        bars({"a": [("x", 1.0), ("y", 3.0)], "b": [("x", 2.0), ("y", 0.0)]})
    )
    widths = [float(e.get("width", 0)) for e in drawn.iter("rect")][:4]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.2)
    dots = list(
        ElementTree.fromstring(lines([Curve("c", [(1, 5), (2, 10)])], "x", "y")).iter("circle")
    )
    assert float(dots[0].get("cy", 0)) > float(dots[1].get("cy", 0))
    roof = ElementTree.fromstring(roofline([("p", 0.5, 4e9)], gemm=1e11, read=1e10)).find(
        "polyline"
    )
    assert roof is not None
    (_, low), (ridge, top), (_, flat) = (
        map(float, p.split(",")) for p in roof.get("points", "").split()
    )
    assert low > top == flat
    assert 70 < ridge < 684
