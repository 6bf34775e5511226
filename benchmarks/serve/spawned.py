"""A server in a process of its own, for as long as a block runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pulse_edge.errors import PulseEdgeError

COMMAND = "from pulse_edge.cli import main; main()"
READY = "listening on "
ENDING = 10.0  # seconds that a server gets to end


@contextmanager
def spawned_server(
    bundle: str | None, threads: int, queue: int, kept_mib: int = 1024
) -> Iterator[str]:
    """Start `pulse-edge serve` on a free port of loopback, and end it after the block.

    Args:
        bundle: a directory; None for the embedded model.
        threads: of the engine.
        queue: requests that may wait.
        kept_mib: most memory for pages that left the cache.

    Returns:
        The server's address.

    Raises:
        PulseEdgeError: it did not start.
    """
    command = [sys.executable, "-c", COMMAND, "serve", "--port", "0"]
    command += ["--threads", str(threads), "--queue", str(queue)]
    command += ["--kept-mib", str(kept_mib)]
    if bundle is not None:
        command += ["--model", bundle]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(READY):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return line.removeprefix(READY).strip()
    raise PulseEdgeError(f"pulse-edge serve ended with code {process.wait()}; run it by hand")
