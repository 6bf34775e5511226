"""What a request has produced, on its way from the worker's thread to its readers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import TypeVar

from pulse_edge.answer import Answer
from pulse_edge.cancellation import Cancellation, Cancelled, Paused
from pulse_edge.deadline import Alarm, Deadline
from pulse_edge.decode.result import Generation
from pulse_edge.errors import EngineError, PulseEdgeError
from pulse_edge.params import Priority
from pulse_edge.progress import Progress

_T = TypeVar("_T")
# A request's work. A loop yields where other requests may have a step, and returns the answer.
Loop = Generator[None, None, Answer]
Work = Callable[["Delivery"], Answer | Loop | None]
_WAITING: dict[threading.Thread, Delivery] = {}  # what each thread waits for
# What ONNX Runtime, CUDA and C++ say where memory is short, in lower case, with spaces for "_".
_SHORTAGES = ("bad alloc", "failed to allocate", "out of memory")


class Delivery:
    """One request between its readers and the worker that runs it.

    It is an object of its own so that the worker does not keep the `Stream` alive. So a stream that
    is dropped midway (`for … in model.stream(…): break`) cancels its request at once, not at some
    garbage collection.

    Any thread may begin, read or cancel, also a finalizer in the midst of another call here. So no
    method blocks on a lock: a lock is only tried, to decide which thread does a thing, and the
    queues are reentrant.

    Args:
        worker: thread that will run the request, and must not wait for it.
    """

    def __init__(self, worker: threading.Thread) -> None:
        self.out = Generation()
        self.answer: Answer | None = None
        self.read = False  # a reader has seen the end
        self.expired = False  # its deadline has passed
        self.priority: Priority = "interactive"
        self.number = 0  # in the worker's queue, from 1 on
        self.alone = False  # no other request may be under way with it
        self.seconds: float | None = None  # of work that it was predicted to take
        self.prefill_s: float | None = None  # of them before its first token
        self.usual_s: float | None = None  # that the engine's running call usually takes
        self._turn_at: float | None = None  # when its turn came; None while it waits
        self._worked_s = 0.0  # of turns before this one
        self._moved_at = time.monotonic()  # when it last got on
        self.worker = worker
        self._process = os.getpid()
        self._begun = threading.Lock()  # taken by the reader who begins the request
        self._turn = threading.Lock()  # taken by the worker to run it, or by who withdraws it
        self._ended = False
        self._error: BaseException | None = None
        self._work: Work | None = None
        self._loop: Loop | None = None  # of work that has begun
        self._begun_work: Work | None = None  # it holds the model, until everybody knows the end
        self._deadline: Deadline | None = None
        self._alarm: Alarm | None = None
        self._at_deadline: Callable[[], Answer | None] | None = None
        self._unfinished: set[Delivery] = set()  # of the worker
        self._texts: list[str] = []
        self._pieces: SimpleQueue[tuple[int, str] | None] = SimpleQueue()  # None is the end
        self._turns: SimpleQueue[None] = SimpleQueue()
        self._ends: SimpleQueue[None] = SimpleQueue()

    @property
    def cancellation(self) -> Cancellation:
        return self.out.cancellation

    # ---- the readers' side

    @property
    def begun(self) -> bool:
        """Whether a reader has begun the request. Its page may still be prepared."""
        return self._begun.locked()

    @property
    def ended(self) -> bool:
        """Whether nothing will follow."""
        return self._ended

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled it. A request whose deadline has passed is not."""
        return self.cancellation.requested and not self.expired

    def begin(self, start: Callable[[Delivery], None], aside: bool = False) -> None:
        """Begin the request, unless another reader has.

        Args:
            start: prepares the request and queues it, in this thread. What it raises ends the
                request; every reader sees the end, and one gets the error.
            aside: call `start` in a thread of its own, so that a deadline ends the wait for it.
        """
        if not self._begun.acquire(blocking=False):
            return
        if aside:
            name = "pulse-edge preparation"
            work = threading.Thread(target=self._start, args=(start,), name=name, daemon=True)
            try:
                work.start()
            except BaseException as error:
                self.withdraw(error)
        else:
            self._start(start)

    def _start(self, start: Callable[[Delivery], None]) -> None:
        try:
            start(self)
        except Cancelled:
            if self.cancelled:
                self.withdraw()
            else:  # a wait may see that the deadline has passed before the alarm rings
                self.expire()
        except BaseException as error:
            if not self.withdraw(error) and not self.expired:  # it runs already
                self.cancel()
                raise

    def cancel(self) -> None:
        """Stop within one operator of the vision tower or of a prefill, or within one token.

        A request that waits for its turn ends at once. From any thread; waits for nothing. On a GPU
        within one engine call, see `Engine`.
        """
        if not self.read:
            self.cancellation.request()
            self.withdraw()

    def withdraw(self, error: BaseException | None = None) -> bool:
        """End the request before its turn.

        Args:
            error: for a reader to raise.

        Returns:
            False if its turn has come, or it was withdrawn already.
        """
        if not self._turn.acquire(blocking=False):
            return False
        self._work = None
        self._error = error
        self.end()
        return True

    def limit(self, deadline: Deadline, answer: Callable[[], Answer | None]) -> None:
        """End the request when a deadline passes, with what there is of its answer.

        Args:
            deadline: of the request.
            answer: makes the answer of a request whose turn has not come. It is called in any
                thread.
        """
        self._at_deadline = answer
        self._deadline = deadline
        self._alarm = deadline.watch(self.expire)

    def expire(self) -> None:
        """The deadline has passed. From any thread; waits for nothing."""
        self.expired = True
        self.cancellation.request()
        self._expire_waiting()

    def _expire_waiting(self) -> None:
        if self._turn.acquire(blocking=False):
            self._work = None
            self._finish_late()
            self.end()

    def _finish_late(self) -> None:
        try:
            if self._at_deadline is not None:
                self.answer = self._at_deadline()
        except BaseException as error:
            self._error = error

    def wait_for_turn(self, seconds: float | None) -> bool:
        """Wait until the request's turn comes, or it was withdrawn. Raises like `wait`.

        Returns:
            False if that took more than `seconds`.
        """
        try:
            self._get(self._turns, seconds)
        except Empty:
            return False
        return True

    def receive(self) -> tuple[int, str] | None:
        """The next piece of text with its number, or None at the end. Raises like `wait`."""
        piece = self._get(self._pieces)
        self.read = self.read or piece is None
        return piece

    def wait(self) -> None:
        """Wait for the end, without waking for every piece before it.

        Raises:
            PulseEdgeError: it would wait for ever: in a progress callback of the worker that runs
                the request, or of one that this worker waits for, and in a forked child.
        """
        self._get(self._ends)

    def take_error(self) -> BaseException | None:
        """What the request raised, for the first reader who asks."""
        error = self._error
        self._error = None
        return None if error is None else named_shortage(error)

    def _get(self, queue: SimpleQueue[_T], seconds: float | None = None) -> _T:
        thread = threading.current_thread()
        before = _WAITING.get(thread)  # the wait that a finalizer or a signal's handler interrupts
        try:
            # Register before the check: of two workers that begin to wait for each other, one at
            # least then sees the other.
            _WAITING[thread] = self
            self._check_reader(thread)
            return queue.get(timeout=seconds)
        finally:
            if before is None:
                _WAITING.pop(thread, None)
            else:
                _WAITING[thread] = before
            if self._ended:
                self._mark_end()  # for every other reader; Ctrl-C may have lost this mark

    def _check_reader(self, thread: threading.Thread) -> None:
        if self._process != os.getpid():
            raise PulseEdgeError(
                "this process was forked while the answer was under way; "
                "only the parent can read it"
            )
        awaited: Delivery | None = self
        passed: set[Delivery] = set()
        while awaited is not None and awaited not in passed and not awaited._ended:
            if awaited.worker is thread:
                raise PulseEdgeError(
                    "a progress callback waits for the model that calls it, itself or through "
                    "another model's callback; ask after the callback has returned"
                )
            passed.add(awaited)
            awaited = _WAITING.get(awaited.worker)

    # ---- the worker's side

    def enqueue(
        self,
        work: Work,
        worker: threading.Thread,
        unfinished: set[Delivery],
    ) -> None:
        """Join a worker's requests.

        Args:
            work: produces the answer, in the worker's thread.
            worker: the thread.
            unfinished: the worker's requests that have not ended; this one leaves it at its end.
        """
        self.worker = worker
        self._unfinished = unfinished
        self._work = work
        unfinished.add(self)
        if self._turn.locked():  # withdrawn in the meantime
            self._work = None
            unfinished.discard(self)
        elif self.expired:
            self._expire_waiting()

    def take_turn(self) -> bool:
        """Whether the request may run now: nobody has withdrawn it."""
        if not self._turn.acquire(blocking=False):
            return False
        self._turn_at = self._moved_at = time.monotonic()
        self._turns.put(None)
        return True

    @property
    def left_s(self) -> float | None:
        """Predicted seconds of work that are left; None if nothing was predicted."""
        return None if self.seconds is None else max(0.0, self.seconds - self._spent_s)

    @property
    def left_prefill_s(self) -> float:
        """The same of the work before its first token; 0 if nothing was predicted."""
        return max(0.0, (self.prefill_s or 0.0) - self._spent_s)

    @property
    def _spent_s(self) -> float:
        """Seconds of its turns until now."""
        turn_at = self._turn_at
        return self._worked_s + (0.0 if turn_at is None else time.monotonic() - turn_at)

    @property
    def decoding(self) -> bool:
        """Whether it has begun and lets other requests have a step."""
        return self._loop is not None

    def run(self) -> bool:
        """Produce the answer, or go on to the next step. Raises nothing.

        Returns:
            False if it must run again: it is `decoding`, or it has given way to another request.
            Then it can be withdrawn until its next turn, as before its first.
        """
        work = self._work
        self._work = None
        try:
            if self._loop is not None:
                return self._go_on(self._loop)
            self._begun_work = work
            if work is not None and not self.cancellation.requested:
                result = work(self)
                if isinstance(result, Generator):
                    self._loop = result
                    return self._go_on(result)
                self.answer = result
            elif self.expired:
                self._finish_late()
        except Paused:
            self._loop = None
            self._end_turn()
            self._work = self._begun_work
            self._turn.release()
            if self.expired:  # before that, so the alarm could not end it
                self._expire_waiting()
            elif self.cancelled:
                self.withdraw()
            return False
        except BaseException as error:  # also KeyboardInterrupt: a reader raises it
            self._loop = None
            self._error = error
        return True

    def _go_on(self, loop: Loop) -> bool:
        """Run to the loop's next step; True at its end."""
        try:
            next(loop)
        except StopIteration as end:
            self.answer = end.value
            self._loop = None
            return True
        return False

    def _end_turn(self) -> None:
        if self._turn_at is not None:
            self._worked_s += time.monotonic() - self._turn_at
        self._turn_at = None

    def end(self) -> None:
        """Tell everybody that nothing will follow."""
        self._unfinished.discard(self)
        self._ended = True
        self._at_deadline = None
        if self._alarm is not None:
            self._alarm.stop()
        self._mark_end()
        self._begun_work = None

    def _mark_end(self) -> None:
        self._turns.put(None)
        self._pieces.put(None)
        self._ends.put(None)

    def expect(self, seconds: float | None) -> None:
        """A call of the engine begins that usually takes `seconds`; None if nobody knows."""
        self.usual_s = seconds
        self._moved_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since it last got on, before its first token."""
        return time.monotonic() - self._moved_at

    def put(self, piece: str) -> None:
        """Hand a piece of text over. Never waits: an answer is bounded by `max_new_tokens`."""
        self._texts.append(piece)
        self._pieces.put((len(self._texts), piece))
        self._expire_if_late()

    def _expire_if_late(self) -> None:
        """Do not leave it to the alarm, whose thread may wait for this one for some 10 ms."""
        if self._deadline is not None and self._deadline.passed:
            self.expire()

    @property
    def text(self) -> str:
        """What was produced so far, read or not."""
        return "".join(self._texts)

    def progress(self, told: Progress | None) -> Progress:
        """`told`, which also raises `Cancelled` once the request is."""

        def tell(stage: str, done: int, total: int) -> None:
            self._moved_at = time.monotonic()
            self._expire_if_late()
            self.cancellation.check()
            if told:
                told(stage, done, total)
                self.cancellation.check()

        return tell


def named_shortage(error: BaseException) -> BaseException:
    """The error itself, or one that says memory if memory was short."""
    text = str(error)
    plain = text.lower().replace("_", " ")
    short = isinstance(error, EngineError) and any(sign in plain for sign in _SHORTAGES)
    if not short and not isinstance(error, MemoryError):
        return error
    cause = f" ({text})" if text else ""
    return EngineError(
        f"too little free memory for this request{cause}; end other programs, or load the model "
        "with a smaller context"
    )
