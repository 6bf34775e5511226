"""Steps that are handed over: who offers one gets its own row, or runs it by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.decode.handover import Handover, share_steps
from pulse_edge.decode.result import Generation
from pulse_edge.engines.engine import likeliest
from pulse_edge.errors import EngineError

SIZE = 12


class Counter:
    """An engine whose likeliest token after t in slot s is t + s + 1; it remembers its passes."""

    def __init__(self, fails: bool = False) -> None:
        self.passes: list[tuple[str, list[int], list[int]]] = []
        self._fails = fails

    def rows(self, numbers: Numbers, page: Any = None) -> Numbers:
        return numbers

    def step(self, rows: Numbers, slot: Any = 0) -> Floats:
        return self._run("step", rows, slot)

    def choose(self, rows: Numbers, slot: Any = 0) -> Numbers:
        return likeliest(self._run("choose", rows, slot))

    def _run(self, name: str, rows: Numbers, slot: Any) -> Floats:
        self.passes.append((name, rows.tolist(), slot.tolist()))
        if self._fails:
            raise EngineError("broken")
        logits = np.zeros((len(rows), SIZE), np.float32)
        logits[np.arange(len(rows)), rows + slot + 1] = 1
        return logits


def offered(*offers: tuple[int, int, bool] | None) -> list[Handover]:
    """Handovers by (slot, token, needs logits); None offers nothing."""
    handovers = []
    for number, offer in enumerate(offers):
        handovers.append(Handover(number if offer is None else offer[0]))
        if offer is not None:
            handovers[-1].offer(*offer[1:])
    return handovers


def share(engine: Any, handovers: list[Handover]) -> None:
    share_steps(engine, handovers)


@pytest.mark.parametrize(
    ("offers", "run"),
    [
        ([(0, 3, False)], "choose"),
        ([(0, 3, False), (1, 4, False)], "choose"),
        ([(2, 3, False), (0, 4, False)], "choose"),
        ([(0, 3, True), (1, 4, True)], "step"),
        ([(0, 3, False), (1, 4, True)], "step"),
        ([(3, 1, True), (1, 2, False), (0, 5, False)], "step"),
    ],
)
def test_one_pass_serves_all_offers(offers: list[tuple[int, int, bool]], run: str) -> None:
    engine = Counter()
    handovers = offered(*offers)
    share(engine, handovers)
    assert engine.passes == [(run, [o[1] for o in offers], [o[0] for o in offers])]
    for (slot, token, logits), handover in zip(offers, handovers, strict=True):
        out = Generation()
        ahead = handover.take(out)
        assert ahead is not None
        assert ahead.shape == ((1, SIZE) if logits else (1,))
        assert int(ahead[0].argmax() if logits else ahead[0]) == token + slot + 1
        assert (len(out.step_seconds), out.shared_steps) == (1, 1)
        assert handover.token is None
        assert handover.take(out) is None


def test_who_offers_nothing_gets_nothing() -> None:
    engine = Counter()
    handovers = offered((0, 3, False), None, (2, 4, False))
    share(engine, handovers)
    assert engine.passes == [("choose", [3, 4], [0, 2])]
    assert handovers[1].take(Generation()) is None
    share(engine, offered(None, None))
    assert len(engine.passes) == 1


def test_a_pass_that_fails_leaves_the_steps_to_their_loops() -> None:
    handovers = offered((0, 3, False), (1, 4, True))
    share(Counter(fails=True), handovers)
    out = Generation()
    assert [handover.take(out) for handover in handovers] == [None, None]
    assert (out.step_seconds, out.shared_steps) == ([], 0)


def test_a_step_that_is_withdrawn_is_not_run() -> None:
    engine = Counter()
    handovers = offered((0, 3, False), (1, 4, False))
    handovers[0].withdraw()
    share(engine, handovers)
    assert engine.passes == [("choose", [4], [1])]
    handovers[1].withdraw()
    assert handovers[1].take(Generation()) is None


def test_a_new_one_offers_nothing_and_knows_of_no_company() -> None:
    handover = Handover(3)
    assert (handover.slot, handover.token) == (3, None)
    assert handover.needs_logits is False
    assert handover.company is False


def test_each_answer_notes_the_seconds_of_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 10.25])
    clock = SimpleNamespace(perf_counter=lambda: next(moments))
    monkeypatch.setattr("pulse_edge.decode.handover.time", clock)
    handovers = offered((0, 3, False), (1, 4, False))
    share(Counter(), handovers)
    for handover in handovers:
        out = Generation()
        handover.take(out)
        assert out.step_seconds == [0.25]
