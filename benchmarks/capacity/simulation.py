"""Carts and engines, event by event, to check the formula and to see what it leaves out."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity.service import ServiceTime

HOUR = 3600.0
ARRIVAL, END = 1, 0  # at one time an engine becomes free first
# How a new page finds its engine: by its hash; where the fewest ECGs are; or from one queue for
# all, which no fleet can do that keeps its pages apart: the best there could be.
HASH, SHORTEST, SHARED = "by hash", "shortest queue", "one queue"
PLACES = (HASH, SHORTEST, SHARED)


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        carts: that send ECGs independently of each other.
        per_hour: ECGs of a cart.
        engines: that serve them.
        place: one of `PLACES`.
        rush: factor on the rate in the first quarter of each hour; the rest is slower, so that an
            hour has as many.
        hours: that are simulated.
        seed: of the random numbers.
    """

    carts: int
    per_hour: float
    engines: int = 1
    place: str = HASH
    rush: float = 1.0
    hours: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Simulated:
    """What came of it: seconds of each ECG from its arrival to its last answer."""

    load: float
    wait: float
    late: float
    p50: float
    p99: float
    ecgs: int


def simulate(scenario: Scenario, service: ServiceTime, deadline: float) -> Simulated:
    """Run a scenario. Engines answer in the order of arrival, and never two ECGs at a time.

    Args:
        scenario: see there.
        service: seconds of an ECG.
        deadline: seconds from arrival to the last answer.
    """
    rng = np.random.default_rng(scenario.seed)
    arrivals = _arrivals(scenario, rng)
    seconds = service.draw(len(arrivals), rng)
    engines = scenario.engines
    homes = rng.integers(engines, size=len(arrivals))
    # A queue holds the ECG that its engine is at, too. `SHARED` has one more, for those that wait.
    queues: list[deque[int]] = [deque() for _ in range(engines + 1)]
    events = [(float(time), ARRIVAL, ecg) for ecg, time in enumerate(arrivals)]  # a heap: sorted
    begun = np.zeros(len(arrivals))

    def place(ecg: int) -> int:
        if scenario.place == HASH:
            return int(homes[ecg])
        shortest = min(range(engines), key=lambda engine: len(queues[engine]))
        return engines if scenario.place == SHARED and queues[shortest] else shortest

    def begin(now: float, engine: int) -> None:
        ecg = queues[engine][0]
        begun[ecg] = now
        heapq.heappush(events, (now + float(seconds[ecg]), END, engine))

    while events:
        now, kind, number = heapq.heappop(events)
        if kind == END:
            queues[number].popleft()
            if queues[engines]:
                queues[number].append(queues[engines].popleft())
            if queues[number]:
                begin(now, number)
        else:
            engine = place(number)
            queues[engine].append(number)
            if engine < engines and len(queues[engine]) == 1:
                begin(now, engine)
    waits = begun - arrivals
    whole = waits + seconds
    return Simulated(
        load=float(seconds.sum() / (scenario.hours * HOUR * engines)),
        wait=float(waits.mean()),
        late=float((whole > deadline).mean()),
        p50=float(np.percentile(whole, 50)),
        p99=float(np.percentile(whole, 99)),
        ecgs=len(arrivals),
    )


def _arrivals(scenario: Scenario, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds at which ECGs arrive, in order. Each cart is a Poisson process; so is their sum."""
    if not 1 <= scenario.rush <= 4:
        raise ValueError(f"rush is {scenario.rush}; from 1, no rush, to 4, all in a quarter")
    count = rng.poisson(scenario.carts * scenario.per_hour * scenario.hours)
    times = rng.uniform(0, 1, count)
    early = rng.uniform(0, 1, count) < scenario.rush / 4
    within = np.where(early, times / 4, 0.25 + 0.75 * times)
    hours = rng.integers(scenario.hours, size=count)
    arrivals: NDArray[np.float64] = np.sort((hours + within) * HOUR)
    return arrivals
