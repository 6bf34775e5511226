"""An engine that counts its steps and computes nothing, and the decode loop over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.decode import loop, result
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.sampler import Sampler
from pulse_edge.decode.speculation import cost
from pulse_edge.engines.engine import Engine, likeliest
from pulse_edge.params import GenerationParams
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.tokenizer import Tokenizer

EOS = 2
CPU = 0.4  # row cost
Logits = Callable[[Sequence[int]], Floats]  # the tokens in the cache -> what comes next


class Counting:
    """An engine whose cache is a list of tokens, its model a function."""

    draft_cost = 0.0
    most_rows = 16

    def __init__(
        self, model: Logits, prompt: list[int], capacity: int = 10_000, row_cost: float = CPU
    ) -> None:
        self.model, self.cache, self.capacity, self.row_cost = (
            model,
            list(prompt),
            capacity,
            row_cost,
        )
        self.steps: list[int] = []  # rows of each

    @property
    def length(self) -> int:
        return len(self.cache)

    def rows(self, numbers: Numbers) -> Numbers:
        return numbers

    def choose(self, rows: Numbers) -> Numbers:
        return likeliest(self.step(rows))

    def step(self, rows: Numbers) -> Floats:
        assert len(self.cache) + len(rows) <= self.capacity
        self.steps.append(len(rows))
        logits = []
        for token in rows:
            self.cache.append(int(token))
            logits.append(self.model(self.cache))
        return np.stack(logits)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.cache)
        del self.cache[length:]

    @property
    def cost(self) -> float:
        """In plain steps."""
        return sum(1 + cost(self.row_cost, rows - 1) for rows in self.steps)


LETTERS = cast(Tokenizer, SimpleNamespace(piece_bytes=lambda token: bytes([97 + token % 26])))


class Run:
    """An answer of the loop over a `Counting` engine."""

    def __init__(
        self,
        model: Logits,
        prompt: list[int],
        ngrams: Ngrams | None = None,
        params: GenerationParams | None = None,
        capacity: int = 10_000,
        row_cost: float = CPU,
        sampler: Sampler | None = None,
        tokenizer: Tokenizer = LETTERS,
    ) -> None:
        params = params or GenerationParams()
        self.prompt, self.out, self.text = prompt, result.Generation(), ""
        self.engine = Counting(model, prompt, capacity, row_cost)
        if ngrams is not None:
            ngrams.begin(prompt)
        self.pieces = loop.generate(
            cast(Engine, self.engine),
            model(prompt),
            params,
            (EOS,),
            TextStream(tokenizer, params.stop),
            self.out,
            ngrams,
            sampler,
        )

    def drain(self) -> Run:
        self.text = "".join(self.pieces)
        return self

    @property
    def saved(self) -> float:
        """Steps, less what verifying cost."""
        return len(self.engine.steps) + self.out.accepted - self.engine.cost

    @property
    def answer(self) -> tuple[list[int], str, str]:
        return self.out.tokens, self.out.finish_reason, self.text


def after(engine: Counting, prompt: list[int], tokens: list[int]) -> bool:
    """The cache is the prompt and tokens of the answer, at least those that were run."""
    known = prompt + tokens
    return engine.cache == known[: engine.length] and engine.length >= len(known) - 1
