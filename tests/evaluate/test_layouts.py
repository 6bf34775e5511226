"""Agreement of answers about one recording in several layouts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from pulse_edge.answer import Answer
from pulse_edge.decode.result import FinishReason
from pulse_edge.ecg.drawn import DrawnRecording
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import DeadlineError, ParameterError
from pulse_edge.evaluate.layouts import BASE_RATES, LIMITS, LayoutAgreement, ask_layouts

from support.answers import answer
from support.paths import DOCS

SCHEMA = json.loads((DOCS / "layouts.schema.json").read_text())
RECORDING = Recording(np.zeros((12, 2500), np.float32), 250, LEADS)
LAYOUTS = ("3x4", "6x2", "12x1")


@dataclass
class Model:
    """Gives these answers, one a layout, a second each."""

    texts: tuple[str, ...]
    reasons: tuple[FinishReason, ...] = ("eos", "eos", "eos")
    late: int | None = None  # the request that is predicted to be late
    now: float = 0.0
    pages: list[DrawnRecording] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, image: DrawnRecording, question: str, **options: Any) -> Answer:
        assert question == "Q?"
        number = len(self.pages)
        if number == self.late:
            raise DeadlineError("late", 9.0, 1.0)
        self.pages.append(image)
        self.options.append(options)
        self.now += 1
        return replace(answer(), text=self.texts[number], finish_reason=self.reasons[number])

    def run(self, layouts: tuple[str, ...] = LAYOUTS, **options: Any) -> LayoutAgreement:
        result = ask_layouts(self, RECORDING, "Q?", layouts, clock=lambda: self.now, **options)
        jsonschema.validate(json.loads(json.dumps(result.to_dict())), SCHEMA)
        return result


def test_the_recording_is_drawn_in_each_layout() -> None:
    model = Model(("a", "a", "a"))
    result = model.run(seed=3)
    assert [page.style.layout for page in model.pages] == list(LAYOUTS)
    assert {(page.style.speed, page.style.gain) for page in model.pages} == {(25, 10)}
    assert all(page.recording is RECORDING for page in model.pages)
    assert model.options == [{"deadline_s": None, "seed": 3}] * 3
    assert list(result.answers) == list(LAYOUTS)


@pytest.mark.parametrize(
    ("texts", "equal"),
    [
        (("yes", "yes", "yes"), 3),
        (("yes", "Yes.", " yes "), 3),
        (("yes", "yes", "no"), 1),
        (("A", "B", "C"), 0),
        (("The heart rate is 75 bpm.", "The heart rate is 80 bpm.", "Heart rate: 79 bpm"), 3),
        (("Heart rate 75 bpm.", "Heart rate 80 bpm.", "Heart rate 86 bpm."), 1),
        (("PR interval 160 ms.", "PR interval 180 ms.", "PR interval 181 ms."), 2),
        (("Sinus rhythm. No ST change.", "No ST change; sinus rhythm.", "Sinus rhythm."), 1),
        (("Atrial fibrillation.", "No atrial fibrillation.", "Possible atrial fibrillation."), 0),
        (("Sinus rhythm at 75 bpm.", "Sinus rhythm.", "Sinus rhythm at 76 bpm."), 1),
    ],
)
def test_answers_agree_by_findings_and_values_else_by_text(
    texts: tuple[str, ...], equal: int
) -> None:
    result = Model(texts).run()
    assert (result.pairs, result.equal_pairs) == (3, equal)
    assert result.unanimous is (equal == 3)
    assert bool(result.differences) is (equal < 3)


def test_differences_name_what_each_layout_says() -> None:
    texts = ("AF at 80 bpm.", "AF at 90 bpm. LVH.", "AF at 81 bpm.")
    differences = {each.name: each.values for each in Model(texts).run().differences}
    assert differences["heart rate"] == {"3x4": 80.0, "6x2": 90.0, "12x1": 81.0}
    assert differences["left ventricular hypertrophy"] == {
        "3x4": "not stated",
        "6x2": "stated",
        "12x1": "not stated",
    }
    assert "atrial fibrillation" not in differences
    (texts_differ,) = Model(("yes", "no", "yes")).run().differences
    assert (texts_differ.name, texts_differ.values["6x2"]) == ("answer", "no")


def test_time_is_for_all_of_it_and_the_rest_is_skipped() -> None:
    model = Model(("a", "a", "a"))
    result = model.run(deadline_s=1.5)
    assert [options["deadline_s"] for options in model.options] == [1.5, 0.5]
    assert result.skipped == ("12x1",)
    assert (result.pairs, result.unanimous) == (1, True)
    assert Model(("a", "a", "a"), late=1).run(deadline_s=9.0).skipped == ("6x2", "12x1")
    with pytest.raises(DeadlineError):
        Model(("a", "a", "a"), late=0).run(deadline_s=9.0)


def test_an_answer_that_was_cut_off_is_not_compared() -> None:
    result = Model(("yes", "no", "yes"), ("eos", "deadline", "eos")).run()
    assert (result.pairs, result.equal_pairs) == (1, 1)
    alone = Model(("yes", "no"), ("eos", "cancelled")).run(("3x4", "6x2"))
    assert alone.unanimous is None
    assert alone.to_dict()["agreement"]["share"] is None


@pytest.mark.parametrize("layouts", [(), ("3x4",), ("3x4", "3x4"), ("3x4", "4x3"), ("cabrera",)])
def test_other_lists_of_layouts_are_refused(layouts: tuple[str, ...]) -> None:
    model = Model(("a", "a", "a"))
    with pytest.raises(ParameterError, match="expected at least two of 3x4, 6x2, 12x1"):
        model.run(layouts)
    assert not model.pages


def test_the_published_rates_and_their_limits_are_said() -> None:
    written = Model(("a", "a", "a")).run().to_dict()
    assert written["base_rates"] == BASE_RATES
    assert written["limits"] == LIMITS
    assert "not correctness" in LIMITS
    assert BASE_RATES["all_equally_wrong"] == 0.112
