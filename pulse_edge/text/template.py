"""TODO"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import PromptSpec
from pulse_edge.errors import ParameterError
from pulse_edge.text.tokenizer import Tokenizer


def prompt_rows(ids: Sequence[int], image: Numbers | None) -> Numbers:
    """Token ids -> numbers int64 [n], with `image`'s in the placeholder's place."""
    parts = [image if id_ == IMAGE and image is not None else np.array([id_], np.int64) for id_ in ids]
    return np.concatenate(parts)


IMAGE = -200  # stands for the image's tokens in a list of ids (llava/constants.py IMAGE_TOKEN_INDEX)


class PromptBuilder:
    """The conversation template over a tokenizer; lists of ids hold `IMAGE` where the image's tokens go."""

    def __init__(self, spec: PromptSpec, tokenizer: Tokenizer, bos: int, eos: int) -> None:
        self._spec, self._tokenizer, self._bos, self._eos = spec, tokenizer, bos, eos

    def first_turn(self, question: str, image: bool = True) -> list[int]:
        """`{system} USER: <image>\\n{question} ASSISTANT:`"""
        spec, encode = self._spec, self._tokenizer.encode
        head, tail = f"{spec.system} {spec.user}: ", f"{_checked(question)} {spec.assistant}:"
        if image:
            return [self._bos, *encode(head), IMAGE, *encode("\n" + tail)]
        return [self._bos, *encode(head + tail)]

    def next_turn(self, question: str) -> list[int]:
        """`</s>USER: {question} ASSISTANT:`, to follow an answer's own ids."""
        return [self._eos, *self._tokenizer.encode_after_special(self.turn_text(_checked(question)))]

    def turn_text(self, question: str) -> str:
        return f"{self._spec.user}: {question} {self._spec.assistant}:"

    def text(self, question: str, image: bool = True) -> str:
        """The first turn as text, for people and for provenance."""
        slot = "<image>\n" if image else ""
        return f"{self._spec.system} {self._spec.user}: {slot}{question} {self._spec.assistant}:"


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
