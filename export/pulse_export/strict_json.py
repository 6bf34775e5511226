"""JSON of a checkpoint, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pulse_edge.errors import CheckpointError

LARGEST_FILE = 1 << 26  # bytes; the largest real one is a tokenizer.json of some 20 MB


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Args:
        path: the file. A link is followed: Hugging Face's cache consists of links.

    Returns:
        The object.

    Raises:
        CheckpointError: see `parse_json`; or the file cannot be read, or is over `LARGEST_FILE`.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: not a file; put the checkpoint's own {path.name} there")
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise CheckpointError(
                f"{path}: {size} bytes, at most {LARGEST_FILE} are read; get the file again"
            )
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """The object that is the text.

    Args:
        content: UTF-8.
        where: its place, for messages.

    Returns:
        The object.

    Raises:
        CheckpointError: the text is no JSON object; a key stands twice in an object with different
            values; a number is not finite.
    """
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_sound_object)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: expected a JSON object")
    return data


def _sound_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, for `json.loads`, which takes its `ValueError` as invalid JSON."""
    data = dict(pairs)
    for key, value in pairs:
        if not _is_finite(value):
            raise ValueError(f"{key!r:.60} holds a number that is not finite")
        # Readers differ in which of two equal keys they take.
        if data[key] != value:
            raise ValueError(f"{key!r:.60} stands twice with different values, keep one")
    return data


def _is_finite(value: Any) -> bool:
    """Whether a number, or each number of a list, is finite. Objects were checked before."""
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
