"""Files of keys, and who has one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.serve.keys import Keys, read_keys

KEY = "0123456789abcdef"


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_no_file_lets_everybody_in() -> None:
    keys = read_keys(None)
    assert not keys
    assert keys.admit("")


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"# a\n\n  {KEY}  \r\n{'b' * 16}\n"])
def test_keys_of_a_file(tmp_path: Path, text: str) -> None:
    keys = read_keys(written(tmp_path, text))
    assert keys
    assert keys.admit(f"Bearer {KEY}")
    assert not keys.admit(KEY)
    assert not keys.admit("Bearer # a")
    assert not keys.admit("Bearer")


def test_a_key_does_not_stay_in_memory() -> None:
    keys = Keys((KEY,))
    assert KEY not in repr(vars(keys))


@pytest.mark.parametrize(
    "header", ["Bearer \udcff" + KEY, "Bearer " + "ä" * 16, "Bearer\x00" + KEY]
)
def test_odd_headers(header: str) -> None:
    assert not Keys((KEY,)).admit(header)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only a comment\n", "short\n", f"{KEY} {KEY}\n", "ä" * 16, b"\xff" * 20]
)
def test_files_that_are_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ParameterError, match="keys: "):
        read_keys(written(tmp_path, text))


def test_a_short_key_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as error:
        read_keys(written(tmp_path, "hunter2\n"))
    assert "hunter2" not in str(error.value)
    assert "line 1" in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such file"):
        read_keys(tmp_path / "none")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_everybody_may_write(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="every user may write"):
        read_keys(written(tmp_path, KEY, 0o666))
