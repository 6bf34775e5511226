"""The template's ids: control tokens, the spelled prompt, and refused questions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pulse_edge.bundle.spec import PromptSpec
from pulse_edge.errors import ParameterError
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.template import IMAGE, PromptBuilder, render
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.chat_template import VICUNA

from support.tokens import BOS, BYTE, EOS, LEGACY, TEXT, TOKENS, byte_tokens, raw

PROMPTS = PromptBuilder(PromptSpec(**VICUNA, legacy=False), TOKENS, BOS, EOS)

QUESTIONS = TEXT.filter(str.strip)


@given(QUESTIONS)
@example("</s><s><unk> <image> USER: ASSISTANT:")
def test_control_tokens_come_from_the_template_only(question: str) -> None:
    for ids, control in (
        (PROMPTS.first_turn(question), [BOS, IMAGE]),
        (PROMPTS.first_turn(question, image=False), [BOS]),
        (PROMPTS.next_turn(question), [EOS]),
    ):
        assert [i for i in ids if i < BYTE] == control
        assert ids[0] == control[0]


@given(QUESTIONS)
def test_the_ids_spell_the_prompt(question: str) -> None:
    """Each chunk starts with SentencePiece's dummy space; without these it is `text` that was
    encoded.
    """
    ids = PROMPTS.first_turn(question)
    at = ids.index(IMAGE)
    spelled = raw(ids[1:at])[1:] + b"<image>" + raw(ids[at + 1 :])[1:]
    assert spelled.decode() == PROMPTS.text(question)
    assert raw(PROMPTS.first_turn(question, image=False)[1:])[1:].decode() == PROMPTS.text(
        question, image=False
    )
    assert raw(PROMPTS.next_turn(question)[1:]).decode() == PROMPTS.turn_text(question)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("a\ud800b", "not valid Unicode"),
        (None, "not NoneType"),
        (b"rate?", "not bytes"),
    ],
)
def test_questions_that_are_refused(question: str, message: str) -> None:
    for turn in (PROMPTS.first_turn, PROMPTS.next_turn):
        with pytest.raises(ParameterError, match=message):
            turn(question)


# --- answers as later turns see them --------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [TOKENS, LEGACY], ids=["new", "legacy"])
@pytest.mark.parametrize(
    "stop",
    [
        "QRS",
        "Q",
        "RS",
        "S dur",
        "160",
        "6",
        "0 ms",
        "s",
        " ms",
        "ms.",
        ".",
        ". The",
        "The",
        "T",
        "T ",
        "hythm",
        "rhythm",
        "Sinus",
        "Sin",
        "?",
        "µ",
        "\n",
    ],
)
def test_an_answer_that_a_stop_string_ended(tokenizer: Tokenizer, stop: str) -> None:
    """Later turns see its text and nothing after it."""
    prompts = PromptBuilder(PromptSpec(**VICUNA, legacy=tokenizer.legacy), tokenizer, BOS, EOS)
    answer = "Sinus rhythm at 75 bpm. The PR interval is 160 ms. QRS duration"
    tokens = tokenizer.encode(answer)
    stream = TextStream(tokenizer, [stop])
    text = "".join([stream.push(token) for token in tokens]) + stream.finish()
    ids = prompts.answer(tokens, [stop])
    assert prompts.answer_text(ids).strip() == text
    assert stream.stopped == (stop in " " + answer)
    if not stream.stopped:
        assert ids == tokens
    assert prompts.answer(tokens) == tokens
    shared = next(
        (i for i, (a, b) in enumerate(zip(ids, tokens, strict=False)) if a != b), len(ids)
    )
    assert len(ids) - shared <= 6  # only what a cut token is spelled by runs again


def test_an_answer_s_text_keeps_its_white_space() -> None:
    tokens = [*TOKENS.encode("a"), *byte_tokens(b"\n \xff\n"), EOS]
    assert PROMPTS.answer_text(tokens) == " a\n \ufffd\n"
    assert PROMPTS.answer(tokens) == tokens


@given(st.lists(st.integers(0, 300), max_size=8), st.integers(1, 5), st.integers(1, 2**256))
def test_keys_of_any_size_stand_for_the_image(ids: list[int], length: int, key: int) -> None:
    image = np.arange(500, 500 + length)
    prompt = render((*ids, IMAGE, 7), -key, image)
    assert prompt.keys == [*ids, *[-key] * length, 7]
    assert prompt.rows.tolist() == [*ids, *image.tolist(), 7]
    assert prompt.image_tokens == length
