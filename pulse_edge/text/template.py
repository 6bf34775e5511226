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
from pulse_edge.text.open_tokenizer import open_tokenizer
from pulse_edge.text.styles import IMAGE as IMAGE
from pulse_edge.text.styles import Parts, turn_style
from pulse_edge.text.tokenizer import Tokenizer


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
        self._style = turn_style(spec, tokenizer, bos, eos)

    @classmethod
    def of(
        cls, model: ModelSpec, tokenizer: Path | bytes, name: str | None = None
    ) -> PromptBuilder:
        """The template of a model, with the tokenizer of its checkpoint or bundle.

        Args:
            model: the network.
            tokenizer: the tokenizer's file, or its bytes: a SentencePiece model, or a
                tokenizer.json if its name ends so.
            name: what messages call it, and what tells its kind; None: the file's path.

        Raises:
            BundleError: it is no tokenizer, or has no token that the template needs.
        """
        text = model.text
        opened = open_tokenizer(tokenizer, model.prompt.legacy, name)
        return cls(model.prompt, opened, text.bos, text.eos[0])

    @property
    def end(self) -> str:
        """The text between an answer and the next turn: the end token, as the file spells it."""
        return self._spelled(self._style.next_turn("")[:1])

    def first_turn(self, question: str, image: bool = True) -> list[int]:
        """Ids of the first turn, such as `{system} USER: <image>\\n{question} ASSISTANT:`.

        Raises `ParameterError`.
        """
        return self._ids(self._style.first_turn(_checked_question(question), image))

    def page_only(self) -> list[int]:
        """Ids of the first turn up to the image: what every question about a page begins with."""
        parts = self._style.first_turn("", True)
        return self._ids(parts[: parts.index(IMAGE) + 1])

    def given_answer(self, answer: str) -> list[int]:
        """Ids of an answer that is known as text only, to follow `ASSISTANT:`.

        Raises `ParameterError` for what is not text.
        """
        if not isinstance(answer, str):
            raise ParameterError(f"an answer is a string, not {type(answer).__name__}")
        said = self._style.answer(_checked_unicode(answer, "answer").strip())
        return self.tokenizer.encode_spelled(said)

    def next_turn(self, question: str) -> list[int]:
        """Ids of a later turn, such as `</s>USER: {question} ASSISTANT:`, to follow an answer's.

        Raises `ParameterError` for a question that is not text, or is empty.
        """
        return self._ids(self._style.next_turn(_checked_question(question)))

    def answer(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> list[int]:
        """Ids of an answer as later turns see it: as generated, up to a stop string.

        Args:
            tokens: as generated, without the end token.
            stop: the answer's stop strings. If one begins within a token, what comes before it in
                the token is spelled by other tokens.
        """
        kept, rest = before_stop(self.tokenizer, tokens, stop)
        return kept + self.tokenizer.encode_spelled(rest) if rest else kept

    def answer_text(self, tokens: Iterable[int]) -> str:
        """An answer's ids as the text that follows `ASSISTANT:`, with all white space."""
        return b"".join(map(self.tokenizer.piece_bytes, tokens)).decode(errors="replace")

    def turn_text(self, question: str) -> str:
        """A later turn as text, without the end token before it."""
        return self._spelled(self._style.next_turn(question)[1:])

    def text(self, question: str, image: bool = True) -> str:
        """The first turn as readable text.

        Provenance stores it as `prompt`; the model gets the ids of `first_turn` instead.
        """
        return self._spelled(self._style.first_turn(question, image))

    def _ids(self, parts: Parts) -> list[int]:
        """Each text on its own. Behind the beginning and the image it starts a chunk."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            elif part and (not ids or ids[-1] in (IMAGE, self._style.begins)):
                ids += self.tokenizer.encode(part)
            elif part:
                ids += self.tokenizer.encode_after_special(part)
        return ids

    def _spelled(self, parts: Parts) -> str:
        """Parts as text; the beginning token is left out."""
        return "".join(part if isinstance(part, str) else self._shown(part) for part in parts)

    def _shown(self, token: int) -> str:
        if token == IMAGE:
            return "<image>"
        known = token != self._style.begins and token < self.tokenizer.size
        return self.tokenizer.piece(token) if known else ""


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
