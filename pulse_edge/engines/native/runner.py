"""Runs decode steps: inputs, captured launches, tokens and logits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.engines.native.kernels import MOST_ROWS
from pulse_edge.engines.native.steps import Address, Launch, SharedCache, StepBuilder, StepDevice
from pulse_edge.errors import EngineError


class Executor(StepDevice, Protocol):
    """What runs steps: a GPU (`driver.Gpu`), or in tests an emulation of one."""

    def current(self) -> AbstractContextManager[None]:
        """The block may use the methods below."""

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Zeros on the host that `upload` and `download` may use."""

    def launch(self, launch: Launch, early: bool) -> None:
        """Put a kernel on the stream. `early`: it may start before the kernel before has ended."""

    def upload(self, to: Address, source: NDArray[Any]) -> None:
        """Put a copy to the device on the stream."""

    def download(self, to: NDArray[Any], source: Address) -> None:
        """Put a copy to the host on the stream."""

    def capture(self, issue: Callable[[], None]) -> Any:
        """A graph of what `issue` puts on the stream. It does not run."""

    def replay(self, graph: Any) -> None:
        """Put a graph on the stream."""

    def finish(self) -> None:
        """Wait for the stream."""

    def wait_for_others(self) -> None:
        """Wait for all streams of the device."""


class StepRunner:
    """Runs steps of 1 to 8 rows.

    The first step of each shape runs launch by launch, which loads the kernels; then it is
    captured, and further ones are one graph with its copies.

    Attributes:
        cache: that the steps append to.
    """

    def __init__(
        self, executor: Executor, builder: StepBuilder, cache: SharedCache, vocab: int
    ) -> None:
        self.cache = cache
        self._executor = executor
        self._builder = builder
        self._graphs: dict[tuple[int, int], Any] = {}  # by rows and slots
        self._inputs = executor.pinned(12 * MOST_ROWS + 4 * cache.slots)
        self._numbers = self._inputs[: 8 * MOST_ROWS].view(np.int64)
        self._row_slots = self._inputs[8 * MOST_ROWS : 12 * MOST_ROWS].view(np.int32)
        self._lengths = self._inputs[12 * MOST_ROWS :].view(np.int32)
        self._tokens = executor.pinned(8 * MOST_ROWS).view(np.int64)
        self._logits = executor.pinned(4 * MOST_ROWS * vocab).view(np.float32)
        self._logits = self._logits.reshape(MOST_ROWS, vocab)

    def choose(self, numbers: Numbers, row_slots: Numbers, lengths: Numbers) -> Numbers:
        """Append rows to the cache.

        Args:
            numbers: [k] rows of the table, k from 1 to 8.
            row_slots: [k] the slot of each row; rows of a slot follow each other.
            lengths: [slots] positions that are filled.

        Returns:
            The likeliest tokens [k]; -1 where a logit is not finite.
        """
        self._run(numbers, row_slots, lengths, logits=False)
        chosen: Numbers = self._tokens[: len(numbers)].copy()
        return chosen

    def step(self, numbers: Numbers, row_slots: Numbers, lengths: Numbers) -> Floats:
        """As `choose`, with logits [k, vocab]; valid until the next step."""
        self._run(numbers, row_slots, lengths, logits=True)
        return self._logits[: len(numbers)]

    def _run(self, numbers: Numbers, row_slots: Numbers, lengths: Numbers, logits: bool) -> None:
        rows = len(numbers)
        self._numbers[:rows] = numbers
        self._row_slots[:rows] = row_slots
        self._lengths[:] = lengths
        shape = rows, len(set(row_slots.tolist()))
        with self._executor.current():
            try:
                graph = self._graphs.get(shape)
                if graph is None:
                    self._first(*shape)
                else:
                    self._executor.replay(graph)
                if logits:
                    self._executor.download(self._logits[:rows], self._builder.logits)
                self._executor.finish()
            except BaseException:
                with suppress(EngineError):  # queued copies read what the next call overwrites
                    self._executor.finish()
                raise

    def _first(self, rows: int, slots: int) -> None:
        launches = self._builder.launches(rows, slots)

        def issue() -> None:
            self._executor.upload(self._builder.numbers, self._inputs)
            for number, launch in enumerate(launches):
                # What follows a copy has to wait for it.
                self._executor.launch(launch, early=launch.early and number > 0)
            self._executor.download(self._tokens, self._builder.tokens)

        issue()
        self._executor.finish()
        self._graphs[rows, slots] = self._executor.capture(issue)

    def round_cache(self, begin: int, end: int) -> None:
        """Copy positions that another engine has appended to the cache of bytes, if any."""
        with self._executor.current():
            for launch in self._builder.round_cache(begin, end):
                self._executor.launch(launch, launch.early)

    def wait_for_others(self) -> None:
        """Let what another library put on its streams be done before the next step."""
        with self._executor.current():
            self._executor.wait_for_others()
