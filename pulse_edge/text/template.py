"""Turns of a conversation as token ids, and ids as the engine's prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.spec import ModelSpec, PromptSpec
from pulse_edge.errors import ParameterError
from pulse_edge.text.detokenizer import before_stop
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
        image_key: negative, of any size; stands for each of the image's tokens in `Prompt.keys`.
        image: int64 [tokens], the image's rows; None for a prompt without an image.
    """
    keys = list(ids)
    if image is not None:
        keys = []
        for token in ids:
            keys += [image_key] * len(image) if token == IMAGE else [token]
    return Prompt(keys, prompt_rows(ids, image))


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
    def of(
        cls, model: ModelSpec, tokenizer: Path | bytes, name: str | None = None
    ) -> PromptBuilder:
        """The template of a model, with the tokenizer of its checkpoint or bundle.

        Args:
            model: the network.
            tokenizer: the SentencePiece model: its file, or its bytes.
            name: see `Tokenizer`.

        Raises:
            BundleError: it is not a SentencePiece model.
        """
        text = model.text
        opened = Tokenizer(tokenizer, model.prompt.legacy, name)
        return cls(model.prompt, opened, text.bos, text.eos[0])

    def first_turn(self, question: str, image: bool = True) -> list[int]:
        """Ids of `{system} USER: <image>\\n{question} ASSISTANT:`. Raises `ParameterError`."""
        spec = self._spec
        encode = self.tokenizer.encode
        head = f"{spec.system} {spec.user}: "
        tail = f"{_checked_question(question)} {spec.assistant}:"
        if image:
            return [self._bos, *encode(head), IMAGE, *encode("\n" + tail)]
        return [self._bos, *encode(head + tail)]

    def page_only(self) -> list[int]:
        """Ids of the first turn up to the image: what every question about a page begins with."""
        return [
            self._bos,
            *self.tokenizer.encode(f"{self._spec.system} {self._spec.user}: "),
            IMAGE,
        ]

    def given_answer(self, answer: str) -> list[int]:
        """Ids of an answer that is known as text only, to follow `ASSISTANT:`.

        Raises `ParameterError` for what is not text.
        """
        if not isinstance(answer, str):
            raise ParameterError(f"an answer is a string, not {type(answer).__name__}")
        guard = self.tokenizer.encode("\n")  # see `Tokenizer.encode_after_special`
        said = f" {_checked_unicode(answer, 'answer').strip()}"
        return self.tokenizer.encode("\n" + said)[len(guard) :]

    def next_turn(self, question: str) -> list[int]:
        """Ids of `</s>USER: {question} ASSISTANT:`, to follow an answer's own ids.

        Raises `ParameterError` for a question that is not text, or is empty.
        """
        turn = self.turn_text(_checked_question(question))
        return [self._eos, *self.tokenizer.encode_after_special(turn)]

    def answer(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> list[int]:
        """Ids of an answer as later turns see it: as generated, up to a stop string.

        Args:
            tokens: as generated, without the end token.
            stop: the answer's stop strings. If one begins within a token, what comes before it in
                the token is spelled by other tokens.
        """
        kept, rest = before_stop(self.tokenizer, tokens, stop)
        guard = self.tokenizer.encode("\n")  # see `Tokenizer.encode_after_special`
        return kept + self.tokenizer.encode("\n" + rest)[len(guard) :] if rest else kept

    def answer_text(self, tokens: Iterable[int]) -> str:
        """An answer's ids as the text that follows `ASSISTANT:`, with all white space."""
        return b"".join(map(self.tokenizer.piece_bytes, tokens)).decode(errors="replace")

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


def _checked_question(question: str) -> str:
    if not isinstance(question, str):
        raise ParameterError(f"a question is a string, not {type(question).__name__}")
    if not question.strip():
        raise ParameterError("the question is empty")
    return _checked_unicode(question, "question")


def _checked_unicode(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"the {what} is not valid Unicode text ({error.reason})") from None
    return text
