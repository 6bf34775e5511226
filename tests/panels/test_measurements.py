"""Measurements: read in reports, given by callers and carts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.errors import ParameterError
from pulse_edge.panels.measurements import (
    QUANTITIES,
    known_measurements,
    parse_assignments,
    report_measurements,
)

RATE, PR, QRS, QT, QTC, AXIS = (
    *("heart rate", "PR interval", "QRS duration"),
    *("QT interval", "QTc interval", "QRS axis"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sinus rhythm at 62 bpm.", {RATE: 62}),
        ("The heart rate is 72 beats per minute.", {RATE: 72}),
        ("Heart rate: 72", {RATE: 72}),
        ("Ventricular rate of approximately 75/min", {RATE: 75}),
        ("HR 58.", {RATE: 58}),
        ("with a rate of 101 bpm", {RATE: 101}),
        ("PR interval 160 ms. QRS duration 90 ms.", {PR: 160, QRS: 90}),
        ("The PR interval is prolonged at 0.22 s", {PR: 220}),
        ("PQ interval = 180 msec", {PR: 180}),
        ("PR interval, QRS duration 90 ms", {QRS: 90}),
        ("QRS is within normal limits (96 ms)", {QRS: 96}),
        ("QRS complex is widened, 150 ms", {}),
        ("QT 380 ms, QTc 420 ms", {QT: 380, QTC: 420}),
        ("QT/QTc 380/420 ms", {QT: 380, QTC: 420}),
        ("The corrected QT interval is 447 ms.", {QTC: 447}),
        ("QTcB 430 ms; QTcF 410 ms", {f"{QTC} (Bazett)": 430, f"{QTC} (Fridericia)": 410}),
        ("QRS axis -30 degrees", {AXIS: -30}),
        ("axis of minus 45°", {AXIS: -45}),
        ("The axis is \u221260°.", {AXIS: -60}),
        ("P axis 45°, T axis 30°", {"P axis": 45, "T axis": 30}),
        ("RR interval 800 ms", {"RR interval": 800}),
        # No measurements of this ECG, or none that is certain
        ("The atrial rate is 300 bpm.", {}),
        ("A normal heart rate is 60-100 bpm.", {}),
        ("Heart rate 60 to 100 bpm", {}),
        ("heart rate over 100 bpm", {}),
        ("PR interval < 200 ms", {}),
        ("PR interval 120\u2013200 ms", {}),
        ("QRS is under 120 ms", {}),
        ("PR interval not measurable. QRS duration 90 ms.", {QRS: 90}),
        ("heart rate is not 72 bpm", {}),
        ("PR 160", {}),
        ("heart rate 0 bpm", {}),
        ("PR interval 2 s", {}),
        ("heart rate 12345 bpm", {}),
        ("heart rate variability 72 ms", {}),
        ("heart rate is 72 %", {}),
        # Several values
        ("Rate 70 bpm. Heart rate 70 bpm.", {RATE: 70}),
        ("Rate 70 bpm. Heart rate 71 bpm.", {RATE: None}),
    ],
)
def test_a_report_states(text: str, expected: dict[str, float | None]) -> None:
    measured = report_measurements(text, "report")
    assert {each.name: each.value for each in measured} == expected
    for each in measured:
        assert each.unit == QUANTITIES[each.name].unit
        assert (each.source, each.question) == ("model", "report")
        for start, stop in each.spans:
            assert any(character.isdigit() for character in text[start:stop])


@settings(max_examples=200, deadline=None)
@given(st.floats(20, 300).map(lambda value: round(value, 1)), st.sampled_from([" ", ": ", " is "]))
def test_the_span_holds_the_value(value: float, link: str) -> None:
    text = f"Sinus rhythm. The heart rate{link}{value:g} bpm, regular."
    (rate,) = report_measurements(text, "report")
    assert rate.value == value
    ((start, stop),) = rate.spans
    assert text[start:stop] == f"heart rate{link}{value:g} bpm"


def test_known_measurements_say_their_source() -> None:
    (cart,) = known_measurements({"QRS duration": 92}, "cart")
    assert (cart.value, cart.unit, cart.source, cart.question) == (92.0, "ms", "cart", None)
    assert not cart.spans


@pytest.mark.parametrize("value", [0, 1e9, math.nan, math.inf, True, "72", None])
def test_values_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(ParameterError, match=r"heart rate is .*, but must be from 10 to 500 /min"):
        known_measurements({"heart rate": value}, "given")  # type: ignore[dict-item]


def test_an_unknown_quantity_is_refused() -> None:
    with pytest.raises(ParameterError, match="'pulse' is unknown; there are heart rate"):
        known_measurements({"pulse": 72}, "given")


def test_assignments_are_read() -> None:
    assert parse_assignments(["heart rate=72", " QTc interval = 410.5 "]) == {
        "heart rate": 72.0,
        "QTc interval": 410.5,
    }
    for texts in (["heart rate"], ["heart rate=x"], ["heart rate=nan"], ["=x"]):
        with pytest.raises(ParameterError, match="write it as 'heart rate=72'"):
            parse_assignments(texts)
    with pytest.raises(ParameterError, match="given twice"):
        parse_assignments(["heart rate=72", "heart rate=73"])
