"""The result of a panel. docs/result.schema.json is the JSON schema of a `Result`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.page.check import CheckStatus
from pulse_edge.panels.measurements import Measurement
from pulse_edge.panels.statements import Statement

SkipReason = Literal["deadline", "queue_full"]
SKIP_REASONS: tuple[SkipReason, ...] = get_args(SkipReason)
RESULT_SCHEMA = "pulse-edge/result/1"
STATUS = "preliminary"  # of every result: nobody has confirmed it


@dataclass(frozen=True)
class OptionLikelihood:
    """How likely an option is as the whole answer.

    Args:
        logprob: natural logarithm of the probability of its tokens and the end of the answer.
        tokens: that were scored.
    """

    logprob: float
    tokens: int


@dataclass(frozen=True)
class QuestionResult:
    """What became of a question that was asked.

    Args:
        id: of the question.
        prompt: the question as the model got it.
        options: none for free text.
        text: the whole answer.
        answer: the option that it is; None for free text, and if it is none of them.
        parsed: whether the answer is an option.
        refused: whether the model said that the image shows no ECG.
        spans: characters (start, stop) of `text` that are the option.
        scores: by option; None if the question is not scored or time was short.
        margin: log-probability of the likeliest option above that of the next one.
        finish_reason: see `Answer`.
        seconds: of the answer and its scores.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    text: str
    answer: str | None
    parsed: bool
    refused: bool
    spans: tuple[tuple[int, int], ...]
    scores: Mapping[str, OptionLikelihood] | None
    margin: float | None
    finish_reason: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        scores = self.scores
        return {
            **{name: getattr(self, name) for name in ("id", "prompt", "text", "answer", "parsed")},
            "options": list(self.options),
            "refused": self.refused,
            "spans": [list(span) for span in self.spans],
            "scores": None
            if scores is None
            else {option: asdict(score) for option, score in scores.items()},
            "margin": self.margin,
            "finish_reason": self.finish_reason,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class PanelTiming:
    """Seconds of a panel, from its submission on.

    Args:
        deadline_s: that it had; None: as many as it takes.
        queued_s: waits for other requests.
        total_s: in all.
        deadline_met: whether everything was done in time; None without a deadline.
        skipped: what was not reached: ids of questions, and "ID.scores".
        skip_reasons: for each of them `deadline`, or `queue_full` if the model's queue was full.
    """

    deadline_s: float | None
    queued_s: float
    total_s: float
    deadline_met: bool | None
    skipped: tuple[str, ...] = ()
    skip_reasons: Mapping[str, SkipReason] = field(default_factory=dict)


@dataclass(frozen=True)
class InputCheck:
    """Something about the input that its reader should know.

    Args:
        check: what found it: `page` for a note of the page's reader, else a check of the page.
        message: a sentence.
        status: of a check: `ok`, `warn` or `unknown`; None for a note.
        value: that was measured.
        unit: of the value.
        cannot_see: what the check is blind to.
    """

    check: str
    message: str
    status: CheckStatus | None = None
    value: float | None = None
    unit: str | None = None
    cannot_see: str | None = None


@dataclass(frozen=True)
class Result:
    """Answers to a panel, with what was read in them and what produced them.

    Args:
        panel: name of the panel.
        panel_sha256: hash of its content.
        questions: those that were answered, in the panel's order.
        statements: what the free texts state; one for each finding of the table.
        measurements: each with its source.
        checks: of the input.
        timing: against the deadline.
        provenance: what produced the answers, JSON-ready.
        notice: that it is for research only.
        cart_statements: of the machine that recorded, as the recording's file has them. What they
            say of findings is among `statements`, with the source "cart".
    """

    panel: str
    panel_sha256: str
    questions: tuple[QuestionResult, ...]
    statements: tuple[Statement, ...]
    measurements: tuple[Measurement, ...]
    checks: tuple[InputCheck, ...]
    timing: PanelTiming
    provenance: dict[str, Any] = field(default_factory=dict)
    notice: str = NOTICE
    cart_statements: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by docs/result.schema.json."""
        timing = asdict(self.timing) | {"skipped": list(self.timing.skipped)}
        return {
            "schema": RESULT_SCHEMA,
            "status": STATUS,
            "notice": self.notice,
            "panel": {
                "name": self.panel,
                "sha256": self.panel_sha256,
                "questions": [question.to_dict() for question in self.questions],
            },
            "statements": [statement.to_dict() for statement in self.statements],
            "cart_statements": list(self.cart_statements),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "input": {"checks": [asdict(check) for check in self.checks]},
            "timing": timing,
            "provenance": self.provenance,
        }
