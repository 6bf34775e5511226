"""How late a sleeper wakes on this machine: what other work costs every program here.

`python -m benchmarks.deadlines.bystander` sleeps until its input ends, and prints how late it woke.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

NAP_S = 0.01


@contextmanager
def bystander() -> Iterator[list[float]]:
    """A process that sleeps beside the body. Its lateness in seconds is in the list afterwards."""
    lateness: list[float] = []
    command = [sys.executable, "-m", "benchmarks.deadlines.bystander"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sleeper:
        try:
            yield lateness
        finally:
            out, _ = sleeper.communicate()
            lateness.extend(json.loads(out or "[]"))


def sleep_until_input_ends() -> list[float]:
    """Seconds by which each nap was too long."""
    reader = threading.Thread(target=sys.stdin.read, daemon=True)
    reader.start()
    lateness = []
    while reader.is_alive():
        start = time.perf_counter()
        time.sleep(NAP_S)
        lateness.append(time.perf_counter() - start - NAP_S)
    return lateness


if __name__ == "__main__":
    print(json.dumps([round(seconds, 6) for seconds in sleep_until_input_ends()]))
