"""Answers that are left, broken or shared: cancelling, failing, chatting, and several threads on
one model.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_model import Q1, Q2, encoded, fresh, page

import pulse_edge
from pulse_edge.errors import ContextError, EngineError, ParameterError, PulseEdgeError
from pulse_edge.page.source import read_input

LONG = 300  # tokens; the context has room for them


def usable(model: pulse_edge.Model, bundle: Path) -> bool:
    """Answers as a fresh model does, on the image it knows and on another."""
    return all(
        model.ask(image, Q2, max_new_tokens=40).token_ids == fresh(bundle, image, Q2).token_ids
        for image in (page(), page(1))
    )


# --- cancelling -----------------------------------------------------------------------------------


def close(model: pulse_edge.Model) -> pulse_edge.Stream:
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    stream.close()
    return stream


def leave_with(model: pulse_edge.Model) -> pulse_edge.Stream:
    with model.stream(page(), Q1, max_new_tokens=LONG) as stream:
        next(stream)
    return stream


def interrupt(model: pulse_edge.Model) -> pulse_edge.Stream:
    """Ctrl-C while the caller prints."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    try:
        with stream:
            for _ in stream:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return stream


@pytest.mark.parametrize("cancel", [close, leave_with, interrupt])
def test_cancelling_leaves_the_model_usable(
    bundle: Path, model: pulse_edge.Model, cancel: Callable[[pulse_edge.Model], pulse_edge.Stream]
) -> None:
    whole = model.ask(page(), Q1, max_new_tokens=40)
    stream = cancel(model)
    answer = stream.answer
    assert (answer.finish_reason, answer.text) == ("cancelled", stream.text)
    assert 1 <= len(answer.token_ids) < LONG  # the model works ahead of its reader
    assert answer.token_ids[:40] == whole.token_ids[: len(answer.token_ids)]
    assert list(stream) == []
    assert usable(model, bundle)


def test_a_stream_that_is_dropped_ends_at_once(bundle: Path, model: pulse_edge.Model) -> None:
    """By its reference count: nobody waits for the garbage collector, which is switched off here."""
    gc.disable()
    try:
        for _ in model.stream(page(), Q1, max_new_tokens=LONG):
            break
        chat = model.chat(page())
        for _ in chat.stream(Q1, max_new_tokens=LONG):
            break
        assert usable(model, bundle)
        assert chat.ask(Q2, max_new_tokens=40).token_ids == fresh(bundle, page(), Q2).token_ids
    finally:
        gc.enable()


def test_ctrl_c_inside_the_engine(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for stage in ("encode", "prefill", "choose"):
        model.ask(
            page(), Q1, max_new_tokens=5
        )  # of which the cache must not claim to hold more than it does
        with monkeypatch.context() as patch:
            patch.setattr(model.engine, stage, interrupted)
            with pytest.raises(KeyboardInterrupt):
                model.ask(page(3), Q1)
        assert usable(model, bundle)


def test_closing_from_another_thread(bundle: Path) -> None:
    """In the middle of the prefill, which then ends."""
    working, closed = threading.Event(), threading.Event()

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "prefill" and done:
            working.set()
            assert closed.wait(60)

    model = pulse_edge.load(bundle, threads=1, progress=progress)
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: stream.answer)
        assert working.wait(60)
        stream.close()
        closed.set()
        assert answer.result().finish_reason == "cancelled"
    assert stream.answer.token_ids == ()
    assert stream.answer.usage.image_tokens == 80
    assert usable(model, bundle)


def test_closed_before_it_began(model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1)
    stream.close()
    assert list(stream) == []
    with pytest.raises(PulseEdgeError, match="closed before it began"):
        _ = stream.answer


# --- failing --------------------------------------------------------------------------------------


def test_a_failure_midway_is_an_error_and_no_answer(bundle: Path, model: pulse_edge.Model) -> None:
    """An embedding that is not a number spoils the logits, and the cache's rows, which later
    answers must not see.
    """
    whole = model.ask(page(), Q1, max_new_tokens=40)
    table = model.engine._table
    good, bad = table._table, np.array(table._table)
    bad[whole.token_ids[6]] = np.nan
    table._table = bad
    stream = model.stream(page(), Q1, max_new_tokens=40)
    with pytest.raises(EngineError, match="not finite"):
        _ = stream.answer
    assert whole.text.startswith(stream.text)
    with pytest.raises(PulseEdgeError, match="or failed"):
        _ = stream.answer
    assert (model._sequence.keys, model.engine.length) == ([], 0)
    table._table = good
    assert model.ask(page(), Q1, max_new_tokens=40).token_ids == whole.token_ids
    assert usable(model, bundle)


def test_other_requests_in_the_same_thread_wait_their_turn(
    bundle: Path, model: pulse_edge.Model
) -> None:
    """Whether or not a stream that was begun before is read further."""
    first = model.stream(page(), Q1, max_new_tokens=40)
    begun = next(first)
    assert model.ask(page(), Q2, max_new_tokens=40).token_ids == fresh(bundle, page(), Q2).token_ids
    second = model.stream(None, Q2, max_new_tokens=40)
    text = next(second)
    assert (
        model.chat(None).ask(Q1, max_new_tokens=40).token_ids == fresh(bundle, None, Q1).token_ids
    )
    assert second.answer.text.startswith(text)
    assert second.answer.token_ids == fresh(bundle, None, Q2).token_ids
    assert first.answer.text.startswith(begun)
    assert first.answer.token_ids == fresh(bundle, page(), Q1).token_ids
    assert usable(model, bundle)


# --- threads --------------------------------------------------------------------------------------


def test_threads_take_turns(bundle: Path, model: pulse_edge.Model) -> None:
    requests = [(page(i % 3), q, t) for i in range(6) for q in (Q1, Q2) for t in (0.0, 1.0)]

    def ask(request: tuple[np.ndarray, str, float]) -> tuple[str, tuple[int, ...]]:
        image, question, temperature = request
        if temperature:
            with model.stream(image, question, max_new_tokens=LONG) as left:
                next(left)
        answer = model.ask(image, question, max_new_tokens=20, temperature=temperature)
        return answer.text, answer.token_ids

    expected = [fresh(bundle, i, q, max_new_tokens=20, temperature=t) for i, q, t in requests]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, requests)) == [(a.text, a.token_ids) for a in expected]


def test_a_stream_may_change_hands(bundle: Path, model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1, max_new_tokens=40)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        assert (
            pool.submit(lambda: stream.answer).result().token_ids
            == fresh(bundle, page(), Q1).token_ids
        )
    assert usable(model, bundle)


# --- chats ----------------------------------------------------------------------------------------


def rerun(bundle: Path, stream: pulse_edge.Stream, image: Any) -> tuple[int, ...]:
    """A fresh model's tokens for the very ids of a chat's turn."""
    page = None if image is None else read_input(image)
    request = dataclasses.replace(stream.request, page=page)
    return pulse_edge.load(bundle, threads=1)._start(request).answer.token_ids


@pytest.mark.parametrize("image", [page(), None], ids=["image", "text"])
def test_a_turn_is_answered_as_the_whole_conversation(
    bundle: Path, model: pulse_edge.Model, image: Any
) -> None:
    chat = model.chat(image)
    first = chat.stream(Q1, max_new_tokens=12)
    second = chat.stream(Q2, max_new_tokens=12) if first.answer else first
    third = chat.stream(Q1, max_new_tokens=12, stop="e") if second.answer else second
    assert first.answer.token_ids == fresh(bundle, image, Q1, max_new_tokens=12).token_ids
    for before, turn in ((first, second), (second, third)):
        known = [*before.request.ids, *before.answer.token_ids]
        assert list(turn.request.ids[: len(known)]) == known
        assert turn.request.ids[len(known)] == 2  # </s>
        assert turn.answer.token_ids == rerun(bundle, turn, image)
        # all but the answer's last token, which was never computed from
        assert turn.answer.usage.cached_tokens == before.answer.usage.prompt_tokens + 11
        expected = f"{before.request.prompt} {before.answer.text}</s>USER: "
        assert turn.answer.provenance["prompt"].startswith(expected)


def test_what_is_asked_in_between_does_not_enter_a_chat(
    bundle: Path, model: pulse_edge.Model
) -> None:
    chat, other = model.chat(page()), model.chat(page(1))
    chat.ask(Q1, max_new_tokens=10)
    other.ask(Q2, max_new_tokens=10)
    model.ask(None, Q2, max_new_tokens=10)
    for conversation, image in ((chat, page()), (other, page(1))):
        turn = conversation.stream(Q2, max_new_tokens=10)
        assert turn.answer.token_ids == rerun(bundle, turn, image)


def test_turns_that_were_cancelled_or_failed_are_not_part_of_a_chat(
    bundle: Path, model: pulse_edge.Model
) -> None:
    chat = model.chat(page())
    first = chat.stream(Q1, max_new_tokens=10)
    known = [*first.request.ids, *first.answer.token_ids]
    with chat.stream("And the axis?", max_new_tokens=LONG) as cancelled:
        next(cancelled)
    with pytest.raises(ContextError):
        chat.ask("rate " * 500)
    for wrong in ({"question": " "}, {"question": Q2, "temperature": -1}):
        with pytest.raises(ParameterError):
            chat.ask(**wrong)
    chat.stream("Never iterated")
    last = chat.stream(Q2, max_new_tokens=10)
    assert last.answer.token_ids == rerun(bundle, last, page())
    assert list(last.request.ids) == known + model._template.next_turn(Q2)


def test_the_next_turn_while_one_is_streamed_is_refused(model: pulse_edge.Model) -> None:
    chat = model.chat(page())
    first = chat.stream(Q1, max_new_tokens=10)
    next(first)
    with pytest.raises(ParameterError, match="still being streamed"):
        chat.ask(Q2)
    assert first.answer.finish_reason == "length"
    assert chat.ask(Q2, max_new_tokens=3).usage.cached_tokens > first.answer.usage.prompt_tokens


def test_a_chat_of_an_image_that_cannot_be_read(model: pulse_edge.Model) -> None:
    with pytest.raises(PulseEdgeError, match="cannot be read"):
        model.chat("missing.png")
    chat = model.chat(b"nonsense")
    for _ in range(2):
        with pytest.raises(PulseEdgeError, match="not an image"):
            chat.ask(Q1)


def test_a_chat_keeps_its_image(bundle: Path, model: pulse_edge.Model, tmp_path: Path) -> None:
    """Whatever happens to the file or the array it came from."""
    path, array = tmp_path / "page.png", page()
    path.write_bytes(encoded(array, "PNG"))
    chats = [model.chat(path), model.chat(array)]
    path.unlink()
    array[:] = 0
    for chat in chats:
        assert chat.ask(Q1, max_new_tokens=40).token_ids == fresh(bundle, page(), Q1).token_ids


def test_a_chat_that_outgrows_the_context(bundle: Path) -> None:
    """The turn that does not fit is refused with the numbers; a shorter one may still fit."""
    used = fresh(bundle, page(), Q1, max_new_tokens=30).usage
    room = used.prompt_tokens + 60
    chat = pulse_edge.load(bundle, threads=1, context=room).chat(page())
    chat.ask(Q1, max_new_tokens=30)
    with pytest.raises(ContextError, match=f"80 of the image, .* the context {room}.*the chat"):
        chat.ask("rate? " * 60)
    answer = chat.ask("a")
    assert answer.finish_reason == "context"
    assert answer.usage.prompt_tokens + answer.usage.new_tokens == room + 1
