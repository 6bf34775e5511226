"""A GPU in emulation as engine `native` wants one, and the engine over it.

ONNX Runtime's CPU provider runs the rest, over the same weights and the same cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.native.engine import NativeEngine, assemble
from pulse_edge.engines.native.steps import Launch
from pulse_edge.engines.options import EngineOptions

from support.emulated_device import EmulatedDevice
from support.emulation import Kind, Workshop

Work = Callable[[], None]


class EmulatedExecutor(EmulatedDevice):
    """Runs kernels at once, but while it captures.

    Attributes:
        graphs: how many graphs were captured.
        replays: how often one was replayed.
        launched: kernels that ran.
        failure: raised by the next `finish`, if set.
    """

    def __init__(self, workshop: Workshop) -> None:
        super().__init__(workshop)
        self._starts: list[tuple[int, int]] = []
        self._captured: list[Work] | None = None
        self._depth = 0
        self.graphs = 0
        self.replays = 0
        self.launched = 0
        self.failure: BaseException | None = None

    def allocate(self, size: int) -> int:
        address = super().allocate(size)
        self._starts.append((address, size))
        return address

    def write(self, to: int, array: NDArray[Any]) -> None:
        """What the host writes once is constant, all of its allocation."""
        start, size = next(s for s in self._starts if s[0] <= to < s[0] + s[1])
        assert to + array.nbytes <= start + size
        ctypes.memmove(to, array.ctypes.data, array.nbytes)
        self.memory.mark(start, f"weights {start:x}", Kind.READ_ONLY)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)

    def launch(self, launch: Launch, early: bool) -> None:
        self._put(lambda: self._launch(launch))

    def _launch(self, launch: Launch) -> None:
        self.launched += 1
        self.run([launch])

    def upload(self, to: int, source: NDArray[Any]) -> None:
        def work() -> None:
            ctypes.memmove(to, source.ctypes.data, source.nbytes)
            self.memory.mark(to, "inputs", Kind.READ_EARLY)

        self._put(work)

    def download(self, to: NDArray[Any], source: int) -> None:
        def work() -> None:
            ctypes.memmove(to.ctypes.data, source, to.nbytes)

        self._put(work)

    def capture(self, issue: Work) -> list[Work]:
        self._captured = []
        try:
            issue()
            return self._captured
        finally:
            self._captured = None
            self.graphs += 1

    def replay(self, graph: list[Work]) -> None:
        self.replays += 1
        for work in graph:
            work()

    def finish(self) -> None:
        assert self._depth, "no current context"
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure

    def wait_for_others(self) -> None:
        assert self._depth, "no current context"

    def _put(self, work: Work) -> None:
        assert self._depth, "no current context"
        if self._captured is None:
            work()
        else:
            self._captured.append(work)


def emulated_engine(
    bundle: Bundle, workshop: Workshop, context: int | None = None, byte_cache: bool = False
) -> tuple[NativeEngine, EmulatedExecutor]:
    """Engine `native` whose GPU is emulated. `bundle`: for CUDA."""
    executor = EmulatedExecutor(workshop)
    options = EngineOptions(device="cpu", engine="onnxruntime", context=context)
    engine = assemble(bundle, options, executor, lambda _: None, byte_cache)
    shared = {"table": engine.base.device_table.value, **engine.base.cache.values}
    for name, value in shared.items():
        size = value.tensor_size_in_bytes()
        kind = Kind.READ_ONLY if name == "table" else Kind.READ_EARLY
        executor.memory.adopt(name, value.data_ptr(), size, kind)
    assert engine.runner
    if rounded := engine.runner.cache.rounded:
        for address in (*rounded.keys, *rounded.values, *rounded.scales):
            executor.memory.mark(address, "cache of bytes", Kind.READ_EARLY)
    return engine, executor
