"""A server's threads share one arena of the C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Threads that are alive at the same time, each with something of its own.
SCRIPT = """
import threading
from pulse_edge.serve.memory import share_one_arena

if {shared}:
    share_one_arena()
ready, go = threading.Barrier(9), threading.Event()
kept = []

def work():
    kept.append([bytes(600 + n) for n in range(2000)])
    ready.wait(60)
    go.wait(60)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait(60)
lines = open("/proc/self/maps").read().splitlines()
go.set()
starts = [int(line.split("-")[0], 16) for line in lines if len(line.split()) == 5]
print(sum(start % (64 << 20) == 0 for start in starts))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32,
    reason="arenas are glibc's, and 64 MiB each in a 64-bit process",
)
def test_threads_share_one_arena() -> None:
    def arenas(shared: bool) -> int:
        command = [sys.executable, "-c", SCRIPT.format(shared=shared)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return int(done.stdout)

    assert arenas(shared=True) == 0
    assert arenas(shared=False) > 0
