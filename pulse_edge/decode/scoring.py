"""How likely each of several answers is, by log-probability."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats
from pulse_edge.decode.logprobs import log_softmax
from pulse_edge.decode.sampler import NOT_FINITE
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import ContextError, EngineError, ParameterError
from pulse_edge.text.tokenizer import Tokenizer

MOST_OPTIONS = 64
_MOST_SHOWN = 60  # characters of an option in a message


@dataclass(frozen=True)
class OptionScore:
    """How likely the model is to answer with an option, and nothing else.

    The scores of one question's options compare directly. `text_logprob / tokens` compares options
    of different lengths by the mean of their tokens.

    Args:
        option: the text.
        logprob: natural logarithm of the probability of the option's tokens and then the answer's
            end. What is left to 1 over all options is the probability of every other answer.
        text_logprob: the same without the end: of an answer that begins with the option.
        tokens: of the option, without the end token.
    """

    option: str
    logprob: float
    text_logprob: float
    tokens: int


class Scorer:
    """Scores options as answers to a prompt that is in the cache.

    Args:
        engine: its cache holds the prompt when `score` is called.
        tokenizer: of the model.
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, ends: Collection[int]) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ends = sorted(ends)

    def tokens(self, option: str) -> list[int]:
        """The tokens with which the model was taught to write an option after `ASSISTANT:`.

        Training encoded the whole turn. SentencePiece's pieces do not reach over a space to the
        left, so these are the tokens of the option with the space before it, which `encode` adds.
        """
        return self._tokenizer.encode(option)

    def score(
        self, logits: Floats, options: Iterable[str], between: Callable[[], None] | None = None
    ) -> tuple[OptionScore, ...]:
        """The score of each option, in order. The cache is then as it was.

        Each option is run by itself, so that neither the others nor their order move its score.

        Args:
            logits: [vocab] after the prompt.
            options: as `checked_options` returns them.
            between: called before each option; what it raises ends the scoring and is passed on.

        Raises:
            ContextError: an option does not fit the context after the prompt.
            EngineError: the engine failed, or its logits are not finite.
        """
        encoded = {option: self.tokens(option) for option in options}
        self._check_room(encoded)
        first = _log_probabilities(logits[None])  # before a step overwrites the logits
        scores = []
        for option, tokens in encoded.items():
            if between is not None:
                between()
            scores.append(self._score_one(option, tokens, first))
        return tuple(scores)

    def _score_one(self, option: str, tokens: list[int], first: NDArray[np.float64]) -> OptionScore:
        following, last = self._run(tokens)
        text = float(first[0, tokens[0]]) + following
        end = float(np.logaddexp.reduce(last[self._ends]))  # any of them ends the answer
        return OptionScore(option, text + end, text, len(tokens))

    def _run(self, tokens: list[int]) -> tuple[float, NDArray[np.float64]]:
        """Run an option, and rewind.

        Returns:
            Log-probability of its tokens after the first, and log-probabilities [vocab] after it.
        """
        engine = self._engine
        start = engine.length
        following = 0.0
        try:
            for at in range(0, len(tokens), engine.most_rows):
                rows = tokens[at : at + engine.most_rows]
                after = _log_probabilities(engine.step(engine.rows(np.array(rows, np.int64))))
                targets = np.array(tokens[at + 1 : at + 1 + len(rows)], np.int64)
                following += float(after[np.arange(len(targets)), targets].sum())
        finally:
            if engine.length > start:
                engine.rewind(start)
        return following, after[-1]

    def _check_room(self, encoded: dict[str, list[int]]) -> None:
        room = self._engine.capacity - self._engine.length
        for option, tokens in encoded.items():
            if len(tokens) > room:
                raise ContextError(
                    f"option {_quoted(option)} is {len(tokens)} tokens, and the context has room "
                    f"for {room} after the prompt; shorten the option, the question or the chat"
                )


def checked_options(options: Iterable[str]) -> tuple[str, ...]:
    """Options that can be scored.

    Args:
        options: 1 to 64 texts, each another one, without white space at their ends.

    Raises:
        ParameterError: they are not.
    """
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise ParameterError(f"options are {type(options).__name__}, but must be a list of texts")
    listed = tuple(options)
    if not 1 <= len(listed) <= MOST_OPTIONS:
        raise ParameterError(f"there are {len(listed)} options, but must be 1 to {MOST_OPTIONS}")
    for index, option in enumerate(listed):
        _check_option(option)
        if option in listed[:index]:
            raise ParameterError(f"option {_quoted(option)} is there twice; leave one out")
    return listed


def _check_option(option: object) -> None:
    if not isinstance(option, str):
        raise ParameterError(f"an option is text, not {type(option).__name__}")
    if not option.strip():
        raise ParameterError("an option is empty; leave it out")
    if option != option.strip():
        raise ParameterError(
            f"option {_quoted(option)} has white space at an end, and answers have none; strip it"
        )
    try:
        option.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"an option is not valid Unicode text ({error.reason})") from None


def _quoted(option: str) -> str:
    short = option if len(option) <= _MOST_SHOWN else f"{option[:_MOST_SHOWN]}…"
    return repr(short)


def _log_probabilities(logits: Floats) -> NDArray[np.float64]:
    """`log_softmax` of logits [k, vocab]. Raises `EngineError` if they are not finite."""
    if not np.isfinite(logits.max(axis=-1)).all():
        raise EngineError(NOT_FINITE)
    return log_softmax(logits)
