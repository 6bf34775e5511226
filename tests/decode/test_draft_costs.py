"""Engines whose steps of several rows cost something at once, and hold only so many rows."""

from __future__ import annotations

import pytest

from pulse_edge.decode.speculation import MAX_LOSS, DraftPolicy, Guess, cost

SURE = [Guess(token, 0.99) for token in range(20)]


@pytest.mark.parametrize(("most", "drafted"), [(15, 15), (7, 7), (3, 3), (0, 0)])
def test_a_draft_fits_a_step(most: int, drafted: int) -> None:
    policy = DraftPolicy(0.001, most=most)
    assert len(policy.choose(SURE, tokens=1000, room=100)) == drafted


def test_what_any_draft_costs_must_be_affordable() -> None:
    policy = DraftPolicy(0.001, draft_cost=0.25)
    tokens = next(n for n in range(1000) if policy.choose(SURE, tokens=n, room=100))
    assert MAX_LOSS * tokens == pytest.approx(cost(0.001, 1, 0.25), abs=MAX_LOSS)


def test_a_failed_draft_costs_all_of_it() -> None:
    """0.25 + 0.001 · 6.5 of a budget of 1.0 each time: three such drafts, and no fourth."""
    policy = DraftPolicy(0.001, draft_cost=0.25, most=7)
    drafts = 0
    while draft := policy.choose(SURE, tokens=20, room=100):
        policy.verified(draft, 0)
        drafts += 1
    assert 1 < drafts <= 1.0 / 0.25
