"""Work in a forked child: how it ended, what it printed, what it took."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """A child that has ended.

    Attributes:
        code: its exit code; minus the signal that ended it.
        out: its stdout.
        err: its stderr.
        processor: seconds of the processor, its own children's included.
        memory: bytes at its peak.
        killed: whether it had to be ended.
    """

    code: int
    out: str
    err: str
    processor: float
    memory: int
    killed: bool


def in_child(work: Callable[[], object], folder: Path, seconds: float, silent: bool) -> Ended:
    """Run something in a forked child with `folder` as its directory.

    Args:
        work: what to run; its `SystemExit` is the exit code.
        folder: holds the child's output.
        seconds: after which the child is killed.
        silent: whether that is meant, and not a fault of the child.
    """
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    child = os.fork()
    if child == 0:
        _child(work, folder, out, err)
    killed = False
    end = time.monotonic() + seconds
    status, usage = 0, resource.struct_rusage([0] * 16)
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG if not killed else 0)
        if done:
            break
        if time.monotonic() >= end:
            killed = True
            os.kill(child, signal.SIGKILL)
            with suppress(ProcessLookupError):  # it leads no group yet
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.001)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        out=out.read_text("utf-8", "backslashreplace"),
        err=err.read_text("utf-8", "backslashreplace"),
        processor=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss * 1024,
        killed=killed and not silent,
    )


def _child(work: Callable[[], object], folder: Path, out: Path, err: Path) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(code)
