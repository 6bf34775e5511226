"""A loop over the rows of an array, on several cores.

Threads are enough, because numpy's loops release the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pulse_edge.system import usable_cores

# More would only queue for the memory, and each holds temporaries of its own.
WORKERS = min(8, usable_cores())


def over_rows(work: Callable[[slice], object], rows: int, step: int) -> None:
    """`work` for each run of `step` rows, in any order. The parts are the same on every machine."""
    parts = [slice(at, at + step) for at in range(0, rows, step)]
    if len(parts) < 2:  # most of a checkpoint's tensors are small
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(min(WORKERS, len(parts))) as pool:
        list(pool.map(work, parts))  # the list raises what a thread raised
