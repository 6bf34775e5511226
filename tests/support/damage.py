"""What the tests of refusals share: changing a configuration, and looking at the message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import CheckpointError
from pulse_export.checkpoint import Checkpoint

from support import tiny


def refused(path: Path) -> str:
    """The message with which a checkpoint is refused: one line of a sensible length."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1200
    return text


def edit(path: Path, file: str = "config.json", **fields: Any) -> None:
    """Change fields of a JSON file; `...` removes one."""
    data = json.loads((path / file).read_text()) | fields
    tiny.write_json(path / file, {k: v for k, v in data.items() if v is not ...})
