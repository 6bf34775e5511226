"""Open and closed loops.

An open loop sends at random times whatever the server does, as carts do. Its latencies count from
the time at which a request was due, so that a slow server does not hide the requests that it held
up. A closed loop has a number of clients, each of which waits for its answer before it asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import numpy as np

from benchmarks.serve.client import Outcome, gather_outcomes, send
from benchmarks.serve.workload import PlannedRequest

Told = Callable[[int], object]  # gets the number of requests that have ended since the last call


@dataclass(frozen=True)
class LoopRun:
    """Outcomes of a run, and the seconds that it took."""

    outcomes: list[Outcome]
    seconds: float


def arrival_times(rate: float, count: int, seed: int) -> list[float]:
    """Seconds of `count` arrivals of a Poisson process with `rate` arrivals a second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


async def open_loop(
    client: httpx.AsyncClient,
    requests: Iterator[PlannedRequest],
    times: list[float],
    told: Told = lambda _: None,
) -> LoopRun:
    """Send a request at each of `times`, and wait for all answers.

    Args:
        client: see `open_client`.
        requests: of a workload. They are made before the first is sent.
        times: seconds after the start, in order.
        told: hears of each request that ends.
    """
    planned = [next(requests) for _ in times]
    start = time.perf_counter()

    async def one(request: PlannedRequest, due: float) -> Outcome:
        outcome = await send(client, request, start, due)
        told(1)
        return outcome

    tasks: list[asyncio.Task[Outcome]] = []
    for request, due in zip(planned, times, strict=True):
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request, due)))
    outcomes = await gather_outcomes(tasks)
    return LoopRun(outcomes, time.perf_counter() - start)


async def closed_loop(
    client: httpx.AsyncClient,
    requests: Iterator[PlannedRequest],
    clients: int,
    count: int,
    told: Told = lambda _: None,
) -> LoopRun:
    """Let `clients` ask one question after the other, `count` in all.

    Args:
        client: see `open_client`; all share it.
        requests: of a workload, taken in turn. They are made before the first is sent.
        clients: that ask at a time.
        count: of requests.
        told: hears of each request that ends.
    """
    waiting = iter([next(requests) for _ in range(count)])
    start = time.perf_counter()

    async def one() -> list[Outcome]:
        outcomes = []
        for request in waiting:
            due = time.perf_counter() - start
            outcomes.append(await send(client, request, start, due))
            told(1)
        return outcomes

    parts = await asyncio.gather(*(one() for _ in range(clients)))
    return LoopRun([o for part in parts for o in part], time.perf_counter() - start)
