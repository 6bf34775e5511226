"""The type checker sees the public functions of both import roots as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

pytest.importorskip("mypy", reason="make lint installs it")

CALLS = """\
import pulse_edge
import pulse_export

pulse_export.export("checkpoint", "bundle", precision="int4", block_size=64)
pulse_export.export(1, 2, 3, nonsense=4)
pulse_edge.load("bundle", threads=1).ask("page.png", "Normal?", max_new_tokens=8)
pulse_edge.load("bundle", threds=1)
pulse_edge.load().ask(3, "Normal?")
"""
WRONG = {5: "call-arg", 7: "call-arg", 8: "arg-type"}  # line -> code of an error there


def test_wrong_calls_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "calls.py"
    path.write_text(CALLS)
    options = ["--cache-dir", str(tmp_path / "cache"), "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if "calls.py" in line and "error:" in line]
    lines = {int(line.split(":")[1]) for line in errors}
    assert lines == set(WRONG), done.stdout + done.stderr
    for number, code in WRONG.items():
        assert any(f"calls.py:{number}:" in line and f"[{code}]" in line for line in errors), errors
