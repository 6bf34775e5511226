"""Every program of examples/, run as its docstring says, on the embedded model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))

# Servers, which tests of their own start.
SERVERS = {"ray_serve.py": "tests/serve/test_ray.py"}
# Program -> its arguments, and what its output must hold.
RUNS = {
    "ask_a_page.py": ((), "bpm|beats|rate"),
    "ask_a_recording.py": (("recording.dcm",), "Hz"),
    "chat_about_a_page.py": ((), "prompt tokens reused"),
    "compare_bundles.py": ((), "same"),
    "fhir_report.py": (("--subject", "Patient/17"), "DiagnosticReport"),
    "stream_a_report.py": (("--most", "60"), "characters"),
}

LONGEST = {"fhir_report.py": 130}  # lines of what has a table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pydicom = pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp("examples")
    shutil.copy(pydicom.data.get_testdata_file("waveform_ecg.dcm"), root / "recording.dcm")
    return root


def test_every_program_is_run() -> None:
    assert set(RUNS) | set(SERVERS) == set(PROGRAMS)
    for program, test in SERVERS.items():
        assert program in (ROOT / test).read_text("utf-8")


@pytest.mark.parametrize("program", RUNS)
def test_a_program(program: str, folder: Path) -> None:
    arguments, expected = RUNS[program]
    done = subprocess.run(
        [sys.executable, EXAMPLES / program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert any(word in done.stdout for word in expected.split("|")), done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_short_and_says_how_it_is_run(program: str) -> None:
    text = (EXAMPLES / program).read_text("utf-8")
    assert f"    python examples/{program}" in text
    assert len(text.splitlines()) <= LONGEST.get(program, 50)
