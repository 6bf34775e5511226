"""Kept pages: how many, how long, and what becomes of their prefills."""

from __future__ import annotations

from typing import cast

import pytest

from pulse_edge.errors import EngineError, QueueFullError
from pulse_edge.look import Look
from pulse_edge.serve.pages import KeptPage, KeptPages
from pulse_edge.serve.refusals import Refusal


class FakeLook:
    """A prefill whose end a test decides."""

    def __init__(self, name: str, done: bool = True) -> None:
        self.sha256 = name
        self.predicted_s = None
        self.done = done
        self.cancelled = False
        self.error: Exception | None = None
        self.waits = 0

    def wait(self) -> bool:
        self.waits += 1
        if self.error is not None:
            raise self.error
        return not self.cancelled

    def cancel(self) -> None:
        self.cancelled = True


def kept(name: str, done: bool = True) -> tuple[KeptPage, FakeLook]:
    look = FakeLook(name, done)
    return KeptPage(cast(Look, look)), look


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("pulse_edge.serve.pages.time.monotonic", lambda: now[0])
    return now


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    pages = KeptPages(2, 60)
    one, look_one = kept("1")
    two, look_two = kept("2")
    three, _ = kept("3")
    pages.add(one)
    pages.add(two)
    assert pages.find("1") is one
    pages.add(three)
    assert look_two.cancelled
    assert not look_one.cancelled
    with pytest.raises(Refusal):
        pages.find("2")
    assert len(pages) == 2


def test_one_that_waits_does_not_make_room() -> None:
    pages = KeptPages(2, 60)
    waiting, look = kept("1", done=False)
    done, _ = kept("2")
    pages.add(waiting)
    pages.add(done)
    pages.add(kept("3", done=False)[0])
    assert pages.find("1") is waiting
    assert not look.cancelled
    refused, late = kept("4")
    with pytest.raises(QueueFullError):
        pages.add(refused)
    assert late.cancelled


def test_the_same_page_is_kept_once() -> None:
    pages = KeptPages(2, 60)
    first, _ = kept("1", done=False)
    second, look = kept("1", done=False)
    assert pages.add(first) is first
    assert pages.add(second) is first
    assert look.cancelled
    assert len(pages) == 1


def test_a_page_that_failed_is_replaced() -> None:
    pages = KeptPages(2, 60)
    first, look = kept("1")
    look.error = EngineError("broke")
    pages.add(first)
    assert first.state == "failed"
    second, _ = kept("1")
    assert pages.add(second) is second
    assert second.state == "ready"


def test_pages_expire_after_their_last_use(clock: list[float]) -> None:
    pages = KeptPages(9, 60)
    old, old_look = kept("1")
    used, _ = kept("2")
    pages.add(old)
    pages.add(used)
    clock[0] += 50
    assert pages.seconds_left(old) == 10
    pages.find("2")
    clock[0] += 11
    pages.expire()
    assert old_look.cancelled
    assert len(pages) == 1
    clock[0] += 60
    pages.add(kept("3")[0])
    assert len(pages) == 1


def test_states() -> None:
    page, look = kept("1", done=False)
    assert page.state == "waiting"
    assert look.waits == 0, "a state is told without waiting"
    look.done = True
    assert page.state == "ready"
    look.error = EngineError("told once")
    assert page.state == "ready"
    cancelled, other = kept("2")
    other.cancel()
    assert cancelled.state == "failed"


def test_dropping() -> None:
    pages = KeptPages(9, 60)
    page, look = kept("1")
    other, other_look = kept("2")
    pages.add(page)
    pages.add(other)
    pages.drop("1")
    assert look.cancelled
    with pytest.raises(Refusal):
        pages.drop("1")
    pages.clear()
    assert other_look.cancelled
    assert len(pages) == 0
    with pytest.raises(Refusal) as error:
        pages.find("2")
    assert (error.value.status, error.value.code) == (404, "page_not_found")
