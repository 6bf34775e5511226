"""Mixed traffic and random cancels. `support.mixed` and `support.cancels` do it for long."""

from __future__ import annotations

from pathlib import Path

import pytest

import pulse_edge
from pulse_edge import runner

from support.cancels import RandomCancels, same_as_fresh
from support.fixture_types import Bundles
from support.mixed import PIECE, Mixed, QueueOrder, growth, run_round


@pytest.mark.parametrize("queue_limit", [None, 4])
def test_mixed_traffic(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, queue_limit: int | None
) -> None:
    """No request is lost, nothing hangs, answers are right, and the queue keeps its order."""
    monkeypatch.setattr(runner, "PIECE", PIECE)
    model = pulse_edge.load(bundle, threads=1, queue_limit=queue_limit)
    mixed = Mixed(bundle, model)
    order = QueueOrder()
    with order.watching():
        run_round(mixed, 0, threads=6, operations=60)
    assert mixed.done.total() == 360
    assert order.turns > 100
    assert order.wrong == []
    kinds = {name.partition(":")[0] for name in mixed.done}
    assert len(kinds) == 10
    full = sum(count for name, count in mixed.done.items() if name.endswith(": full"))
    assert (full > 0) == (queue_limit is not None)
    mixed.check()
    assert model.health().healthy


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_random_cancels_leave_a_model_as_a_fresh_one(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(runner, "PIECE", PIECE)
    bundle = bundles(precision=precision)
    model = pulse_edge.load(bundle, threads=1)
    cancels = RandomCancels(model, seed=5)
    cancels.run(60)
    assert cancels.moments.total() == 60
    assert cancels.moments["end"] < 40, "hardly anything was cancelled"
    assert same_as_fresh(model, bundle)


def test_growth_is_that_after_the_warm_up() -> None:
    samples = [(float(second), 1000 if second < 10 else 2000 + second) for second in range(111)]
    assert growth(samples, 10) == 90.0
    assert growth([(0.0, 5), (1.0, 7)], 0.5) == 0.0
