"""Turns of a conversation as token ids, and ids as the engine's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import ModelSpec, PromptSpec
from pulse_edge.errors import ParameterError
from pulse_edge.text.tokenizer import Tokenizer

# Stands for all of the image's tokens in a list of ids (llava/constants.py IMAGE_TOKEN_INDEX).
IMAGE = -200


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt with the image's tokens in place, one entry a position of the cache."""

    keys: list[int]  # what the cache compares: a token's id, or the page's key (negative)
    rows: Numbers  # int64 [len(keys)]: what `Engine.rows` takes

    @property
    def image_tokens(self) -> int:
        return sum(key < 0 for key in self.keys)


def prompt_rows(ids: Sequence[int], image: Numbers | None) -> Numbers:
    """Ids -> int64 [n], with all of `image` [tokens] in place of each `IMAGE`."""
    numbers = np.array(ids, np.int64)
    if image is None:
        return numbers
    placeholders = numbers == IMAGE
    rows = np.repeat(numbers, np.where(placeholders, len(image), 1))
    rows[rows == IMAGE] = np.tile(image, placeholders.sum())
    return rows


def render(ids: Sequence[int], image_key: int = 0, image: Numbers | None = None) -> Prompt:
    """Expand the placeholder.

    Args:
        ids: token ids, with `IMAGE` in the image's place.
        image_key: negative; stands for each of the image's tokens in `Prompt.keys`.
        image: int64 [tokens], the image's rows; None for a prompt without an image.
    """
    keys = None if image is None else np.full(len(image), image_key, np.int64)
    return Prompt(prompt_rows(ids, keys).tolist(), prompt_rows(ids, image))


class PromptBuilder:
    """The conversation template over a tokenizer; ids hold `IMAGE` where the image's tokens go.

    Attributes:
        tokenizer: that makes the ids.
    """

    def __init__(self, spec: PromptSpec, tokenizer: Tokenizer, bos: int, eos: int) -> None:
        self.tokenizer = tokenizer
        self._spec = spec
        self._bos = bos
        self._eos = eos

    @classmethod
    def of(cls, model: ModelSpec, tokenizer: Path) -> PromptBuilder:
        """The template of a model, with the tokenizer in its checkpoint or bundle.

        Raises:
            BundleError: the file is not a SentencePiece model.
        """
        text = model.text
        opened = Tokenizer(tokenizer, model.prompt.legacy)
        return cls(model.prompt, opened, text.bos, text.eos[0])

    def first_turn(self, question: str, image: bool = True) -> list[int]:
        """Ids of `{system} USER: <image>\\n{question} ASSISTANT:`. Raises `ParameterError`."""
        spec = self._spec
        encode = self.tokenizer.encode
        head = f"{spec.system} {spec.user}: "
        tail = f"{_checked(question)} {spec.assistant}:"
        if image:
            return [self._bos, *encode(head), IMAGE, *encode("\n" + tail)]
        return [self._bos, *encode(head + tail)]

    def next_turn(self, question: str) -> list[int]:
        """Ids of `</s>USER: {question} ASSISTANT:`, to follow an answer's own ids.

        Raises `ParameterError` for a question that is not text, or is empty.
        """
        turn = self.turn_text(_checked(question))
        return [self._eos, *self.tokenizer.encode_after_special(turn)]

    def turn_text(self, question: str) -> str:
        """A later turn as text."""
        return f"{self._spec.user}: {question} {self._spec.assistant}:"

    def text(self, question: str, image: bool = True) -> str:
        """The first turn as readable text.

        Provenance stores it as `prompt`; the model gets the ids of `first_turn` instead.
        """
        spec = self._spec
        slot = "<image>\n" if image else ""
        return f"{spec.system} {spec.user}: {slot}{question} {spec.assistant}:"


def _checked(question: str) -> str:
    if not isinstance(question, str):
        raise ParameterError(f"a question is a string, not {type(question).__name__}")
    if not question.strip():
        raise ParameterError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"the question is not valid Unicode text ({error.reason})") from None
    return question
