"""Whatever ends, waits or forks while a model is in use, nothing hangs. See support/exits.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

from support.exits import CASES, LIMIT

Outcomes = dict[str, tuple[int | None, float, str]]
PRINTED = {
    "exit_while_a_thread_reads": "answered\n",
    "ask_in_an_atexit_handler": "length\n",
    "ask_in_a_late_atexit_handler": 2 * "the interpreter is exiting; ask the model before that\n",
}


@pytest.fixture(scope="module")
def outcomes(bundle: Path) -> Outcomes:
    command = [sys.executable, "-m", "support.exits", str(bundle)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=250, check=True
    )
    found: Outcomes = json.loads(done.stdout)
    return found


def test_no_thread_is_in_numpy_s_unique_at_the_exit() -> None:
    """It gives the interpreter's lock back within C++ that must not be left by an exit."""
    texts = {file: file.read_text() for file in (ROOT / "pulse_edge").rglob("*.py")}
    calls = re.compile(r"np\.unique\((?![^)]*(?:axis|return_))")
    assert [file.name for file, text in texts.items() if calls.search(text)] == []


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_time_and_as_it_should(outcomes: Outcomes, name: str) -> None:
    status, seconds, output = outcomes[name]
    assert (status, output) == (CASES[name][1], PRINTED.get(name, ""))
    assert seconds < LIMIT
