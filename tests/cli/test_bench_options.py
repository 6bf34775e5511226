"""Options of `bench` that are empty texts: mistakes, not defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("option", "code"), [("--image", 3), ("--compare", 2), ("--append", 1)])
def test_an_empty_path_is_an_error(bundle: Path, option: str, code: int, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", str(bundle), "--quick", "--threads", "1", option, ""])
    out, err = capsys.readouterr()
    assert caught.value.code == code
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
