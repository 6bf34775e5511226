"""Tells a lack of memory from other failures, whichever library met it.

It imports little, because memory may lack for the import of everything else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pulse_edge.cli.signals import NO_MEMORY
from pulse_edge.errors import EngineError, PulseEdgeError

EXIT_CODE = NO_MEMORY
# Bytes of address space below which Python's own libraries crash instead of raising: numpy needs
# as much with one thread.
LEAST = 200 << 20
NEAR = 256 << 20  # bytes below the limit at which a library's own words may stand for a lack
ADVICE = "close other programs, or allow the process more (ulimit -v)"
# What the dynamic loader, C++, numpy and Python say.
SIGNS = re.compile(
    r"cannot allocate|unable to allocate|out of memory|failed to map segment|bad_alloc"
    r"|cannot create TLS|can't start new thread|pthread_create|resource temporarily unavailable",
    re.IGNORECASE,
)


def limit_of_memory() -> int | None:
    """Most bytes of address space that this process may take; None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def prepare_for_limit() -> None:
    """Take less address space where it is limited, before numpy is imported.

    Raises:
        MemoryError: there is too little to import anything.
    """
    limit = limit_of_memory()
    if limit is None:
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's; one maps some 40 MB a thread
    if limit < LEAST:
        raise MemoryError(f"{limit >> 20} MB of address space are too few, {LEAST >> 20} the least")


def shortage(error: BaseException) -> str | None:
    """What to say if memory was lacking; None if it was not, or if the error says so itself."""
    if isinstance(error, PulseEdgeError) and "memory" in str(error):
        return None
    if any(map(_is_sign, _causes(error))):
        what = f": {error}" if isinstance(error, PulseEdgeError) or error.args else ""
        return f"not enough memory{what}; {ADVICE}"
    if isinstance(error, EngineError | ImportError | SystemError) and _near_limit():
        return f"{error}; perhaps for lack of memory: {ADVICE}"
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether memory was lacking, whoever says so."""
    return "memory" in str(error) or shortage(error) is not None


def _is_sign(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return bool(SIGNS.search(str(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _near_limit() -> bool:
    """Whether the process has taken nearly all the address space that it may."""
    limit = limit_of_memory()
    try:
        peak = int(Path("/proc/self/status").read_text().split("VmPeak:")[1].split()[0]) << 10
    except (OSError, IndexError, ValueError):
        return False
    return limit is not None and peak > limit - NEAR
