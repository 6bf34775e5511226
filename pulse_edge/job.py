"""How far a request has come, in the thread that runs it."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.answer import Request, Stopwatch
from pulse_edge.deadline import DeadlineReport
from pulse_edge.delivery import Delivery
from pulse_edge.page.encoder import PlacedPage
from pulse_edge.rates import Work
from pulse_edge.text.template import Prompt


@dataclass
class Job:
    """How far a request has come. A cancelled one reports it in its answer."""

    request: Request
    watch: Stopwatch
    page: PlacedPage | None = None
    prompt: Prompt | None = None
    rendered: tuple[PlacedPage | None, Prompt] | None = None  # ahead of its turn
    reused: int | None = None  # positions of the prompt that were in the cache at its beginning
    work: Work | None = None  # what there was to do at its beginning
    predicted_s: float | None = None  # from its submission to its end
    prefill_s: float | None = None  # predicted, from its turn to its first token
    company: bool = False  # other requests ran meanwhile


def deadline_report(run: Job, delivery: Delivery) -> DeadlineReport | None:
    """What became of a request's deadline; None if it had none."""
    deadline = run.request.terms.deadline
    if deadline is None:
        return None
    late = delivery.out.finish_reason == "deadline"
    skipped = _skipped(run, delivery) if late else ()
    return DeadlineReport(deadline.seconds, run.predicted_s, not late, skipped)


def _skipped(run: Job, delivery: Delivery) -> tuple[str, ...]:
    """The stages of a request that a deadline has ended which are not done."""
    if delivery.out.first_token_at is not None:
        return ("decode",)
    stages: tuple[str, ...] = ("decode_image", "preprocess", "vision", "prefill", "decode")
    if run.request.page is None:
        stages = stages[3:]
    reached = [stage for stage in stages if stage in run.watch.reached]
    return stages[stages.index(reached[-1]) if reached else 0 :]
