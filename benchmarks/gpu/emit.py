"""How an item hands a result to the run that started it: one line of JSON on stdout, at once."""

from __future__ import annotations

import json
import sys
from typing import Any


def emit(result: str, **fields: Any) -> None:
    """Print one result.

    `result` names it within its item; the fields are JSON-ready, units in their names.
    """
    sys.stdout.write(json.dumps({"result": result, **fields}) + "\n")  # at once: threads emit, too
    sys.stdout.flush()


def parse(line: str) -> dict[str, Any] | None:
    """The result that a line of an item's output holds; None where it is something else, which is
    log.
    """
    if not line.startswith('{"result"'):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
