"""Whose turn it is: requests that wait for an engine's thread, and those that are under way."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

from pulse_edge.delivery import Delivery
from pulse_edge.params import PRIORITIES, Priority


class Inbox:
    """The state that an engine's thread shares with its `Worker`.

    The thread holds no reference to the `Worker`, so an idle one can be collected.

    Args:
        slots: requests that may be under way at the same time.
        share: runs the decode steps that they offer.
    """

    def __init__(self, slots: int, share: Callable[[], None]) -> None:
        self.slots = slots
        self.share = share
        self.process = os.getpid()
        self.lock = threading.RLock()  # of `Worker.begin`; held for no wait
        self.starting = threading.RLock()  # of the thread
        # A request goes into the queue of its priority, and is counted in `wakes`. One that has
        # paused needs no wake: the thread that paused it looks there before it waits.
        self.jobs: dict[Priority, SimpleQueue[Delivery]] = {p: SimpleQueue() for p in PRIORITIES}
        self.paused: deque[Delivery] = deque()  # have begun, and go before other background ones
        self.wakes: SimpleQueue[bool] = SimpleQueue()  # False ends the thread
        self.unfinished: set[Delivery] = set()
        self.started = False
        self.running: Delivery | None = None  # its turn has just come, or is being prefilled
        self.decoding: tuple[Delivery, ...] = ()  # wait for their next step
        self.held: Delivery | None = None  # waits until no other request is under way
        self.ending = False
        self.closed = False  # the interpreter is exiting
        self.thread = threading.Thread(
            target=serve_requests, args=(self,), name="pulse-edge engine", daemon=True
        )

    @property
    def turns(self) -> set[Delivery]:
        """The requests whose turn it is."""
        running = self.running
        return {*self.decoding} if running is None else {*self.decoding, running}

    def has_room(self, priority: Priority) -> bool:
        """Whether the turn of a request that comes now comes at once."""
        decoding = self.decoding
        if len(decoding) >= self.slots or not self.unfinished <= {*decoding}:
            return False
        return priority == "interactive" or not _interactive(decoding)

    def put(self, delivery: Delivery, priority: Priority) -> None:
        self.jobs[priority].put(delivery)
        self.wakes.put(True)

    def take(self) -> Delivery | None:
        """The next request that may begin; waits for one if none is under way.

        Returns:
            None if none may begin now, or the thread has to end.
        """
        while True:
            delivery = self._next()
            if delivery is not None or self.decoding or self.ending:
                return delivery
            self.ending = not self.wakes.get()

    def _next(self) -> Delivery | None:
        delivery = self.held or self._pop()
        if delivery is not None and delivery.alone and self.decoding:
            self.held = delivery
            return None
        self.held = None
        return delivery

    def _pop(self) -> Delivery | None:
        if len(self.decoding) >= self.slots:
            return None
        delivery: Delivery | None = None
        with suppress(Empty):
            delivery = self.jobs["interactive"].get_nowait()
        if delivery is None and not _interactive(self.decoding):
            if self.paused:
                delivery = self.paused.popleft()
            else:
                with suppress(Empty):
                    delivery = self.jobs["background"].get_nowait()
        if delivery is not None:
            with suppress(Empty):
                self.ending = not self.wakes.get_nowait() or self.ending
        return delivery


def serve_requests(inbox: Inbox) -> None:
    """Run requests in the thread that calls, until it has to end."""
    while True:
        delivery = inbox.take()
        if delivery is None and not inbox.decoding:
            return
        if delivery is not None and delivery.take_turn():
            _begin_turn(inbox, delivery)
        del delivery  # before the wait for the next one: its answer may be large
        step_together(inbox)
        if inbox.process != os.getpid():
            return  # a child that a progress callback has forked: nobody asks here


def _begin_turn(inbox: Inbox, delivery: Delivery) -> None:
    """Run a request whose turn has come until it decodes, ends or gives way."""
    inbox.running = delivery
    if inbox.closed:
        delivery.cancel()
    finished = delivery.run()
    if inbox.process != os.getpid():
        return
    if delivery.decoding:
        inbox.decoding = (*inbox.decoding, delivery)
    inbox.running = None
    if finished:
        delivery.end()
    elif not delivery.decoding:
        inbox.paused.append(delivery)


def step_together(inbox: Inbox) -> None:
    """One step of every request that decodes."""
    if not inbox.decoding:
        return
    inbox.share()
    for delivery in inbox.decoding:
        if inbox.closed:
            delivery.cancel()
        finished = delivery.run()
        if inbox.process != os.getpid():
            return
        if finished:
            inbox.decoding = tuple(other for other in inbox.decoding if other is not delivery)
            delivery.end()


def _interactive(deliveries: Iterable[Delivery]) -> bool:
    return any(delivery.priority == "interactive" for delivery in deliveries)
