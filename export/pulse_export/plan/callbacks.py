"""What TensorRT calls back while it builds.

No exception may pass through TensorRT: the first is kept, and ends the build.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from pulse_edge.progress import Progress


class Callbacks:
    """The callbacks of one build.

    Attributes:
        raised: the first exception of a callback, or Ctrl-C. Raise it when TensorRT has returned.
    """

    def __init__(self, graph: str, progress: Progress | None) -> None:
        self.raised: BaseException | None = None
        self._graph, self._progress = graph, progress

    def _guarded(self, call: Callable[[], object]) -> bool:
        """Whether the build goes on."""
        if self.raised is None:
            try:
                call()
            except BaseException as error:
                self.raised = error
        return self.raised is None

    @contextmanager
    def handling_interrupts(self) -> Iterator[None]:
        """Keep Ctrl-C for later, as an exception of a callback is.

        Python would raise it at any line of a callback. Only the main thread receives it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda *_: self._guarded(_interrupt))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def monitor(self, trt: Any) -> Any:
        """An IProgressMonitor that tells the steps of the outermost phase."""
        guarded, outermost = self._guarded, dict[str, int]()
        report, graph = self._progress or (lambda *_: None), self._graph

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                if parent is None:
                    outermost[name] = steps
                    guarded(lambda: report(graph, 0, steps))

            def step_complete(self, name: str, step: int) -> bool:
                return guarded(
                    lambda: report(graph, 1, outermost[name]) if name in outermost else None
                )

            def phase_finish(self, name: str) -> None:
                outermost.pop(name, None)

        return Monitor()

    def writer(self, trt: Any, file: BinaryIO) -> Any:
        """An IStreamWriter into a file."""
        guarded = self._guarded

        class Writer(trt.IStreamWriter):  # type: ignore[misc]
            def write(self, data: bytes) -> int:
                return len(data) if guarded(lambda: file.write(data)) else 0

        return Writer()


def _interrupt() -> None:
    raise KeyboardInterrupt
