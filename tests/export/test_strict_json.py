"""JSON that two readers could understand differently is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pulse_edge.errors import CheckpointError
from pulse_export.strict_json import LARGEST_FILE, parse_json, read_json


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a": 1, "a": 1}',
        '{"a": {"b": [1, 2.5, null, "ü"]}}',
        '{"model_max_length": 1000000000000000019884624838656}',
    ],
)
def test_sound_objects(text: str) -> None:
    assert parse_json(text.encode(), "x") == json.loads(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice with different values, keep one"),
        (b'{"a": 1, "b": 2, "a": null}', "'a' stands twice"),
        (b'{"x": {"a": 1, "a": "1"}}', "'a' stands twice"),
        (b'{"x": [{"a": [], "a": {}}]}', "'a' stands twice"),
        (b'{"mean": [0.5, NaN]}', "'mean' holds a number that is not finite"),
        (b'{"eps": Infinity}', "'eps' holds"),
        (b'{"eps": -Infinity}', "'eps' holds"),
        (b'{"eps": 1e999}', "'eps' holds"),
        (b'{"a": [[[-1e999]]]}', "'a' holds"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'"a"', "expected a JSON object"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1}}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_ambiguous_and_broken_objects_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_json(content, "config.json")
    assert str(caught.value).startswith("config.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a hole, which takes no room on the disk
    with pytest.raises(CheckpointError, match=f"at most {LARGEST_FILE} are read"):
        read_json(path)


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(CheckpointError, match=f"{name}: not a file"):
            read_json(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "absent")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "config.json").symlink_to("blob")
    assert read_json(tmp_path / "config.json") == {"a": 1}
    (tmp_path / "blob").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "config.json")
