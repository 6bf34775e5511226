"""Which slot a request gets, and what it finds there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.decode.kept import Kept
from pulse_edge.decode.lanes import Lane, Lanes
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError
from pulse_edge.text.template import Prompt, render

CAPACITY = 64
HEAD = (1, 5, 6, 7)  # every prompt begins so


def lanes(bundle: Path, slots: int, kept: int = 0) -> Lanes:
    options = EngineOptions(threads=1, context=CAPACITY, slots=slots)
    return Lanes(open_engine(open_bundle(bundle), options), kept)


def prompt(page: int | None, *question: int) -> Prompt:
    """Its image tokens are rows of the table."""
    if page is None:
        return render((*HEAD, *question))
    return render((*HEAD, -200, *question), -page, np.full(9, 100 + page))


def ask(all_lanes: Lanes, request: Prompt, leave: bool = True) -> tuple[int, int]:
    """The slot that a request gets, and how many positions it finds there."""
    lane = all_lanes.enter(request)
    found = lane.sequence.rewind_to(request, all_lanes.others(lane))
    lane.sequence.prefill(request)
    if leave:
        all_lanes.leave(lane)
    return lane.sequence.slot, found


def all_pages(all_lanes: Lanes) -> list[int]:
    return [-min(lane.sequence.keys, default=0) for lane in all_lanes.all]


def requests(pages: Iterable[int | None]) -> list[Prompt]:
    return [prompt(page, 20, 21) for page in pages]


@pytest.mark.parametrize(
    ("pages", "slots"),
    [
        ([1, 2, 3], [0, 1, 2]),
        ([1, 1, 1], [0, 0, 0]),
        ([1, 2, 1, 2], [0, 1, 0, 1]),
        ([1, None, None, 2], [0, 1, 1, 1]),
        ([1, 2, 3, 4], [0, 1, 2, 0]),
        ([1, 2, 3, 1, 4], [0, 1, 2, 0, 1]),
        ([1, 2, 3, 1, 2, 4], [0, 1, 2, 0, 1, 2]),
        ([1, 2, 3, 4, 1], [0, 1, 2, 0, 1]),
    ],
)
def test_pages_stay_in_their_slots(bundle: Path, pages: list[int | None], slots: list[int]) -> None:
    """A new page takes an empty slot, or the one that was used longest ago."""
    held = lanes(bundle, 3)
    assert [ask(held, request)[0] for request in requests(pages)] == slots


def test_of_empty_slots_the_first_is_given(bundle: Path) -> None:
    """Also if it is the one that was used last."""
    held = lanes(bundle, 3)
    assert ask(held, prompt(1, 20))[0] == 0
    held.reset()
    assert ask(held, prompt(2, 20)) == (0, 0)


def test_who_leaves_offers_no_step_any_more(bundle: Path) -> None:
    held = lanes(bundle, 2)
    lane = held.enter(prompt(None, 20))
    offering(lane, 30)
    held.leave(lane)
    assert not lane.busy
    assert lane.handover is not None
    assert lane.handover.token is None


def test_busy_slots_are_not_given(bundle: Path) -> None:
    held = lanes(bundle, 3)
    assert ask(held, prompt(1, 20), leave=False) == (0, 0)
    assert held.busy == 1
    slot, found = ask(held, prompt(1, 30), leave=False)
    assert (slot, found) == (1, len(HEAD) + 9), "a copy of what slot 0 holds"
    assert ask(held, prompt(2, 20), leave=False)[0] == 2
    assert held.busy == 3
    for lane in held.all:
        held.leave(lane)
    assert held.busy == 0


def test_a_copy_has_the_positions_of_its_source(bundle: Path) -> None:
    held = lanes(bundle, 2)
    ask(held, prompt(1, 20, 21, 22), leave=False)
    assert ask(held, prompt(1, 20, 21, 30)) == (1, len(HEAD) + 9 + 2)
    first, second = (lane.engine for lane in held.all)
    assert first.length == len(HEAD) + 12
    second.rewind(len(HEAD) + 11)
    first.rewind(len(HEAD) + 11)
    row = first.rows(np.array([40]))
    np.testing.assert_array_equal(first.step(row), second.step(row))


def test_a_page_that_leaves_comes_back_to_another_slot(bundle: Path) -> None:
    held = lanes(bundle, 2, 1 << 20)
    for page in (1, 2, 3):
        ask(held, prompt(page, 20))
    assert all_pages(held) == [3, 2]
    assert len(held.kept) == 1
    assert ask(held, prompt(3, 30)) == (0, len(HEAD) + 9)
    assert ask(held, prompt(1, 30)) == (1, len(HEAD) + 9)
    assert all_pages(held) == [3, 1]


def test_a_page_is_copied_only_to_leave_and_comes_back_only_if_it_left(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lanes(bundle, 1, 1 << 20)
    restored: list[int] = []
    restore = held.kept.restore

    def seen(kept: Kept, length: int, engine: Engine | None = None) -> None:
        restored.append(length)
        restore(kept, length, engine)

    monkeypatch.setattr(held.kept, "restore", seen)
    page = len(HEAD) + 9
    for request, found, copies, back in (
        (prompt(1, 20), 0, 0, []),
        (prompt(1, 30), page, 0, []),  # the page stays
        (prompt(2, 20), len(HEAD), 1, []),
        (prompt(1, 20), page, 2, [page]),
        (prompt(1, 30), page, 2, [page]),  # the slot shares as much as the copy
    ):
        assert ask(held, request) == (0, found)
        assert (len(held.kept), restored) == (copies, back)
        assert held.all[0].engine.length == len(request.keys)


def test_what_a_slot_shares_already_is_not_copied_from_another(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lanes(bundle, 2)
    ask(held, prompt(1, 20), leave=False)
    ask(held, prompt(1, 21))
    lane = held.enter(prompt(1, 22))
    copied: list[int] = []
    engine: Any = lane.sequence.engine
    monkeypatch.setattr(engine, "copy", lambda length, *_: copied.append(length))
    assert lane.sequence.slot == 1
    assert lane.sequence.rewind_to(prompt(1, 22), held.others(lane)) == len(HEAD) + 9
    assert copied == []


def test_a_copy_that_cannot_come_back_leaves_an_empty_slot(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise EngineError("no copy")

    held = lanes(bundle, 1, 1 << 20)
    for page in (1, 2):
        ask(held, prompt(page, 20))
    monkeypatch.setattr(held.kept, "restore", fails)
    with pytest.raises(EngineError, match="no copy"):
        held.all[0].sequence.rewind_to(prompt(1, 30))
    assert held.all[0].sequence.keys == []


def test_a_slot_that_cannot_be_copied_leaves_an_empty_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise EngineError("no copy")

    held = lanes(bundle, 2)
    ask(held, prompt(1, 20), leave=False)
    ask(held, prompt(2, 20))
    lane = held.enter(prompt(1, 30))
    monkeypatch.setattr(lane.sequence.engine, "copy", fails)
    with pytest.raises(EngineError, match="no copy"):
        lane.sequence.rewind_to(prompt(1, 30), held.others(lane))
    assert lane.sequence.keys == []


def test_what_is_known_is_known_of_any_slot(bundle: Path) -> None:
    held = lanes(bundle, 3)
    for page in (1, 2):
        ask(held, prompt(page, 20, 21))
    for page in (1, 2):
        assert held.known(prompt(page, 20, 30).keys) == len(HEAD) + 9 + 1
    assert held.known(prompt(None, 20).keys) == len(HEAD)
    held.kept.budget = 1 << 20
    ask(held, prompt(3, 20))
    ask(held, prompt(4, 20))
    assert len(held.kept) == 1
    held.forget()
    assert len(held.kept) == 0
    assert held.known(prompt(1, 20).keys) == 0
    assert [lane.engine.length for lane in held.all] == [0, 0, 0]


def test_an_engine_with_one_slot_is_its_own_lane(bundle: Path) -> None:
    held = lanes(bundle, 1)
    (lane,) = held.all
    assert lane.handover is None
    assert lane.engine.capacity == CAPACITY
    assert held.enter(prompt(1, 20)) is lane
    held.share()  # nobody offers anything
    held.leave(lane)


def offering(lane: Lane, token: int) -> None:
    assert lane.handover is not None
    lane.handover.offer(token, needs_logits=False)


def test_who_is_alone_runs_its_own_steps(bundle: Path) -> None:
    held = lanes(bundle, 2)
    lane = held.enter(prompt(None, 20))
    lane.sequence.rewind_to(prompt(None, 20))
    lane.sequence.prefill(prompt(None, 20))
    offering(lane, 30)
    before = lane.engine.length
    held.share()
    assert lane.engine.length == before
    other = held.enter(prompt(None, 21))
    held.share()  # in company now, though the other one offers nothing yet
    assert lane.engine.length == before + 1
    assert lane.handover is not None
    assert lane.handover.company
    held.leave(other)
    held.share()
    assert not lane.handover.company


def test_reset_empties_every_slot(bundle: Path) -> None:
    held = lanes(bundle, 3)
    for page in (1, 2, 3):
        ask(held, prompt(page, 20))
    held.reset()
    assert all_pages(held) == [0, 0, 0]
    assert [lane.engine.length for lane in held.all] == [0, 0, 0]
