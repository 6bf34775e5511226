"""Steps of answers that somebody else may run, all of them in one pass of the engine."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.decode.result import Generation
from pulse_edge.engines.engine import Engine, likeliest


class Handover:
    """Hands an answer's next step to who runs the steps of several answers, and takes its result.

    The decode loop offers a step and yields. If the loop goes on and finds no result, it runs the
    step by itself.

    Args:
        slot: the answer's slot of the engine.

    Attributes:
        token: to append; None if no step is offered.
        needs_logits: whether the result is logits; else it is the likeliest token.
        company: whether other requests run too. The loop then drafts nothing.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.token: int | None = None
        self.needs_logits = False
        self.company = False
        self._result: tuple[NDArray[Any], float] | None = None

    def offer(self, token: int, needs_logits: bool) -> None:
        """Offer a step."""
        self.token = token
        self.needs_logits = needs_logits

    def withdraw(self) -> None:
        """The step is wanted no longer."""
        self.token = None
        self._result = None

    def give(self, ahead: NDArray[Any], seconds: float) -> None:
        """The offered step was run.

        Args:
            ahead: logits [1, vocab], valid until the engine's next call, or tokens [1].
            seconds: that the pass took.
        """
        self._result = (ahead, seconds)

    def take(self, out: Generation) -> NDArray[Any] | None:
        """The result of the offered step, which is noted in `out`; None if nobody has run it."""
        result = self._result
        self.withdraw()
        if result is None:
            return None
        ahead, seconds = result
        out.step_seconds.append(seconds)
        out.shared_steps += 1
        return ahead


def share_steps(engine: Engine, handovers: Collection[Handover]) -> None:
    """Run all steps that are offered in one pass.

    A pass that fails gives no results. Then each answer runs its own step, so that only those fail
    whose own step does.

    Args:
        engine: has the slots.
        handovers: of the answers under way.
    """
    offers = [handover for handover in handovers if handover.token is not None]
    if not offers:
        return
    tokens = np.array([offer.token for offer in offers], np.int64)
    slots = np.array([offer.slot for offer in offers], np.int64)
    start = time.perf_counter()
    try:
        rows = engine.rows(tokens)
        if any(offer.needs_logits for offer in offers):
            logits = engine.step(rows, slots)
            chosen = likeliest(logits)
        else:
            logits = None
            chosen = engine.choose(rows, slots)
    except Exception:
        return
    seconds = time.perf_counter() - start
    for row, offer in enumerate(offers):
        ahead = logits if offer.needs_logits and logits is not None else chosen
        offer.give(ahead[row : row + 1], seconds)
