"""Values of the operator: their names and ranges, the prompt, provenance, and panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.errors import ParameterError
from pulse_edge.known import (
    QUANTITIES,
    SHORT_NAMES,
    known_record,
    known_values,
    parse_known,
    with_known,
)

PAGE = np.full((60, 80), 255, np.uint8)


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (("hr=72,pr=160",), {"heart rate": 72.0, "PR interval": 160.0}),
        (("hr=72", "pr=160"), {"heart rate": 72.0, "PR interval": 160.0}),
        ((" HR = 72.5 ",), {"heart rate": 72.5}),
        (("qrs=90,qt=400,qtc=410,rr=800",), {
            "QRS duration": 90.0, "QT interval": 400.0, "QTc interval": 410.0, "RR interval": 800.0,
        }),
        (("axis=-45",), {"QRS axis": -45.0}),
        (("heart rate=72,p axis=60",), {"heart rate": 72.0, "P axis": 60.0}),
        (("QTc interval (Bazett)=420",), {"QTc interval (Bazett)": 420.0}),
        ((), {}),
    ],
)  # fmt: skip
def test_lists_of_values_are_read(texts: tuple[str, ...], values: dict[str, float]) -> None:
    assert parse_known(texts) == values
    assert known_values(values) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no known value; write hr=72,pr=160"),
        ("hr", "is no known value"),
        ("hr=", "is no known value"),
        ("hr=72,", "is no known value"),
        ("hr=72bpm", "is no known value"),
        ("hr:72", "is no known value"),
        ("age=50", r"known value 'age' is unknown; there are hr \(/min\), rr \(ms\)"),
        ("hr=nan", "heart rate is nan, but must be from 10 to 500 /min"),
        ("hr=inf", "must be from 10 to 500 /min"),
        ("hr=9", "must be from 10 to 500 /min"),
        ("hr=501", "must be from 10 to 500 /min"),
        ("pr=0.16", "PR interval is 0.16, but must be from 40 to 800 ms"),
        ("axis=300", "must be from -180 to 270 deg"),
        ("hr=72,hr=72", "heart rate is given twice"),
        ("hr=72,heart rate=80", "heart rate is given twice"),
    ],
)
def test_other_values_are_refused_with_what_is_legal(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        parse_known([text])


@pytest.mark.parametrize("values", [{"hr": "72"}, {"hr": True}, {"hr": None}, {3: 72}])
def test_what_is_no_number_is_refused(values: Any) -> None:
    with pytest.raises(ParameterError):
        known_values(values)


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_prompt_states_each_value_with_its_unit(name: str) -> None:
    quantity = QUANTITIES[name]
    prompt = with_known("What is the rhythm?", known_values({name: quantity.high}))
    assert prompt == (
        f"Given by the operator, not read from the ECG: {name} {quantity.high:g} {quantity.unit}.\n"
        "What is the rhythm?"
    )


def test_nothing_known_changes_nothing() -> None:
    assert with_known("q", {}) == "q"
    assert with_known(" ", {"heart rate": 72.0}) == " "  # refused as an empty question
    assert set(SHORT_NAMES.values()) <= set(QUANTITIES)


def test_an_answer_lists_what_was_given(model: pulse_edge.Model) -> None:
    plain = model.ask(PAGE, "What is the rate?", max_new_tokens=2)
    answer = model.ask(PAGE, "What is the rate?", max_new_tokens=2, known={"hr": 72, "pr": 160})
    assert "known" not in plain.provenance
    assert answer.provenance["known"] == [
        {"name": "heart rate", "value": 72.0, "unit": "/min", "source": "given"},
        {"name": "PR interval", "value": 160.0, "unit": "ms", "source": "given"},
    ]
    stated = "Given by the operator, not read from the ECG: heart rate 72 /min, PR interval 160 ms."
    assert stated in answer.provenance["prompt"]
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens
    stream = model.stream(PAGE, "What is the rate?", max_new_tokens=2, known={"qt": 400})
    assert stream.answer.provenance["known"] == known_record({"QT interval": 400.0})
    with pytest.raises(ParameterError, match="the question is empty"):
        model.ask(PAGE, "", known={"hr": 72})
    with pytest.raises(ParameterError, match="known value 'x' is unknown"):
        model.ask(PAGE, "q", known={"x": 1})
