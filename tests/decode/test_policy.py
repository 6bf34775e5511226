"""What a draft policy counts, by hand."""

from __future__ import annotations

import pytest

from pulse_edge.decode.speculation import DRAFTS, DraftPolicy, Guess, Record, cost


def draft(*chances: float) -> list[Guess]:
    return [Guess(5, chance) for chance in chances]


def test_draft_lengths_are_odd_up_to_15() -> None:
    assert DRAFTS == (1, 3, 5, 7, 9, 11, 13, 15)


@pytest.mark.parametrize(
    ("row_cost", "drafted", "draft_cost", "expected"),
    [
        (0.4, 0, 0.0, 0.0),
        (0.4, 0, 0.3, 0.0),
        (0.4, 1, 0.0, 0.2),
        (0.4, 2, 0.0, 0.6),
        (0.4, 3, 0.25, 1.25),
        (0.02, 15, 0.1, 0.39),
    ],
)
def test_cost_of_a_draft(row_cost: float, drafted: int, draft_cost: float, expected: float) -> None:
    """The draft's own cost, and half of a row less than it has."""
    assert cost(row_cost, drafted, draft_cost) == pytest.approx(expected)


def test_a_step_without_a_draft_fades_the_record() -> None:
    record = Record(right=4.0, promised=5.0, saved=1.0)
    DraftPolicy(0.4, record).verified([], 0)
    assert record.right == pytest.approx(4 * 0.99)
    assert record.promised == pytest.approx(5 * 0.99)
    assert record.saved == 1.0


@pytest.mark.parametrize(
    ("right", "promised"),
    [
        (0, 0.9),  # the first was verified, and wrong
        (1, 0.9 + 0.8),
        (2, 0.9 + 0.8 + 0.7),
        (3, 0.9 + 0.8 + 0.7),
    ],
)
def test_a_draft_of_three_counts_up_to_the_first_that_is_wrong(right: int, promised: float) -> None:
    """Four rows fade the record. Three rows beside the first cost 0.1 x 2.5."""
    record = Record(right=2.0, promised=3.0, saved=0.5)
    DraftPolicy(0.1, record).verified(draft(0.9, 0.8, 0.7), right)
    keep = 0.99**4
    assert record.right == pytest.approx(2 * keep + right)
    assert record.promised == pytest.approx(3 * keep + promised)
    assert record.saved == pytest.approx(min(2.0, 0.5 + right - 0.25))


def test_no_more_than_two_steps_are_saved_for_later() -> None:
    record = Record()
    policy = DraftPolicy(0.1, record)
    for _ in range(9):
        policy.verified(draft(0.9), 1)
    assert record.saved == 2.0


def test_what_an_answer_lost_is_not_the_next_one_s_debt() -> None:
    record = Record(saved=-3.0)
    policy = DraftPolicy(0.1, record)
    assert record.saved == 0.0
    policy.verified(draft(0.9), 1)
    assert record.saved == pytest.approx(1 - 0.05)


def test_a_draft_that_only_pays_for_itself_is_not_taken() -> None:
    """One row costs half a step, and its guess saves half a step."""
    assert DraftPolicy(1.0).choose(draft(0.5), 1000, 9) == []
    assert DraftPolicy(1.0).choose(draft(0.51), 1000, 9) == draft(0.51)


@pytest.mark.parametrize(("most", "length"), [(0, 0), (1, 1), (2, 1), (3, 3), (15, 15), (99, 15)])
def test_a_draft_is_no_longer_than_the_engine_takes(most: int, length: int) -> None:
    policy = DraftPolicy(0.001, most=most)
    assert len(policy.choose(draft(*[0.97] * 40), 1000, 99)) == length
