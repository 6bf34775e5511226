"""Chats: each turn is answered as the whole conversation would be."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.assets import REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.decode.sequence import Sequence
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ContextError, ParameterError, PulseEdgeError
from pulse_edge.page.encoder import PageEncoder
from pulse_edge.text.template import PromptBuilder, render

from support.requests import LONG, Q1, Q2, encoded, fresh, page, prepared


def rerun(bundle: Path, stream: pulse_edge.Stream, image: Any) -> tuple[int, ...]:
    """A fresh engine's likeliest tokens for the very ids of a chat's turn, as many as it has."""
    opened = open_bundle(bundle)
    engine = open_engine(opened, EngineOptions(threads=1))
    if image is None:
        prompt, features = render(stream.request.ids), None
    else:
        encoder = PageEncoder(opened.manifest.model, engine)
        ready = prepared(image, opened.manifest.model)
        features = encoder.encode(ready, lambda _: nullcontext(), None)
        seen = encoder.place(ready)
        prompt = render(stream.request.ids, seen.key, seen.tokens)
    logits = Sequence(engine).prefill(prompt, features, None)
    tokens = [int(logits.argmax())]
    while len(tokens) < len(stream.answer.token_ids):
        (token,) = engine.choose(engine.rows(np.array(tokens[-1:])))
        tokens.append(int(token))
    return tuple(tokens)


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
        assert turn.answer.provenance["prompt"].startswith(before.request.prompt)
        assert f"{before.answer.text}</s>USER: " in turn.answer.provenance["prompt"]


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
    spec = model.bundle.manifest.model
    template = PromptBuilder(spec.prompt, model.tokenizer, spec.text.bos, spec.text.eos[0])
    assert list(last.request.ids) == known + template.next_turn(Q2)


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


# --- stop strings --------------------------------------------------------------------------------


def seen_text(model: pulse_edge.Model, stream: pulse_edge.Stream) -> str:
    """What the model saw of a conversation about no page, by its ids, as provenance spells it."""
    text = b""
    for token in stream.request.ids[1:]:
        text += b"</s>" if token == 2 else model.tokenizer.piece_bytes(token)
    return text.decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 8, 13, 21, 30])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_later_turns_see_what_comes_before_a_stop_string(
    bundle: Path, model: pulse_edge.Model, start: int, length: int
) -> None:
    """The model, provenance and the reader of the answer see one text."""
    whole = model.ask(None, Q1, max_new_tokens=25)
    stop = whole.text[start : start + length]
    chat = model.chat(None)
    first = chat.ask(Q1, max_new_tokens=25, stop=[stop])
    assert first.finish_reason == "stop"
    turn = chat.stream(Q2, max_new_tokens=10)
    prompt = turn.answer.provenance["prompt"]
    assert prompt == seen_text(model, turn)
    head = first.provenance["prompt"]
    assert prompt.startswith(head)
    said, follows = prompt.removeprefix(head).split("</s>")
    assert said.strip() == first.text
    assert said == said.rstrip()
    assert follows == f"USER: {Q2} ASSISTANT:"
    assert turn.answer.token_ids == rerun(bundle, turn, None)
    # What both have in common is still in the cache, but for the token that must run.
    shared = len(first.token_ids) - 1 + first.usage.prompt_tokens
    again = turn.answer.usage.prompt_tokens - turn.answer.usage.cached_tokens
    assert again <= turn.answer.usage.prompt_tokens - min(shared, first.usage.prompt_tokens) + 1


@pytest.mark.parametrize("image", [page(), None], ids=["image", "text"])
def test_three_turns_of_which_two_are_stopped(
    bundle: Path, model: pulse_edge.Model, image: Any
) -> None:
    chat = model.chat(image)
    turns: list[pulse_edge.Stream] = []
    for question, stop in ((Q1, "e"), (Q2, "a"), (Q1, ())):
        turn = chat.stream(question, max_new_tokens=25, stop=stop)
        assert turn.answer.token_ids == rerun(bundle, turn, image)
        assert all(each.answer.text in turn.request.prompt for each in turns)
        turns.append(turn)
    assert turns[2].request.prompt.startswith(turns[1].request.prompt)


def test_an_answer_without_a_stop_string_is_kept_as_it_was_generated(
    model: pulse_edge.Model,
) -> None:
    """Also its white space, so that all of it is still in the cache."""
    chat = model.chat(None)
    first = chat.stream(Q1, max_new_tokens=25, stop=["never said"])
    answer = first.answer
    turn = chat.stream(Q2, max_new_tokens=2)
    assert turn.answer.usage.cached_tokens == answer.usage.prompt_tokens + 24
    assert turn.answer.provenance["prompt"] == seen_text(model, turn)
    assert list(turn.request.ids[: len(first.request.ids) + 25]) == [
        *first.request.ids,
        *answer.token_ids,
    ]


@pytest.mark.parametrize("stop", ["PR", "R", "ms", ". ", "0", " interval", "75", "rhythm", "hm"])
def test_a_stop_string_in_a_chat_with_the_embedded_model(stop: str) -> None:
    """Its tokenizer puts a space after `</s>`, which no text shows."""
    model = pulse_edge.load(threads=1)
    chat = model.chat(SAMPLE_PAGE)
    first = chat.ask(REPORT_QUESTION, stop=stop, max_new_tokens=60)
    assert first.finish_reason == "stop"
    turn = chat.stream(Q2, max_new_tokens=2)
    head = first.provenance["prompt"]
    space = " " if first.text else ""
    said = f"{head}{space}{first.text}</s>USER: {Q2} ASSISTANT:"
    assert turn.answer.provenance["prompt"] == said
    seen = seen_text(model, turn)
    assert seen.endswith(f"ASSISTANT:{space}{first.text}</s> USER: {Q2} ASSISTANT:")


@pytest.mark.parametrize("image", [page(), None], ids=["image", "text"])
@pytest.mark.parametrize("said", ["some words", "  some words\n", "ü 心"])
def test_a_turn_that_was_closed_may_be_kept_as_far_as_it_was_said(
    model: pulse_edge.Model, image: Any, said: str
) -> None:
    """The next turn sees it as a given answer."""
    chat = model.chat(image)
    stream = chat.stream(Q1, max_new_tokens=200)
    next(stream)
    stream.close()
    chat.keep(said)
    turn = chat.stream(Q2, max_new_tokens=2)
    given = model.chat(image, [(Q1, said)]).stream(Q2, max_new_tokens=2)
    assert turn.answer.token_ids == given.answer.token_ids
    assert turn.request.ids == given.request.ids


@pytest.mark.parametrize("said", ["", "  \n"])
def test_a_turn_of_which_nothing_was_said_is_dropped(model: pulse_edge.Model, said: str) -> None:
    chat = model.chat(page())
    stream = chat.stream(Q1, max_new_tokens=200)
    stream.close()
    chat.keep(said)
    assert chat.stream(Q2).request.ids == model.chat(page()).stream(Q2).request.ids


def test_a_turn_that_is_complete_is_kept_whole(model: pulse_edge.Model) -> None:
    chat, plain = model.chat(page()), model.chat(page())
    chat.ask(Q1, max_new_tokens=5)
    plain.ask(Q1, max_new_tokens=5)
    chat.keep("something else")
    chat.keep("and again")
    assert chat.stream(Q2).request.ids == plain.stream(Q2).request.ids


def test_a_turn_that_is_still_read_is_not_kept(model: pulse_edge.Model) -> None:
    chat = model.chat(page())
    chat.keep("nothing was asked yet")
    stream = chat.stream(Q1, max_new_tokens=200)
    next(stream)
    with pytest.raises(ParameterError, match="still being streamed"):
        chat.keep("too early")
    stream.close()
