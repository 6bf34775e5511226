"""Tells systemd that the service is ready and still gets on (sd_notify(3)); silent elsewhere.

A hanging GPU call cannot be ended from within the process. systemd's watchdog ends the process,
because the sign of life stops.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

LEAST_SECONDS = 1.0


def notify(state: str) -> None:
    """Send a state, such as `READY=1`, if systemd has started this process.

    Args:
        state: see sd_notify(3).
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path or not hasattr(socket, "AF_UNIX"):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall(state.encode())


def watchdog_seconds() -> float | None:
    """Seconds between two signs of life that systemd asks for; None if it asks for none."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if not wanted.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return max(LEAST_SECONDS, int(wanted) / 1e6 / 2)
