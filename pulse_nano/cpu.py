"""Settings for training on a CPU; to be imported before torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# OpenMP threads that wait must not spin: the thread that makes batches needs the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_CPUINFO = Path("/proc/cpuinfo")
HAS_BFLOAT16 = _CPUINFO.exists() and any(flag in _CPUINFO.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def autocast() -> contextlib.AbstractContextManager[object]:
    """bfloat16 matrix products where the CPU has instructions for them; elsewhere they would be slower than float32."""
    import torch

    if not HAS_BFLOAT16:
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of glibc


def keep_memory() -> None:
    """Never give freed memory back to the system: torch asks for the same hundreds of MB at every step.

    Without it a step of stage A took 1.4 s instead of 1.1 s where it was measured, the rest went into page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_ARENA_MAX, 1)
