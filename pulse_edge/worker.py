"""The thread that owns an engine. Requests queue for it.

One thread, because CUDA graphs are captured per thread. It starts with the first request, and ends
with its `Worker` or with the interpreter.

On an engine with one slot requests run one after the other. With several slots, as many requests
are under way. One at a time is prefilled, and all others take their decode steps together: between
two pieces of that prefill, and one step after the other while nobody is prefilled.

Interactive requests go before background ones, which begin only while no interactive one is under
way. Within a priority the first to come is the first to run.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from pulse_edge.cancellation import Cancellation
from pulse_edge.delivery import Delivery, Work
from pulse_edge.errors import EngineError, PulseEdgeError, QueueFullError, QueueTimeoutError
from pulse_edge.params import Patience, Priority
from pulse_edge.turns import Inbox, step_together

T = TypeVar("T")
RETRY_SECONDS = 1.0  # after which to try again, if nothing can be predicted
EXIT_SECONDS = 5.0  # that the interpreter's exit waits for a cancelled request to end


class Worker:
    """Runs requests in a thread of its own, in the order in which they were begun.

    Args:
        queue_limit: most requests that wait, beside those under way; None is any number.
        slots: requests that may be under way at the same time.
        share: runs the steps that they offer. It must not refer to this object.

    Attributes:
        closed_message: for who asks too late, or whose request never ran.
    """

    def __init__(
        self,
        queue_limit: int | None = None,
        slots: int = 1,
        share: Callable[[], None] = lambda: None,
    ) -> None:
        self._queue_limit = queue_limit
        self._slots = slots
        self.closed_message = "the interpreter is exiting; ask the model before that"
        self._share = share
        self._count = 0  # of requests that were queued
        self._open()

    def _open(self) -> None:
        self._inbox = Inbox(self._slots, self._share)
        weakref.finalize(self, _end, self._inbox, weakref.ref(self))

    @property
    def thread(self) -> threading.Thread:
        """The thread that runs requests, started or not."""
        return self._inbox.thread

    @property
    def unfinished(self) -> frozenset[Delivery]:
        """The requests that have begun and not ended."""
        return frozenset(self._inbox.unfinished)

    @property
    def running(self) -> Delivery | None:
        """The request whose turn it is. Of several, the one that is prefilled, or the oldest."""
        inbox = self._inbox
        decoding = inbox.decoding
        return inbox.running or (decoding[0] if decoding else None)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        inbox = self._inbox
        return len(inbox.unfinished - inbox.turns)

    @property
    def wanted(self) -> bool:
        """Whether an interactive request waits."""
        return not self._inbox.jobs["interactive"].empty()

    def check_room(self) -> None:
        """Raises `QueueFullError` if the queue is full.

        A request that the idle thread will take, but has not yet taken, does not wait.
        """
        waiting = len(self._inbox.unfinished) - self._slots
        if self._queue_limit is not None and waiting >= self._queue_limit:
            raise QueueFullError(
                f"{waiting} requests wait for the model, which is the limit; ask again later",
                self.wait_s("background") or RETRY_SECONDS,
            )

    def wait_s(self, priority: Priority) -> float | None:
        """Predicted seconds until the turn of a request that would be queued now.

        Returns:
            None if one that would go before it was not predicted.
        """
        inbox = self._inbox
        turns = inbox.turns
        decoding = {*inbox.decoding}
        prefills = 0.0
        ends = [0.0] * self._slots  # of the requests in each slot
        for delivery in sorted(inbox.unfinished, key=lambda d: (d not in turns, d.number)):
            if delivery.priority == "background" != priority and delivery not in turns:
                continue
            left = delivery.left_s
            if left is None:
                return None
            ends[0] += left
            ends.sort()
            if delivery not in decoding:
                prefills += delivery.left_prefill_s
        return max(ends[0], prefills)  # one request at a time is prefilled

    def begin(
        self,
        delivery: Delivery,
        work: Work,
        patience: Patience | None = None,
        priority: Priority = "interactive",
        limited: bool = True,
    ) -> None:
        """Queue a request.

        Args:
            delivery: of the request, which nobody has queued before.
            work: is called in the worker's thread, once the request's turn comes. If it returns a
                loop, other requests may have a step wherever that yields.
            patience: for the wait until then, which is over when this returns. A request that takes
                longer is withdrawn, and its reader gets a `QueueTimeoutError`. None does not wait.
            priority: of the request.
            limited: whether a full queue refuses it.

        Raises:
            QueueFullError: too many requests wait.
            PulseEdgeError: the interpreter is exiting; or in a forked child, if the worker had
                started in the parent: the engine's threads do not survive a fork, and the parent
                may have been in a request.
        """
        inbox = self._inbox_here()
        with inbox.lock:
            if inbox.closed:
                raise PulseEdgeError(self.closed_message)
            if limited:
                self.check_room()
            idle = inbox.has_room(priority)
            inbox.started = True
            self._count += 1
            delivery.number = self._count
            delivery.priority = priority
            delivery.enqueue(work, inbox.thread, inbox.unfinished)
            inbox.put(delivery, priority)
        _start(inbox)
        if patience is not None and not idle and not patience.wait(delivery.wait_for_turn):
            error = patience.exhausted()
            if isinstance(error, QueueTimeoutError):  # a deadline ends the request by itself
                delivery.withdraw(error)

    def close(self) -> None:
        """End all requests and the thread. Later requests are refused. Again is fine.

        Any thread may call it. It waits for the thread, but no longer than `EXIT_SECONDS`: a call
        of the engine may hang.
        """
        inbox = self._inbox
        self.closed_message = "the model is closed; load it again"
        with inbox.lock:
            inbox.closed = True
        for delivery in tuple(inbox.unfinished):
            delivery.cancel()
        if inbox.started and inbox.process == os.getpid():
            inbox.wakes.put(False)
            if inbox.thread is not threading.current_thread():
                inbox.thread.join(EXIT_SECONDS)

    def _inbox_here(self) -> Inbox:
        inbox = self._inbox
        if inbox.process != os.getpid():
            if inbox.started:
                raise PulseEdgeError(
                    "this process was forked from one whose model has answered already; "
                    "load the model in the child, or start processes by 'spawn'"
                )
            self._open()  # another thread of the parent may have held the lock
        return self._inbox

    def call(self, work: Callable[[Cancellation], T]) -> T:
        """Run `work` in the worker's thread, after the requests that were begun; wait for it.

        No other request is under way meanwhile.

        Args:
            work: gets a cancellation, which is requested if the wait is interrupted, as by Ctrl-C.

        Returns:
            What `work` returned.

        Raises:
            PulseEdgeError: as `begin` does.
            BaseException: what `work` raised.
        """
        delivery = Delivery(self.thread)
        delivery.alone = True
        results: list[T] = []
        try:
            self.begin(delivery, lambda o: results.append(work(o.cancellation)), limited=False)
            delivery.wait()
        except BaseException:
            delivery.cancel()
            raise
        error = delivery.take_error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, which would hold it in turn
        if not results:
            raise PulseEdgeError(self.closed_message)
        return results[0]

    def host(self) -> None:
        """Let the requests that decode take a step each, in the midst of another's work."""
        inbox = self._inbox
        if inbox.process == os.getpid() and threading.current_thread() is inbox.thread:
            step_together(inbox)


def _start(inbox: Inbox) -> None:
    """Start the thread, unless it has started. A failure ends the requests that wait for it."""
    if inbox.thread.ident is not None:
        return
    try:
        with inbox.starting:
            if inbox.thread.ident is None:
                inbox.thread.start()
    except (RuntimeError, MemoryError) as error:  # no memory for its stack, a limit, or exit
        inbox.started = False
        problem = f"the model's thread cannot start ({error}); free memory, or allow more threads"
        for delivery in tuple(inbox.unfinished):
            delivery.withdraw(EngineError(problem))


def _end(inbox: Inbox, worker: weakref.ref[Worker]) -> None:
    """End the thread, because its worker was collected or the interpreter exits.

    No request is left in the first case. It may come at any moment in any thread, so it waits for
    nothing. At exit, when the worker still lives, requests under way are cancelled and waited for.
    A daemon thread that comes back from native code after the interpreter is gone may crash the
    process.
    """
    if not inbox.started or inbox.process != os.getpid():
        inbox.closed = True
        return
    inbox.closed = True
    exiting = worker() is not None
    for delivery in inbox.turns if exiting else ():
        delivery.cancel()
    inbox.wakes.put(False)
    if exiting and inbox.thread is not threading.current_thread():
        with suppress(KeyboardInterrupt, RuntimeError):  # Ctrl-C: exit now; or never started
            inbox.thread.join(EXIT_SECONDS)
