"""How turns are written: texts and tokens in their order, one class for each kind.

Source: LLaVA's llava/conversation.py `Conversation.get_prompt` (`SeparatorStyle`), and
llava/mm_utils.py `tokenizer_image_token`, which begins a prompt with the tokenizer's beginning
token, if it has one, and cuts it at the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pulse_edge.bundle.spec import PromptSpec
from pulse_edge.errors import BundleError
from pulse_edge.text.json_tokenizer import JsonTokenizer
from pulse_edge.text.tokenizer import Tokenizer

# Stands for all of the image's tokens in a list of ids (llava/constants.py IMAGE_TOKEN_INDEX).
IMAGE = -200

Parts = list[str | int]  # texts, which are encoded on their own, and token ids

# What begins and ends a turn of ChatML.
TURN_BEGINS, TURN_ENDS = "<|im_start|>", "<|im_end|>"


class Style(Protocol):
    """A way of writing turns."""

    @property
    def begins(self) -> int | None:
        """The token that a conversation begins with."""

    def first_turn(self, question: str, image: bool) -> Parts:
        """Up to where the answer starts."""

    def next_turn(self, question: str) -> Parts:
        """What follows an answer: the end token, and a question up to where its answer starts."""

    def answer(self, text: str) -> str:
        """An answer between its turn and the next one."""


@dataclass(frozen=True)
class RolesStyle:
    """`{system} USER: {question} ASSISTANT: {answer}</s>` (`SeparatorStyle.TWO`)."""

    spec: PromptSpec
    begins: int
    ends: int

    def first_turn(self, question: str, image: bool) -> Parts:
        head = f"{self.spec.system} {self.spec.user}: "
        tail = f"{question} {self.spec.assistant}:"
        return [self.begins, head, IMAGE, f"\n{tail}"] if image else [self.begins, head + tail]

    def next_turn(self, question: str) -> Parts:
        return [self.ends, f"{self.spec.user}: {question} {self.spec.assistant}:"]

    def answer(self, text: str) -> str:
        return f" {text}"


@dataclass(frozen=True)
class InstructionStyle:
    """`[INST] {question} [/INST] {answer} </s>` (`SeparatorStyle.LLAMA_2`)."""

    spec: PromptSpec
    begins: int
    ends: int

    def first_turn(self, question: str, image: bool) -> Parts:
        system = self.spec.system
        head = f"{self.spec.user} " + (f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else "")
        tail = f"{question} {self.spec.assistant}"
        return [self.begins, head, IMAGE, f"\n{tail}"] if image else [self.begins, head + tail]

    def next_turn(self, question: str) -> Parts:
        return [self.ends, f"{self.spec.user} {question} {self.spec.assistant}"]

    def answer(self, text: str) -> str:
        return f" {text} "


@dataclass(frozen=True)
class MarkedStyle:
    """`<|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>\\n`.

    `SeparatorStyle.CHATML`. There is no beginning token.
    """

    spec: PromptSpec
    mark: int
    ends: int
    begins: None = None

    def first_turn(self, question: str, image: bool) -> Parts:
        system: Parts = [self.mark, f"system\n{self.spec.system}", self.ends, "\n"]
        return [*(system if self.spec.system else []), *self._turn(question, image)]

    def next_turn(self, question: str) -> Parts:
        return [self.ends, "\n", *self._turn(question, False)]

    def answer(self, text: str) -> str:
        return text

    def _turn(self, question: str, image: bool) -> Parts:
        user = f"{self.spec.user}\n"
        asked: Parts = [user, IMAGE, f"\n{question}"] if image else [user + question]
        return [self.mark, *asked, self.ends, "\n", self.mark, f"{self.spec.assistant}\n"]


def answer_lead(spec: PromptSpec) -> str:
    """What a model writes before an answer's text: the space behind `ASSISTANT:`, or nothing."""
    return "" if spec.style == "chatml" else " "


def turn_style(spec: PromptSpec, tokenizer: Tokenizer, bos: int, eos: int) -> Style:
    """The way of writing turns that a prompt has.

    Args:
        spec: the prompt.
        tokenizer: of its model.
        bos: the token that begins a conversation, where the style has one.
        eos: the token that ends an answer.

    Raises:
        BundleError: the tokenizer lacks a token of ChatML.
    """
    if spec.style == "llama_2":
        return InstructionStyle(spec, bos, eos)
    if spec.style != "chatml":
        return RolesStyle(spec, bos, eos)
    mark = tokenizer.token(TURN_BEGINS) if isinstance(tokenizer, JsonTokenizer) else None
    if mark is None:
        raise BundleError(
            f"the prompt {spec.name} needs the token {TURN_BEGINS}, and the tokenizer has none; "
            "export the checkpoint again"
        )
    return MarkedStyle(spec, mark, eos)
