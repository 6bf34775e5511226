"""The token after each token, with or without drafts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.decode.handover import Handover
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.decode.sampler import NOT_FINITE, Logits, Sampler
from pulse_edge.decode.speculation import DraftPolicy, Guess
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import EngineError
from pulse_edge.params import GenerationParams


class Verifier:
    """Runs the decode steps of one answer and checks drafts against what is sampled.

    A step runs the last token and a draft of what may follow. Each row's logits are those after its
    true prefix as long as the sampled tokens are the drafted ones. So every token is sampled once,
    in order, from the logits of plain decoding (but for rounding, see `Engine.step`), and drafts
    change no answer, greedy or sampled, also under a constraint. Where the likeliest token is all
    that it takes, the engine returns tokens, no logits.
    """

    def __init__(
        self,
        engine: Engine,
        params: GenerationParams,
        out: Generation,
        ngrams: Ngrams | None,
        sampler: Sampler,
        handover: Handover | None = None,
    ) -> None:
        self._engine = engine
        self._params = params
        self._out = out
        self._ngrams = ngrams
        self._sampler = sampler
        self._handover = handover
        self._policy = None
        if ngrams is not None:
            self._policy = DraftPolicy(
                engine.row_cost,
                ngrams.record,
                draft_cost=engine.draft_cost,
                most=engine.most_rows - 1,
            )
        self._length = engine.length  # of the cache, up to the last token sampled
        self._ahead: NDArray[Any]  # of 1 + draft rows: logits [rows, vocab], or tokens [rows]
        self._draft: list[Guess] = []
        self._right = 0  # of the draft

    def offer(self, token: int) -> bool:
        """Offer the step that `after` needs for `token`; False if it needs none."""
        if self._handover is None or self._is_drafted(token):
            return False
        self.settle()
        self._handover.offer(token, self._sampler.needs_logits)
        return True

    def after(self, token: int) -> int:
        """The token after `token`, which was sampled last. Raises `EngineError`."""
        if self._ngrams is not None:
            self._ngrams.push(token)
        if self._is_drafted(token):
            self._right += 1
            self._out.accepted += 1
        else:
            self._step(token)
        self._length += 1
        if self._sampler.needs_logits:
            return self.sample(self._ahead[self._right])
        chosen = int(self._ahead[self._right])
        if chosen < 0:
            raise EngineError(NOT_FINITE)
        return chosen

    def _is_drafted(self, token: int) -> bool:
        """Whether a step that was run ahead has the rows after this token."""
        return self._right < len(self._draft) and token == self._draft[self._right].token

    def _step(self, token: int) -> None:
        handover = self._handover
        if handover is None:
            self.settle()
        else:  # `offer` has settled
            shared = handover.take(self._out)
            if shared is not None:
                self._ahead = shared
                return
        draft = [] if handover is not None and handover.company else self._guess()
        start = self._out.clock()
        self._ahead = self._run([token, *(guess.token for guess in draft)])
        self._out.step_seconds.append(self._out.clock() - start)
        self._out.drafted += len(draft)
        self._draft = draft
        self._right = 0

    def _run(self, tokens: list[int]) -> NDArray[Any]:
        rows = self._engine.rows(np.array(tokens, np.int64))
        run = self._engine.step if self._sampler.needs_logits else self._engine.choose
        return run(rows)

    def sample(self, logits: Logits) -> int:
        """A token from logits [vocab], timed."""
        start = self._out.clock()
        token = self._sampler(logits)
        self._out.sample_seconds += self._out.clock() - start
        return token

    @property
    def full(self) -> bool:
        """Whether the cache has no room for the last token sampled."""
        return self._length >= self._engine.capacity

    def settle(self) -> None:
        """Drop the rows ahead of the last token: the draft was wrong, or the answer is over."""
        if self._engine.length > self._length:
            self._engine.rewind(self._length)
        if self._policy is not None:
            self._policy.verified(self._draft, self._right)
        self._draft = []
        self._right = 0
        if self._handover is not None:
            self._handover.withdraw()

    def _guess(self) -> list[Guess]:
        """A draft as long as pays, that neither the context nor max_new_tokens would cut short."""
        if self._ngrams is None or self._policy is None:
            return []
        done = len(self._out.tokens)
        room = min(self._engine.capacity - self._length, self._params.max_new_tokens - done) - 1
        return self._policy.choose(self._ngrams.guesses(), done, room)
