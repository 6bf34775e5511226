"""The thread that owns an engine. Requests queue for it and run one after the other.

One thread, because an engine has one cache, and because CUDA graphs are captured per thread. It
starts with the first request, and ends with its `Worker` or with the interpreter.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from pulse_edge.answer import Answer, Delivery
from pulse_edge.cancellation import Cancellation
from pulse_edge.errors import PulseEdgeError

T = TypeVar("T")
EXIT_SECONDS = 10.0  # that the interpreter's exit waits for a cancelled request to end


class _Job(NamedTuple):
    delivery: Delivery
    produce: Callable[[Delivery], Answer | None]


class _Inbox:
    """The state that the thread shares with its `Worker`.

    The thread holds no reference to the `Worker`, so an idle one can be collected.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()  # None ends the thread
        self.running: Delivery | None = None
        self.closed = False  # the interpreter is exiting
        self.thread = threading.Thread(
            target=_serve, args=(self,), name="pulse-edge engine", daemon=True
        )


class Worker:
    """Runs requests in a thread of its own, in the order in which they were begun."""

    def __init__(self) -> None:
        self._inbox = _Inbox()
        self._starting = threading.Lock()
        weakref.finalize(self, _end, self._inbox)

    def begin(self, delivery: Delivery, produce: Callable[[Delivery], Answer | None]) -> None:
        """Queue a request. `produce` is called in the worker's thread, once its turn comes.

        Raises:
            PulseEdgeError: in a forked child, if the worker had started in the parent: the engine's
                threads do not survive a fork, and the parent may have been in a request.
        """
        inbox = self._inbox
        started = inbox.thread.ident is not None
        if inbox.process != os.getpid() and started:
            raise PulseEdgeError(
                "this process was forked from one whose model has answered already; "
                "load the model in the child, or start processes by 'spawn'"
            )
        if not started:
            with self._starting:
                if inbox.thread.ident is None:
                    inbox.process = os.getpid()
                    inbox.thread.start()
        delivery.worker = inbox.thread
        delivery.begun = True
        inbox.jobs.put(_Job(delivery, produce))

    def call(self, work: Callable[[Cancellation], T]) -> T:
        """Run `work` in the worker's thread, after the requests that were begun; wait for it.

        Args:
            work: gets a cancellation, which is requested if the wait is interrupted, as by Ctrl-C.

        Returns:
            What `work` returned.

        Raises:
            PulseEdgeError: as `begin` does.
            BaseException: what `work` raised.
        """
        delivery = Delivery()
        results: list[T] = []
        self.begin(delivery, lambda own: results.append(work(own.cancellation)))
        try:
            delivery.wait()
        except BaseException:
            delivery.cancel()
            raise
        if delivery.error is not None:
            raise delivery.error
        return results[0]


def _serve(inbox: _Inbox) -> None:
    while True:
        job = inbox.jobs.get()
        if job is None:
            return
        delivery, produce = job
        inbox.running = delivery
        if inbox.closed:
            delivery.cancel()
        delivery.serve(produce)
        inbox.running = None
        # Drop the job before waiting for the next one: it may hold the last reference to the model.
        del job, delivery, produce


def _end(inbox: _Inbox) -> None:
    """End the thread, because its worker was collected or the interpreter exits.

    No request is left in the first case. At exit the running request is cancelled and waited for. A
    daemon thread that comes back from native code after the interpreter is gone may crash the
    process.
    """
    thread = inbox.thread
    if thread.ident is None or inbox.process != os.getpid():
        return
    inbox.closed = True
    running = inbox.running
    if running is not None:
        running.cancel()
    inbox.jobs.put(None)
    if thread is not threading.current_thread():
        thread.join(EXIT_SECONDS)
