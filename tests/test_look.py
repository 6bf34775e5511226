"""Pages that are prefilled before anybody asks, which give way to those who do."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge import runner
from pulse_edge.delivery import Delivery
from pulse_edge.errors import DeadlineError, EngineError, ImageError, QueueFullError
from pulse_edge.page.source import decode_page

from support.requests import Q1, Q2, blocked, encoded, fresh, page, settled, usable


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


@pytest.mark.parametrize("form", ["pixels", "file"])
def test_a_page_that_was_looked_at_is_known(
    bundle: Path, model: pulse_edge.Model, form: str
) -> None:
    image: Any = page() if form == "pixels" else encoded(page(), "PNG")
    look = model.look(image)
    assert look.wait()
    assert look.done
    assert look.predicted_s is None  # nothing was measured yet
    for shown in (look, image):
        answer = model.ask(shown, Q1, max_new_tokens=20)
        assert answer.timings.vision == 0
        assert answer.usage.cached_tokens > answer.usage.image_tokens
        assert answer.token_ids == fresh(bundle, page(), Q1, max_new_tokens=20).token_ids
        assert answer.provenance["image"]["sha256"] == look.sha256
    chat = model.chat(look)
    assert chat.ask(Q2, max_new_tokens=9).timings.vision == 0
    assert model.look(page(3)).predicted_s is not None


def test_a_look_does_not_change_the_answer_of_a_text_question(model: pulse_edge.Model) -> None:
    before = model.ask(None, Q1, max_new_tokens=20)
    model.look(page()).wait()
    assert model.ask(None, Q1, max_new_tokens=20).token_ids == before.token_ids


def test_what_is_no_page_is_refused_at_once(model: pulse_edge.Model, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        model.look(b"no image")
    with pytest.raises(ImageError):
        model.look(tmp_path / "absent.png")
    with pytest.raises(ImageError):
        model.look(encoded(page(), "PNG")[:300])


def test_a_look_that_fails_says_so(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise EngineError("the tower is broken")

    monkeypatch.setattr(model.engine, "encode", fails)
    look = model.look(page())
    with pytest.raises(EngineError, match="the tower is broken"):
        look.wait()
    assert look.done
    monkeypatch.undo()
    assert model.look(page()).wait()


def test_a_look_that_has_failed_before_it_returns_says_so_when_it_is_waited_for(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise EngineError("the tower is broken")

    begin = model.worker.begin

    def begun(delivery: Delivery, *rest: Any, **named: Any) -> None:
        begin(delivery, *rest, **named)
        delivery.wait()

    monkeypatch.setattr(model.engine, "encode", fails)
    monkeypatch.setattr(model.worker, "begin", begun)
    look = model.look(page())
    assert look.done
    with pytest.raises(EngineError, match="the tower is broken"):
        look.wait()


def test_a_look_can_be_cancelled_while_it_waits(bundle: Path, model: pulse_edge.Model) -> None:
    free = blocked(model)
    look = model.look(page())
    assert not look.done
    look.cancel()
    assert look.done
    assert not look.wait()
    free.set()
    assert settled(model.worker)
    assert usable(model, bundle)


def test_a_look_has_a_deadline(bundle: Path, model: pulse_edge.Model) -> None:
    free = blocked(model)
    look = model.look(page(), deadline_s=2)
    assert not look.wait()
    free.set()
    assert settled(model.worker)
    with pytest.raises(DeadlineError):
        model.look(page(1), deadline_s=1e-6)
    assert usable(model, bundle)


def test_a_look_does_not_outlast_its_deadline_while_its_page_is_decoded(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(*arguments: Any) -> Any:
        go_on.wait(30)
        return decode_page(*arguments)

    monkeypatch.setattr("pulse_edge.page.preparation.decode_page", slow)
    start = time.monotonic()
    with pytest.raises(DeadlineError, match=r"deadline of 0.1 s passed before the page"):
        model.look(page(), deadline_s=0.1)
    assert 0.1 <= time.monotonic() - start < 20
    go_on.set()
    assert settled(model.worker)
    assert model.look(page(), deadline_s=1e300).wait()
    with pytest.raises(ImageError):
        model.look(b"no image", deadline_s=60)
    assert usable(model, bundle)


def test_interactive_requests_go_first(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = blocked(model)
    order: list[str] = []
    answer = model.runner.answer

    def recorded(run: runner.Job, *rest: Any) -> Generator[None, None, pulse_edge.Answer]:
        order.append(run.request.params.stop[0])
        return answer(run, *rest)

    monkeypatch.setattr(model.runner, "answer", recorded)

    def ask(name: str, **terms: Any) -> threading.Thread:
        stream = model.stream(None, Q1, max_new_tokens=2, stop=name, **terms)
        before = len(model.worker.unfinished)
        thread = threading.Thread(target=lambda: stream.answer)
        thread.start()
        limit = time.monotonic() + 10
        while len(model.worker.unfinished) == before and time.monotonic() < limit:
            time.sleep(0.001)
        return thread

    threads = [
        ask("b1", priority="background"),
        ask("b2", priority="background"),
        ask("i1"),
        ask("i2", priority="interactive"),
    ]
    free.set()
    for thread in threads:
        thread.join(30)
    assert order == ["i1", "i2", "b1", "b2"]


@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("same", [False, True])
def test_a_background_page_gives_way_between_two_pieces(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, same: bool, kept: int
) -> None:
    """An interactive request comes while a page is prefilled, and is answered before that ends."""
    monkeypatch.setattr(runner, "PIECE", 16)
    model = pulse_edge.load(bundle, threads=1, kept_bytes=kept)
    model.ask(None, Q1, max_new_tokens=1)
    began, go_on = threading.Event(), threading.Event()
    prefill = model.engine.prefill
    pieces: list[int] = []

    def slow(rows: np.ndarray, *rest: Any, **named: Any) -> Any:
        if threading.current_thread() is model.worker.thread:
            pieces.append(len(rows))
            if len(pieces) == 3:
                began.set()
                go_on.wait(30)
        return prefill(rows, *rest, **named)

    monkeypatch.setattr(model.engine, "prefill", slow)
    look = model.look(page())
    assert began.wait(30)
    answers: list[pulse_edge.Answer] = []
    shown = page() if same else page(1)
    asker = threading.Thread(target=lambda: answers.append(model.ask(shown, Q2, max_new_tokens=20)))
    asker.start()
    limit = time.monotonic() + 10
    while not model.worker.wanted and time.monotonic() < limit:
        time.sleep(0.001)
    go_on.set()
    assert look.wait()
    asker.join(30)
    assert answers[0].token_ids == fresh(bundle, shown, Q2, max_new_tokens=20).token_ids
    if same:
        assert answers[0].usage.cached_tokens >= 32  # the pieces that were done
    after = model.ask(page(), Q1, max_new_tokens=20)
    assert after.token_ids == fresh(bundle, page(), Q1, max_new_tokens=20).token_ids
    assert after.usage.cached_tokens > after.usage.image_tokens
    if kept and not same:
        whole = after.usage.prompt_tokens + answers[0].usage.prompt_tokens
        assert sum(pieces) < whole + 16  # nothing was computed twice but what was not whole
    assert usable(model, bundle)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_paused_page_can_be_ended(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """At once, while the request that it gave way to still runs."""
    monkeypatch.setattr(runner, "PIECE", 16)
    model = pulse_edge.load(bundle, threads=1)
    prefill = model.engine.prefill
    began, go_on = threading.Event(), threading.Event()

    def slow(*rows: Any, **named: Any) -> Any:
        began.set()
        go_on.wait(30)
        return prefill(*rows, **named)

    monkeypatch.setattr(model.engine, "prefill", slow)
    look = model.look(page(), deadline_s=1 if how == "deadline" else None)
    assert began.wait(30)
    running, free = threading.Event(), threading.Event()

    def block(*_: Any) -> None:
        running.set()
        free.wait(30)

    threading.Thread(target=lambda: model.run_on_engine(block), daemon=True).start()
    limit = time.monotonic() + 10
    while not model.worker.wanted and time.monotonic() < limit:
        time.sleep(0.001)
    go_on.set()
    assert running.wait(30)
    if how == "cancel":
        assert not look.done
        look.cancel()
    assert not look.wait()
    assert not free.is_set()
    free.set()
    assert settled(model.worker)
    assert usable(model, bundle)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_full_queue_refuses(bundle: Path, limit: int) -> None:
    model = pulse_edge.load(bundle, threads=1, queue_limit=limit)
    free = blocked(model)
    looks = [model.look(page(number)) for number in range(limit)]
    with pytest.raises(QueueFullError, match=f"{limit} requests wait .* the limit") as refused:
        model.ask(None, Q1)
    assert refused.value.retry_after_s > 0
    with pytest.raises(QueueFullError):
        model.look(page(9))
    looks[0].cancel()
    looks[0] = model.look(page(7))
    free.set()
    assert all(look.wait() for look in looks)
    assert model.ask(None, Q1, max_new_tokens=2).token_ids


def test_looks_that_come_at_once_do_not_overfill_the_queue(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their pages are prepared at the same time, when there is still room."""
    model = pulse_edge.load(bundle, threads=1, queue_limit=2)
    free = blocked(model)
    ready = threading.Barrier(5)
    predict = model.runner.predict

    def together(*request: Any) -> float | None:
        ready.wait(30)
        return predict(*request)

    monkeypatch.setattr(model.runner, "predict", together)
    ended: list[str] = []

    def look(number: int) -> None:
        try:
            model.look(page(number))
            ended.append("queued")
        except QueueFullError:
            ended.append("full")

    threads = [threading.Thread(target=look, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == ["full"] * 3 + ["queued"] * 2
    free.set()
    assert settled(model.worker)
