"""Settings for training on a CPU; to be imported before torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from pathlib import Path

# OpenMP threads that wait must not spin: the thread that makes batches needs the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@functools.cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; False where the system does not tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast() -> contextlib.AbstractContextManager[object]:
    """bfloat16 matrix products where the CPU has instructions for them; elsewhere they would be
    slower than float32.
    """
    import torch

    if not has_bfloat16():
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[object] = torch.autocast("cpu", torch.bfloat16)
    return context


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of glibc


def keep_memory() -> None:
    """Never give freed memory back to the system: torch asks for the same hundreds of MB at every
    step.

    Without it a step of stage A took 1.4 s instead of 1.1 s where it was measured, the rest went
    into page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_ARENA_MAX, 1)
