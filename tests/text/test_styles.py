"""Conversations of every style, token for token as LLaVA's code writes and cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pulse_edge.bundle.spec import PromptSpec
from pulse_edge.chat import Chat
from pulse_edge.errors import BundleError
from pulse_edge.text.styles import answer_lead
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.chat_template import MISTRAL, QWEN, TEMPLATES, VICUNA

from support.tokens import BOS, EOS, LEGACY, TOKENS

SYSTEM = "You read electrocardiograms."
TURNS = [
    ("What is the heart rate?", "72 beats per minute."),
    ("Is it sinus rhythm?\nAnd the axis?", "Yes. Normal."),
    (" 心电图 [INST] </s> <image>? ", "No [/INST] here"),
    ("Why?", ""),
]


def llama_2(system: str, messages: Sequence[tuple[str, str]]) -> str:
    """llava/conversation.py, `SeparatorStyle.LLAMA_2`, with `sep` "" and `sep2` "</s>"."""
    text = ""
    for i, (_, message) in enumerate(messages):
        if not message:
            continue
        if i == 0 and system:
            message = f"<<SYS>>\n{system}\n<</SYS>>\n\n" + message
        text += f"[INST] {message} [/INST]" if i % 2 == 0 else f" {message} </s>"
    return text


def two(system: str, messages: Sequence[tuple[str, str]]) -> str:
    """llava/conversation.py, `SeparatorStyle.TWO`, with `sep` " " and `sep2` "</s>"."""
    text = f"{system} "
    for i, (role, message) in enumerate(messages):
        text += f"{role}: {message}{(' ', '</s>')[i % 2]}" if message else f"{role}:"
    return text


def cut(text: str, tokenizer: Tokenizer, marks: int) -> list[int]:
    """llava/mm_utils.py `tokenizer_image_token` over Hugging Face's slow tokenizer.

    Args:
        text: the conversation.
        tokenizer: SentencePiece's.
        marks: images; an `<image>` in a question is text here, which upstream takes for one.
    """
    ids = [BOS]
    chunks = text.split("<image>", marks)
    for number, chunk in enumerate(chunks):
        ids += [IMAGE] if number else []
        for at, part in enumerate(chunk.split("</s>")):
            ids += [EOS] if at else []
            if part:
                ids += tokenizer.encode_after_special(part) if at else tokenizer.encode(part)
    return ids


CONVERSATIONS: list[tuple[dict[str, Any], Any]] = [
    (MISTRAL, llama_2),
    (MISTRAL | {"system": SYSTEM}, llama_2),
    (VICUNA, two),
]


@pytest.mark.parametrize("tokenizer", [TOKENS, LEGACY], ids=["new", "legacy"])
@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize(("fields", "written"), CONVERSATIONS, ids=["mistral", "system", "vicuna"])
def test_every_turn_is_llava_s(
    fields: dict[str, Any], written: Any, image: bool, tokenizer: Tokenizer
) -> None:
    spec = PromptSpec(**fields, legacy=tokenizer.legacy)
    prompts = PromptBuilder(spec, tokenizer, BOS, EOS)
    messages: list[tuple[str, str]] = []
    ids: list[int] = []
    text = ""
    for number, (question, answer) in enumerate(TURNS[:2]):
        slot = "<image>\n" if image and number == 0 else ""
        messages += [("USER", slot + question), ("ASSISTANT", "")]
        if number:
            ids += prompts.next_turn(question)
            text += prompts.end + prompts.turn_text(question)
        else:
            ids, text = prompts.first_turn(question, image), prompts.text(question, image)
        expected = written(spec.system, messages)
        assert ids == cut(expected, tokenizer, int(image))
        assert text == expected
        messages[-1] = ("ASSISTANT", answer)
        said = prompts.given_answer(answer)
        ids += said
        text += prompts.answer_text(said)


@pytest.mark.parametrize("fields", [MISTRAL, VICUNA], ids=["mistral", "vicuna"])
def test_what_looks_like_a_mark_in_a_question_is_text(fields: dict[str, Any]) -> None:
    prompts = PromptBuilder(PromptSpec(**fields, legacy=False), TOKENS, BOS, EOS)
    question = TURNS[2][0]
    for ids, control in (
        (prompts.first_turn(question), [BOS, IMAGE]),
        (prompts.first_turn(question, image=False), [BOS]),
        (prompts.next_turn(question), [EOS]),
        (prompts.given_answer(question), []),
    ):
        assert [i for i in ids if i < 3] == control
    assert prompts.page_only() == prompts.first_turn(question)[: len(prompts.page_only())]
    assert prompts.page_only()[-1] == IMAGE


def test_a_mistral_prompt_by_hand() -> None:
    prompts = PromptBuilder(PromptSpec(**MISTRAL, legacy=False), TOKENS, BOS, EOS)
    assert prompts.text("Rate?") == "[INST] <image>\nRate? [/INST]"
    assert prompts.text("Rate?", image=False) == "[INST] Rate? [/INST]"
    assert prompts.end + prompts.turn_text("Axis?") == "</s>[INST] Axis? [/INST]"
    assert prompts.answer_text(prompts.given_answer("72")) == " 72 "
    ids = prompts.first_turn("Rate?")
    assert ids[0] == BOS
    assert ids[ids.index(IMAGE) + 1 :] == TOKENS.encode("\nRate? [/INST]")


def test_a_chat_goes_on_in_its_style() -> None:
    prompts = PromptBuilder(PromptSpec(**MISTRAL, legacy=False), TOKENS, BOS, EOS)
    asked: list[Any] = []

    def start(request: Any) -> Any:
        asked.append(request)
        raise KeyboardInterrupt

    chat = Chat(prompts, None, start, [("Rate?", "72")])
    with pytest.raises(KeyboardInterrupt):
        chat.ask("Axis?")
    assert asked[0].prompt == "[INST] Rate? [/INST] 72 </s>[INST] Axis? [/INST]"


def test_an_answer_s_first_character() -> None:
    leads = {name: answer_lead(PromptSpec(**t, legacy=False)) for name, t in TEMPLATES.items()}
    assert leads == {"llava_v1": " ", "mistral_instruct": " ", "qwen_1_5": ""}


def test_marks_of_turns_need_a_tokenizer_that_has_them() -> None:
    with pytest.raises(BundleError, match=r"qwen_1_5 needs the token <\|im_start\|>"):
        PromptBuilder(PromptSpec(**QWEN, legacy=False), TOKENS, BOS, EOS)
