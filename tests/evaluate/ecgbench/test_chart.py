"""Accuracy beside latency as a picture: where dots stand, and that nothing else is needed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from pulse_edge.evaluate.ecgbench.chart import COLOURS, HEIGHT, WIDTH, ChartPoint, latency_chart


def point(
    number: int, seconds: float, value: float, interval: tuple[float, float] | None = None
) -> ChartPoint:
    return ChartPoint(number, f"run {number}", seconds, value, interval)


def dots(text: str) -> list[tuple[float, float]]:
    circles = ET.fromstring(text).findall("circle")
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in circles]


def ticks(text: str) -> list[float]:
    """Numbers at the axes, the dots' own aside."""
    texts = [each for each in ET.fromstring(text).findall("text") if "class" not in each.attrib]
    shown = (each.text or "" for each in texts)
    return [float(text) for text in shown if re.fullmatch(r"[\d.]+", text)]


def test_faster_is_to_the_left_and_better_is_higher() -> None:
    (slow, fast) = dots(latency_chart([point(1, 2.0, 0.9), point(2, 1.0, 0.7)], "f1"))
    assert fast[0] < slow[0]
    assert fast[1] > slow[1]  # pixels count downwards


@pytest.mark.parametrize("value", [0.0, 0.003, 0.25, 0.5, 0.748, 0.97, 0.999, 1.0])
@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.31, 1.0, 9.99, 253.0, 86_400.0])
def test_dots_and_numbers_stay_in_the_picture(value: float, seconds: float) -> None:
    interval = (max(0.0, value - 0.02), min(1.0, value + 0.02))
    for points in (
        [point(1, seconds, value)],
        [point(1, seconds, value, interval), point(2, seconds / 2, 0.5, (0.4, 0.6))],
    ):
        text = latency_chart(points, "accuracy")
        for x, y in dots(text):
            assert 0 < x < WIDTH
            assert 0 < y < HEIGHT
        for line in ET.fromstring(text).findall("line"):
            assert all(0 <= float(line.attrib[end]) <= HEIGHT for end in ("y1", "y2"))
        assert len(ticks(text)) <= 14


def test_fractions_end_at_0_and_1() -> None:
    for value in (0.0, 1.0):
        upwards = [each for each in ticks(latency_chart([point(1, 3.0, value)], "f1")) if each <= 1]
        assert min(upwards) >= 0
        assert value in upwards


def test_a_difference_of_noise_does_not_fill_the_chart() -> None:
    (one, other) = dots(latency_chart([point(1, 1.0, 0.8), point(2, 2.0, 0.801)], "f1"))
    assert abs(one[1] - other[1]) < 5


def test_readers_who_cannot_see_it_are_told_the_figures() -> None:
    text = latency_chart([point(1, 0.5, 0.875)], "f1")
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "run 1: f1 0.875, 0.50 s"


def test_names_are_escaped() -> None:
    text = latency_chart([ChartPoint(1, '<b>"x"', 1.0, 0.5, None)], "f1")
    assert ET.fromstring(text).attrib["aria-label"].startswith('<b>"x"')


def test_more_runs_than_colours_have_colours_again() -> None:
    text = latency_chart([point(number, 1.0, 0.5) for number in range(1, COLOURS + 2)], "f1")
    colours = re.findall(r'fill="(var\(--c\d\))"', text)
    assert len(colours) == COLOURS + 1
    assert len(set(colours)) == COLOURS
