"""One question about a recording in several layouts, and whether the answers agree.

Agreement is no proof: a model may give the same wrong answer in every layout. `BASE_RATES` says how
often PULSE did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from pulse_edge.answer import Answer
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.ecg.drawn import DrawnRecording
from pulse_edge.ecg.layout import LAYOUTS, PULSE_STYLE, parse_layouts
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import DeadlineError
from pulse_edge.known import QUANTITIES
from pulse_edge.panels.measurements import report_measurements
from pulse_edge.panels.statements import parse_statements

LAYOUTS_SCHEMA = "pulse-edge/layouts/1"
BASE_RATES = {
    "source": "TRACE: PULSE on CSN and G12, the same signals in 3x4, 6x2 and 12x1",
    "all_agree": 0.878,
    "all_right": 0.767,
    "all_equally_wrong": 0.112,
}
LIMITS = (
    "Agreement is not correctness: of PULSE's answers in three layouts 87.8 % agreed, and 11.2 % "
    "were the same wrong answer (TRACE). Other models, questions and recordings have other rates."
)
# Values that differ by no more are equal, by unit.
TOLERANCES = {"/min": 5.0, "ms": 20.0, "deg": 15.0}
_NOT_STATED = "not stated"
_CUT_OFF = ("deadline", "cancelled", "context")  # finish reasons of answers that are not compared

Value = str | float | None


class AsksRecordings(Protocol):
    """A model."""

    def ask(self, image: DrawnRecording, question: str, **options: Any) -> Answer:
        """See `Model.ask`."""
        ...


@dataclass(frozen=True)
class Difference:
    """What the answers say otherwise.

    Attributes:
        name: of a finding or a quantity; "answer" for texts in which neither was found.
        values: by layout: a status, a number, a text, or None for no value.
    """

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class LayoutAgreement:
    """Answers to one question about one recording, by layout.

    Attributes:
        question: that was asked.
        answers: by layout.
        skipped: layouts for which no time was left.
        pairs: of answers that were compared.
        equal_pairs: of those, the ones that agree.
        differences: what differs.
    """

    question: str
    answers: Mapping[str, Answer]
    skipped: tuple[str, ...]
    pairs: int
    equal_pairs: int
    differences: tuple[Difference, ...]

    @property
    def unanimous(self) -> bool | None:
        """Whether all answers agree; None if fewer than two were compared."""
        return None if not self.pairs else self.equal_pairs == self.pairs

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by docs/layouts.schema.json."""
        return {
            "schema": LAYOUTS_SCHEMA,
            "notice": NOTICE,
            "question": self.question,
            "answers": {layout: answer.to_dict() for layout, answer in self.answers.items()},
            "skipped": list(self.skipped),
            "agreement": {
                "unanimous": self.unanimous,
                "pairs": self.pairs,
                "equal_pairs": self.equal_pairs,
                "share": self.equal_pairs / self.pairs if self.pairs else None,
                "differences": [
                    {"name": each.name, "values": dict(each.values)} for each in self.differences
                ],
            },
            "base_rates": BASE_RATES,
            "limits": LIMITS,
        }


def ask_layouts(
    model: AsksRecordings,
    recording: Recording,
    question: str,
    layouts: Sequence[str] = tuple(LAYOUTS),
    *,
    deadline_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> LayoutAgreement:
    """Ask about a recording in each layout.

    Args:
        model: that is asked.
        recording: what is drawn, at 25 mm/s and 10 mm/mV.
        question: the same each time.
        layouts: at least two of `LAYOUTS`.
        deadline_s: seconds for all of it. Layouts that are not reached are skipped.
        clock: seconds since any moment.
        options: further keywords of `Model.ask`.

    Raises:
        ParameterError: see `parse_layouts`.
        DeadlineError: the first answer is predicted to be late.
        PulseEdgeError: see `Model.ask`.
    """
    names = parse_layouts(",".join(layouts))
    begun = clock()
    answers: dict[str, Answer] = {}
    for layout in names:
        left = None if deadline_s is None else deadline_s - (clock() - begun)
        if answers and left is not None and left <= 0:
            break
        page = DrawnRecording(recording, replace(PULSE_STYLE, layout=layout))
        try:
            answers[layout] = model.ask(page, question, deadline_s=left, **options)
        except DeadlineError:
            if not answers:
                raise
            break
    skipped = tuple(layout for layout in names if layout not in answers)
    return _compared(question, answers, skipped)


def _compared(
    question: str, answers: dict[str, Answer], skipped: tuple[str, ...]
) -> LayoutAgreement:
    texts = {
        layout: answer.text
        for layout, answer in answers.items()
        if answer.finish_reason not in _CUT_OFF
    }
    contents = {layout: _said_in(text) for layout, text in texts.items()}
    pairs = list(combinations(contents.values(), 2))
    equal = sum(not any(_differ(name, a, b) for name in {**a, **b}) for a, b in pairs)
    return LayoutAgreement(
        question, answers, skipped, len(pairs), equal, tuple(_differences(contents))
    )


def _said_in(text: str) -> dict[str, Value]:
    """What an answer says: findings and values; the text itself if it holds neither."""
    content: dict[str, Value] = {each.finding: each.status for each in parse_statements(text)}
    content |= {each.name: each.value for each in report_measurements(text, "answer")}
    return content or {"answer": " ".join(text.split()).rstrip(".").casefold()}


def _differ(name: str, one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    a, b = one.get(name), other.get(name)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) > TOLERANCES[QUANTITIES[name].unit]
    return a != b or (name in one) != (name in other)


def _differences(contents: Mapping[str, Mapping[str, Value]]) -> Iterator[Difference]:
    names = dict.fromkeys(name for content in contents.values() for name in content)
    for name in names:
        if any(_differ(name, a, b) for a, b in combinations(contents.values(), 2)):
            absent = None if name in QUANTITIES or name == "answer" else _NOT_STATED
            yield Difference(
                name, {layout: content.get(name, absent) for layout, content in contents.items()}
            )
