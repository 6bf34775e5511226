"""The server's log: a line of JSON for each request, with nothing in it that a client has sent.

No body, text, path, header or name is logged at any level, because all of these may hold a
patient's data. A failure is logged as its type and its place in our code.
"""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("pulse_edge.serve")
# Libraries that describe what they receive, at their own levels.
_TALKATIVE = (
    *("asyncio", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"),
    "python_multipart",
)


def log_event(event: str, **fields: Any) -> None:
    """Log one line of JSON.

    Args:
        event: a word.
        fields: figures and words of ours.
    """
    LOGGER.info("%s", json.dumps({"event": event, **fields}))


def place_of(error: BaseException) -> str:
    """The type of a failure and where it was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
    return " ".join([type(error).__name__, *where])


def quiet_libraries() -> None:
    """Keep what libraries say of requests out of every log."""
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
