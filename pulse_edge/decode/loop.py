"""The decode loop: logits -> token -> text -> next logits, until there is a reason to stop."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.decode.ngrams import Lookup
from pulse_edge.decode.result import FinishReason, Generation
from pulse_edge.decode.sampler import NOT_FINITE, Sampler
from pulse_edge.decode.speculation import Drafts, Guess
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.errors import EngineError
from pulse_edge.params import SamplingParams
from pulse_edge.text.detokenizer import TextStream

Floats = NDArray[np.float32]


def generate(
    engine: Engine,
    logits: Floats,
    params: SamplingParams,
    eos: tuple[int, ...],
    text: TextStream,
    out: Generation,
    lookup: Lookup | None = None,
) -> Generator[str, None, None]:
    """Yield the answer's text as it becomes certain, starting from the prompt's last `logits` [vocab].

    With a lookup, which has seen the prompt, a step may give several tokens. However it ends, also when it is closed,
    the cache then holds the prompt and tokens of the answer, nothing else.
    """
    now = time.perf_counter
    steps = _Steps(engine, params, out, lookup)
    try:
        token = steps.sample(logits)
        while True:
            sampled = now()
            out.first_token_at, out.last_token_at = out.first_token_at or sampled, sampled
            if token in eos:
                out.finish_reason = "eos"
                break
            out.tokens.append(token)
            piece = text.push(token)
            out.detokenise_seconds += now() - sampled
            if piece:
                yield piece
            if out.cancelled:
                return
            reason = _stop_reason(params, text, out, steps.full)
            if reason:
                out.finish_reason = reason
                break
            token = steps.after(token)
    finally:
        steps.settle()
    rest = text.finish()
    if rest:
        yield rest


class _Steps:
    """The token after each token: from a step of its own, or from a row that an earlier step ran ahead.

    A step runs the token just sampled and a draft of what may follow; each row's logits are those after its true prefix
    as long as the tokens sampled are the drafted ones. So every token is sampled once, in order, from the logits that
    plain decoding would sample it from (but for rounding, see `Engine.step`): lossless for any sampling. Where the
    likeliest token is all that is asked for, the engine says which it is, and keeps the logits.
    """

    def __init__(self, engine: Engine, params: SamplingParams, out: Generation, lookup: Lookup | None) -> None:
        self._engine, self._params, self._out, self._lookup = engine, params, out, lookup
        self._sampler = Sampler(params)
        self._drafts = None if lookup is None else Drafts(engine.row_cost, lookup.record)
        self._length = engine.length  # of the cache, without what is ahead of the tokens sampled
        self._ahead: NDArray[Any]  # of 1 + draft rows: logits [rows, vocab], or tokens [rows]
        self._draft: list[Guess] = []
        self._right = 0  # of the draft

    def after(self, token: int) -> int:
        """The token after `token`, the last one sampled. Raises `EngineError`."""
        if self._lookup is not None:
            self._lookup.push(token)
        if self._right < len(self._draft) and token == self._draft[self._right].token:
            self._right += 1
            self._out.accepted += 1
        else:
            self.settle()
            draft = self._guess()
            start = time.perf_counter()
            self._ahead = self._run([token, *(guess.token for guess in draft)])
            self._out.step_seconds.append(time.perf_counter() - start)
            self._out.drafted += len(draft)
            self._draft, self._right = draft, 0
        self._length += 1
        if not self._params.greedy:
            return self.sample(self._ahead[self._right])
        chosen = int(self._ahead[self._right])
        if chosen < 0:
            raise EngineError(NOT_FINITE)
        return chosen

    def _run(self, tokens: list[int]) -> NDArray[Any]:
        rows: Rows = self._engine.rows(np.array(tokens, np.int64))
        return self._engine.choose(rows) if self._params.greedy else self._engine.step(rows)

    def sample(self, logits: Floats) -> int:
        """A token from logits [vocab], and the time it takes."""
        start = time.perf_counter()
        token = self._sampler(logits)
        self._out.sample_seconds += time.perf_counter() - start
        return token

    @property
    def full(self) -> bool:
        """No room for the last token sampled, which would be the next in the cache."""
        return self._length >= self._engine.capacity

    def settle(self) -> None:
        """Drop what is ahead of the tokens sampled, once the draft turned out wrong or the answer is over."""
        if self._engine.length > self._length:
            self._engine.rewind(self._length)
        if self._drafts is not None:
            self._drafts.verified(self._draft, self._right)
        self._draft, self._right = [], 0

    def _guess(self) -> list[Guess]:
        """A draft as long as pays, that neither the context nor max_new_tokens would cut short."""
        if self._lookup is None or self._drafts is None:
            return []
        done = len(self._out.tokens)
        room = min(self._engine.capacity - self._length, self._params.max_new_tokens - done) - 1
        return self._drafts.choose(self._lookup.guesses(), done, room)


def _stop_reason(params: SamplingParams, text: TextStream, out: Generation, full: bool) -> FinishReason | None:
    if text.stopped:
        return "stop"
    if len(out.tokens) >= params.max_new_tokens:
        return "length"
    if full:
        return "context"
    return None
