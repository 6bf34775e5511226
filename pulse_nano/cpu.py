"""Settings for training on a CPU; to be imported before torch."""

from __future__ import annotations

import ctypes
import os
import sys

# OpenMP threads that wait must not spin: the thread that makes batches needs the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of glibc


def keep_memory() -> None:
    """Never give freed memory back to the system: torch asks for the same hundreds of MB at every step.

    Without it a step of stage A took 1.4 s instead of 1.1 s where it was measured, the rest went into page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_ARENA_MAX, 1)
