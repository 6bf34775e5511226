"""The thread that owns an engine. Requests queue for it and run one after the other.

One thread, because an engine has one cache, and because CUDA graphs are captured per thread. It
starts with the first request, and ends with its `Worker` or with the interpreter.

Interactive requests go before background ones. Within a priority the first to come is the first to
run.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from pulse_edge.answer import Answer
from pulse_edge.cancellation import Cancellation
from pulse_edge.delivery import Delivery
from pulse_edge.errors import EngineError, PulseEdgeError, QueueFullError, QueueTimeoutError
from pulse_edge.params import PRIORITIES, Patience, Priority

T = TypeVar("T")
RETRY_SECONDS = 1.0  # after which to try again, if nothing can be predicted
EXIT_SECONDS = 5.0  # that the interpreter's exit waits for a cancelled request to end


class _Inbox:
    """The state that the thread shares with its `Worker`.

    The thread holds no reference to the `Worker`, so an idle one can be collected.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.RLock()  # of `Worker.begin`; held for no wait
        self.starting = threading.RLock()  # of the thread
        # A request goes into the queue of its priority, and is counted in `wakes`.
        self.jobs: dict[Priority, SimpleQueue[Delivery]] = {p: SimpleQueue() for p in PRIORITIES}
        self.paused: deque[Delivery] = deque()  # have begun, and go before other background ones
        self.wakes: SimpleQueue[bool] = SimpleQueue()  # False ends the thread
        self.unfinished: set[Delivery] = set()
        self.started = False
        self.running: Delivery | None = None
        self.closed = False  # the interpreter is exiting
        self.thread = threading.Thread(
            target=_serve, args=(self,), name="pulse-edge engine", daemon=True
        )

    def put(self, delivery: Delivery, priority: Priority) -> None:
        self.jobs[priority].put(delivery)
        self.wakes.put(True)

    def pause(self, delivery: Delivery) -> None:
        self.paused.append(delivery)
        self.wakes.put(True)

    def take(self) -> Delivery | None:
        """The next request; waits for one. None ends the thread."""
        if not self.wakes.get():
            return None
        with suppress(Empty):
            return self.jobs["interactive"].get_nowait()
        if self.paused:
            return self.paused.popleft()
        return self.jobs["background"].get_nowait()


class Worker:
    """Runs requests in a thread of its own, in the order in which they were begun.

    Args:
        queue_limit: most requests that wait, beside the one that runs; None is any number.
    """

    def __init__(self, queue_limit: int | None = None) -> None:
        self._queue_limit = queue_limit
        self._open()

    def _open(self) -> None:
        self._inbox = _Inbox()
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
        """The request whose turn it is."""
        return self._inbox.running

    @property
    def wanted(self) -> bool:
        """Whether an interactive request waits."""
        return not self._inbox.jobs["interactive"].empty()

    def check_room(self) -> None:
        """Raises `QueueFullError` if the queue is full."""
        inbox = self._inbox
        running = inbox.running
        waiting = len(inbox.unfinished) - (running is not None and running in inbox.unfinished)
        if self._queue_limit is not None and waiting >= max(1, self._queue_limit):
            raise QueueFullError(
                f"{waiting} requests wait for the model, which is the limit; ask again later",
                self.wait_s("background") or RETRY_SECONDS,
            )

    def wait_s(self, priority: Priority) -> float | None:
        """Predicted seconds until the turn of a request that would be queued now.

        Returns:
            None if one that would go before it was not predicted.
        """
        running = self._inbox.running
        seconds = 0.0
        for delivery in tuple(self._inbox.unfinished):
            if delivery.priority == "background" != priority and delivery is not running:
                continue
            left = delivery.left_s
            if left is None:
                return None
            seconds += left
        return seconds

    def begin(
        self,
        delivery: Delivery,
        work: Callable[[Delivery], Answer | None],
        patience: Patience | None = None,
        priority: Priority = "interactive",
        limited: bool = True,
    ) -> None:
        """Queue a request.

        Args:
            delivery: of the request, which nobody has queued before.
            work: is called in the worker's thread, once the request's turn comes.
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
                raise PulseEdgeError("the interpreter is exiting; ask the model before that")
            if limited:
                self.check_room()
            idle = not inbox.unfinished
            inbox.started = True
            delivery.priority = priority
            delivery.enqueue(work, inbox.thread, inbox.unfinished)
            inbox.put(delivery, priority)
        _start(inbox)
        if patience is not None and not idle and not patience.wait(delivery.wait_for_turn):
            error = patience.exhausted()
            if isinstance(error, QueueTimeoutError):  # a deadline ends the request by itself
                delivery.withdraw(error)

    def _inbox_here(self) -> _Inbox:
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

        Args:
            work: gets a cancellation, which is requested if the wait is interrupted, as by Ctrl-C.

        Returns:
            What `work` returned.

        Raises:
            PulseEdgeError: as `begin` does.
            BaseException: what `work` raised.
        """
        delivery = Delivery(self.thread)
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
            raise PulseEdgeError("the interpreter is exiting; ask the model before that")
        return results[0]


def _start(inbox: _Inbox) -> None:
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


def _serve(inbox: _Inbox) -> None:
    while True:
        delivery = inbox.take()
        if delivery is None:
            return
        if delivery.take_turn():
            inbox.running = delivery
            if inbox.closed:
                delivery.cancel()
            finished = delivery.run()
            if inbox.process != os.getpid():
                return  # a child that a progress callback has forked: nobody asks here
            inbox.running = None
            if finished:
                delivery.end()
            else:
                inbox.pause(delivery)
        del delivery  # before the wait for the next one: its answer may be large


def _end(inbox: _Inbox, worker: weakref.ref[Worker]) -> None:
    """End the thread, because its worker was collected or the interpreter exits.

    No request is left in the first case. It may come at any moment in any thread, so it waits for
    nothing. At exit, when the worker still lives, the running request is cancelled and waited for.
    A daemon thread that comes back from native code after the interpreter is gone may crash the
    process.
    """
    if not inbox.started or inbox.process != os.getpid():
        inbox.closed = True
        return
    inbox.closed = True
    running = inbox.running
    if running is not None:
        running.cancel()
    inbox.wakes.put(False)
    if worker() is not None and inbox.thread is not threading.current_thread():
        with suppress(KeyboardInterrupt, RuntimeError):  # Ctrl-C: exit now; or never started
            inbox.thread.join(EXIT_SECONDS)
