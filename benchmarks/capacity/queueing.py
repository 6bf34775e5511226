"""Waiting times by formula: one engine, random arrivals, any service time (M/G/1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.capacity.service import ServiceTime


@dataclass(frozen=True)
class Waiting:
    """A queue that has settled.

    Attributes:
        load: share of time that the engine is busy, under 1.
        wait: mean seconds in the queue.
        late: share of ECGs whose answers are complete after the deadline.
    """

    load: float
    wait: float
    late: float


def waiting(rate: float, service: ServiceTime, deadline: float) -> Waiting:
    """Pollaczek's and Khinchine's mean wait, and an estimate of who is late.

    The mean is exact for Poisson arrivals. The share of late ECGs takes the wait of those that wait
    as exponential (exact for M/M/1; Kingman's heavy-traffic limit for others) and the service at
    its mean.

    Args:
        rate: ECGs a second.
        service: seconds of an ECG.
        deadline: seconds from arrival to the last answer.
    """
    load = rate * service.mean
    if load >= 1:
        return Waiting(load, math.inf, 1.0)
    wait = load * service.mean * (1 + service.variability) / (2 * (1 - load))
    slack = deadline - service.mean
    if slack < 0:
        return Waiting(load, wait, 1.0)
    late = load * math.exp(-slack * load / wait) if wait else 0.0
    return Waiting(load, wait, late)


def most_carts(
    service: ServiceTime, per_hour: float, deadline: float, late: float, peak: float = 1.0
) -> int:
    """The largest number of carts of which at most a share `late` of ECGs misses the deadline.

    Args:
        service: seconds of an ECG.
        per_hour: ECGs of a cart in its busiest hour.
        deadline: seconds.
        late: share that may be late.
        peak: factor on the rate.
    """

    def fits(carts: int) -> bool:
        return waiting(peak * carts * per_hour / 3600, service, deadline).late <= late

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
