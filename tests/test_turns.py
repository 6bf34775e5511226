"""Requests that are under way at the same time, with work of their own and without a model."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pulse_edge.cancellation import Cancellation, Paused
from pulse_edge.delivery import Delivery
from pulse_edge.errors import EngineError, QueueFullError, QueueTimeoutError
from pulse_edge.params import Patience, Priority
from pulse_edge.turns import Inbox
from pulse_edge.worker import Worker

from support.requests import settled

PATIENCE = 60  # seconds


class Table:
    """A worker whose requests note their steps, and a hold on its thread.

    Attributes:
        log: names of the requests that have begun (`+`), stepped and ended (`-`), in order.
    """

    def __init__(self, slots: int, limit: int | None = None) -> None:
        self.log: list[str] = []
        self.shares: list[int] = []  # requests under way at each common step
        self.most = 0
        self._under_way: set[str] = set()
        shares = self.shares
        under_way = self._under_way
        self.worker = Worker(limit, slots, lambda: shares.append(len(under_way)))
        self._may = threading.Event()

    def hold(self) -> None:
        """Occupy the thread until `go`."""
        begun = threading.Event()

        def wait(_: Cancellation) -> None:
            begun.set()
            assert self._may.wait(PATIENCE)

        threading.Thread(target=lambda: self.worker.call(wait), daemon=True).start()
        assert begun.wait(PATIENCE)

    def go(self) -> None:
        self._may.set()

    def ask(
        self, name: str, steps: int, priority: Priority = "interactive", **options: Any
    ) -> Delivery:
        """Queue a request that takes so many steps after its beginning."""
        delivery = Delivery(self.worker.thread)
        self.worker.begin(
            delivery, lambda own: self._loop(name, steps, own), priority=priority, **options
        )
        return delivery

    def _loop(self, name: str, steps: int, own: Delivery) -> Generator[None, None, Any]:
        self._under_way.add(name)
        self.most = max(self.most, len(self._under_way))
        self.log.append(f"+{name}")
        try:
            for _ in range(steps):
                yield
                if own.cancellation.requested:
                    self.log.append(f"x{name}")
                    return None
                self.log.append(name)
            self.log.append(f"-{name}")
            return name
        finally:
            self._under_way.discard(name)

    def finish(self, *deliveries: Delivery) -> str:
        """The log once these have ended."""
        self.go()
        for delivery in deliveries:
            delivery.wait()
        assert settled(self.worker)
        return " ".join(self.log)


def result(delivery: Delivery) -> Any:
    """What its work returned."""
    return delivery.answer


def test_two_requests_step_in_turn() -> None:
    table = Table(2)
    table.hold()
    first, second = table.ask("a", 3), table.ask("b", 2)
    # a begins and takes a step before b begins
    assert table.finish(first, second) == "+a a +b a b a -a b -b"
    assert (result(first), result(second)) == ("a", "b")


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_no_more_requests_than_slots(slots: int) -> None:
    table = Table(slots)
    table.hold()
    deliveries = [table.ask(f"r{number}", 10) for number in range(7)]
    table.finish(*deliveries)
    assert table.most == min(slots, 7)
    starts = [entry for entry in table.log if entry.startswith("+")]
    assert starts == [f"+r{number}" for number in range(7)]


def test_with_one_slot_they_run_one_after_the_other() -> None:
    table = Table(1)
    table.hold()
    deliveries = [table.ask(name, 2) for name in "abc"]
    assert table.finish(*deliveries) == "+a a a -a +b b b -b +c c c -c"


def test_work_without_a_loop_runs_whole_between_steps() -> None:
    table = Table(2)
    table.hold()
    first = table.ask("a", 3)
    plain = Delivery(table.worker.thread)
    table.worker.begin(plain, lambda own: table.log.append("plain"))
    assert table.finish(first, plain) == "+a a plain a a -a"


def test_a_call_runs_while_nobody_else_is_under_way() -> None:
    table = Table(3)
    table.hold()
    deliveries = [table.ask("a", 3), table.ask("b", 2)]
    caller = threading.Thread(target=lambda: table.worker.call(lambda _: table.log.append("call")))
    before = len(table.worker.unfinished)
    caller.start()
    while len(table.worker.unfinished) == before:
        time.sleep(0.001)
    deliveries.append(table.ask("c", 1))
    log = table.finish(*deliveries)
    caller.join(PATIENCE)
    assert log == "+a a +b a b a -a b -b call +c c -c"


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_a_cancelled_request_ends_at_its_next_step(which: str) -> None:
    table = Table(3)
    table.hold()
    deliveries = {name: table.ask(name, 10**9) for name in "abc"}
    table.go()
    while table.log.count("c") < 5:
        time.sleep(0.001)
    deliveries[which].cancel()
    deliveries[which].wait()
    assert table.log.count(f"x{which}") == 1
    for delivery in deliveries.values():
        delivery.cancel()
        delivery.wait()
    assert settled(table.worker)
    assert table.worker.running is None


def test_an_error_of_one_leaves_the_others() -> None:
    table = Table(3)
    table.hold()

    def fails(own: Delivery) -> Generator[None, None, Any]:
        yield
        raise EngineError("of one")

    first = table.ask("a", 3)
    failing = Delivery(table.worker.thread)
    table.worker.begin(failing, fails)
    last = table.ask("b", 2)
    table.finish(first, failing, last)
    assert (result(first), result(last), result(failing)) == ("a", "b", None)
    assert str(failing.take_error()) == "of one"
    assert first.take_error() is None


def test_background_requests_begin_while_no_interactive_one_is_under_way() -> None:
    table = Table(2)
    table.hold()
    deliveries = [table.ask("b", 1, "background"), table.ask("i", 2), table.ask("j", 3)]
    assert table.finish(*deliveries) == "+i i +j i -i j j j -j +b b -b"


def test_an_interactive_request_joins_background_ones() -> None:
    table = Table(2)
    background = table.ask("b", 100_000, "background")
    while "b" not in table.log:
        time.sleep(0.001)
    interactive = table.ask("i", 2)
    interactive.wait()
    assert table.log.count("i") == 2
    assert not background.ended
    background.cancel()
    background.wait()


def test_what_gives_way_goes_on_later() -> None:
    table = Table(2)
    tries: list[int] = []

    def gives_way(own: Delivery) -> Generator[None, None, Any]:
        tries.append(1)
        table.log.append("try")
        if len(tries) == 1:
            raise Paused
        yield
        table.log.append("-p")
        return "p"

    table.hold()
    paused = Delivery(table.worker.thread)
    table.worker.begin(paused, gives_way, priority="background")
    other = table.ask("b", 1, "background")
    assert table.finish(paused, other) == "try try -p +b b -b"
    assert result(paused) == "p"


def test_others_step_in_the_midst_of_a_beginning() -> None:
    """As between two pieces of a prefill."""
    table = Table(2)
    table.hold()

    def prefills(own: Delivery) -> Generator[None, None, Any]:
        for piece in range(3):
            if piece:
                table.worker.host()
            table.log.append(f"piece{piece}")
        yield
        table.log.append("-p")
        return "p"

    first = table.ask("a", 5)
    second = Delivery(table.worker.thread)
    table.worker.begin(second, prefills)
    log = table.finish(first, second)
    assert log == "+a a piece0 a piece1 a piece2 a -p a -a"


def test_another_thread_cannot_step() -> None:
    table = Table(2)
    table.hold()
    first = table.ask("a", 2)
    table.worker.host()
    assert table.log == []
    assert table.finish(first) == "+a a a -a"


def under_way(table: Table, *steps: int, priority: Priority = "interactive") -> list[Delivery]:
    """Requests that decode."""
    deliveries = []
    for number, count in enumerate(steps):
        name = f"u{number}"
        deliveries.append(table.ask(name, count, priority))
        while f"+{name}" not in table.log or table.worker.waiting:
            time.sleep(0.001)
        while deliveries[-1] is table.worker.running and len(deliveries) > 1:
            time.sleep(0.001)
    return deliveries


@pytest.mark.parametrize(("slots", "limit"), [(1, 1), (1, 3), (2, 2), (3, 1), (2, 5)])
def test_a_full_queue_counts_who_waits(slots: int, limit: int) -> None:
    table = Table(slots, limit)
    others = under_way(table, *[10**9] * slots)
    waiting = [table.ask(f"r{number}", 1) for number in range(limit)]
    assert table.worker.waiting == limit
    with pytest.raises(QueueFullError, match=f"{limit} requests wait"):
        table.ask("more", 1)
    for delivery in others:
        delivery.cancel()
    table.finish(*waiting)


@pytest.mark.parametrize(
    ("slots", "running", "begins"), [(1, 1, False), (2, 1, True), (2, 2, False), (4, 3, True)]
)
def test_who_does_not_wait_begins_if_a_slot_is_free(slots: int, running: int, begins: bool) -> None:
    table = Table(slots)
    others = under_way(table, *[10**9] * running)
    hurry = table.ask("h", 1, patience=Patience(0))
    hurry.wait()
    error = hurry.take_error()
    if begins:
        assert (result(hurry), error) == ("h", None)
    else:
        assert isinstance(error, QueueTimeoutError)
    for delivery in others:
        delivery.cancel()
        delivery.wait()


def test_a_background_request_that_does_not_wait_lets_interactive_ones_be() -> None:
    table = Table(2)
    (other,) = under_way(table, 10**9)
    hurry = table.ask("h", 1, "background", patience=Patience(0))
    hurry.wait()
    assert isinstance(hurry.take_error(), QueueTimeoutError)
    other.cancel()
    other.wait()


@pytest.mark.parametrize(
    ("slots", "seconds", "wait"),
    [
        (1, [], 0), (1, [3], 3), (1, [3, 4], 7), (2, [3], 0), (2, [3, 4], 3), (2, [3, 4, 5], 4),
        (3, [9, 1, 1], 1), (3, [9, 1, 1, 1, 1], 2), (4, [1, 2, 3], 0),
    ],
)  # fmt: skip
def test_the_wait_for_a_slot(slots: int, seconds: list[float], wait: float) -> None:
    table = Table(slots)
    table.hold()
    deliveries = []
    for number, each in enumerate(seconds):
        delivery = Delivery(table.worker.thread)
        delivery.seconds = each
        table.worker.begin(delivery, lambda own: None)
        deliveries.append(delivery)
        assert number < 9
    held = next(d for d in table.worker.unfinished if d.seconds is None)
    held.seconds = 0.0
    assert table.worker.wait_s("interactive") == pytest.approx(wait, abs=0.01)
    table.finish(*deliveries)


class Lasting:
    """Requests that decode until they may end."""

    def __init__(self, slots: int) -> None:
        self.table = Table(slots)
        self._may = threading.Event()
        self._deliveries: list[Delivery] = []

    def queue(self, seconds: float, priority: Priority) -> Delivery:
        """A request that is predicted to take so long."""
        delivery = Delivery(self.table.worker.thread)
        delivery.seconds = seconds
        self.table.worker.begin(delivery, lambda own: self._steps(), priority=priority)
        self._deliveries.append(delivery)
        return delivery

    def _steps(self) -> Generator[None, None, Any]:
        while not self._may.wait(0.001):
            yield

    def end(self) -> None:
        self._may.set()
        self.table.finish(*self._deliveries)


def decoding(*deliveries: Delivery) -> bool:
    """Whether they all decode, after a while."""
    limit = time.monotonic() + PATIENCE
    while not all(delivery.decoding for delivery in deliveries) and time.monotonic() < limit:
        time.sleep(0.001)
    return all(delivery.decoding for delivery in deliveries)


def test_interactive_requests_do_not_wait_for_background_ones_that_have_not_begun() -> None:
    lasting = Lasting(1)
    assert decoding(lasting.queue(1000, "background"))
    lasting.queue(2000, "background")
    lasting.queue(500, "interactive")
    wait_s = lasting.table.worker.wait_s
    assert wait_s("interactive") == pytest.approx(1000 + 500, abs=60)
    assert wait_s("background") == pytest.approx(1000 + 2000 + 500, abs=60)
    lasting.end()


def test_who_has_a_turn_is_before_who_came_earlier() -> None:
    """Two requests of 4000 s have the two slots, so the next turn is after one of them; the 8000 s
    of the background request that came first and waits are in the other slot then."""
    lasting = Lasting(2)
    lasting.table.hold()
    lasting.queue(8000, "background")
    later = [lasting.queue(4000, "interactive") for _ in range(2)]
    lasting.table.go()
    assert decoding(*later)
    assert lasting.table.worker.wait_s("background") == pytest.approx(4000, abs=60)
    lasting.end()


def test_one_request_at_a_time_is_prefilled_so_free_slots_wait_for_it() -> None:
    table = Table(4)
    table.hold()
    deliveries = []
    for _ in range(3):
        delivery = Delivery(table.worker.thread)
        delivery.seconds = 10.0
        delivery.prefill_s = 4.0
        table.worker.begin(delivery, lambda own: None)
        deliveries.append(delivery)
    held = next(d for d in table.worker.unfinished if d.seconds is None)
    held.seconds = 0.0
    assert table.worker.wait_s("interactive") == pytest.approx(12, abs=0.01)
    table.finish(*deliveries)


@pytest.mark.parametrize(
    ("waits", "decodes", "interactive", "background"),
    [
        ([], [], True, True),
        ([], ["background"], True, True),
        ([], ["interactive"], True, False),
        ([], ["background", "interactive"], False, False),
        (["background"], [], False, False),
        (["interactive"], ["background"], False, False),
    ],
)
def test_whose_turn_comes_at_once_with_two_slots(
    waits: list[Priority], decodes: list[Priority], interactive: bool, background: bool
) -> None:
    def requests(priorities: list[Priority]) -> tuple[Delivery, ...]:
        deliveries = tuple(Delivery(threading.Thread()) for _ in priorities)
        for delivery, priority in zip(deliveries, priorities, strict=True):
            delivery.priority = priority
        return deliveries

    inbox = Inbox(2, lambda: None)
    inbox.decoding = requests(decodes)
    inbox.unfinished = {*inbox.decoding, *requests(waits)}
    assert inbox.turns == {*inbox.decoding}
    assert inbox.has_room("interactive") is interactive
    assert inbox.has_room("background") is background


def test_the_request_that_is_prefilled_has_its_turn_too() -> None:
    decoding, running, waiting = (Delivery(threading.Thread()) for _ in range(3))
    inbox = Inbox(3, lambda: None)
    inbox.decoding = (decoding,)
    inbox.running = running
    inbox.unfinished = {decoding, running, waiting}
    assert inbox.turns == {decoding, running}


@pytest.mark.parametrize("seed", range(20))
def test_every_request_ends_whatever_the_order(seed: int) -> None:
    rng = random.Random(seed)
    table = Table(rng.randrange(1, 5))
    deliveries: dict[str, Delivery] = {}
    actions: list[Callable[[], object]] = []
    for number in range(12):
        name = f"r{number}"
        steps, priority = rng.randrange(6), rng.choice(("interactive", "background"))

        def ask(name: str = name, steps: int = steps, priority: Any = priority) -> None:
            deliveries[name] = table.ask(name, steps, priority)

        actions.append(ask)
        if rng.random() < 0.3:
            actions.append(lambda name=name: deliveries[name].cancel())  # type: ignore[misc]
        if rng.random() < 0.1:
            actions.append(lambda: table.worker.call(lambda _: None))
    for action in actions:
        action()
    for name, delivery in deliveries.items():
        delivery.wait()
        assert delivery.ended
        assert result(delivery) == name or delivery.cancelled
    assert settled(table.worker)
    assert table.worker.running is None
