"""Every command and snippet of the README, run as a user would, on a tiny checkpoint."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pulse_edge.cli import cli

from support import tiny
from support.paths import BIN, PROGRAM, ROOT

README = ROOT / "README.md"
SAMPLE = README.parent / "pulse_edge" / "assets" / "sample.png"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the README takes as given: a checkpoint, a page and a recording."""
    pytest.importorskip("pydicom")
    from fuzz.dicom_files import Form, dicom_file

    tiny.make_checkpoint(tmp_path / "PULSE-7B", dtype="bfloat16", shards=3, context=4096)
    shutil.copy(SAMPLE, tmp_path / "page.png")
    (tmp_path / "recording.dcm").write_bytes(dicom_file(Form(rate=500, seconds=10)))
    return tmp_path


def test_commands_run_in_order(folder: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(lines) >= 10
    for line in lines:
        command, _, comment = line.partition("#")
        program, *arguments = shlex.split(command)
        needs_gpu = "needs a GPU" in comment
        # Hidden, so that a machine that has one gives the same.
        hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if needs_gpu else {}
        done = subprocess.run(
            [BIN / program, *arguments],
            cwd=folder,
            env=os.environ | hidden,
            capture_output=True,
            text=True,
        )
        if needs_gpu:  # here it must say so, not fail anyhow
            assert done.returncode == 6, f"{line}\n{done.stderr}"
            assert done.stderr.count("\n") == 1
        else:
            assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_python_snippets_run(folder: Path) -> None:
    export = [str(PROGRAM), "export", "PULSE-7B", "pulse-int4", "--precision", "int4"]
    subprocess.run(export, cwd=folder, check=True, capture_output=True)
    snippets = blocks("python")
    assert snippets
    for snippet in snippets:
        done = subprocess.run(
            [sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_options_in_the_text_exist() -> None:
    """`--option` in the README is an option of some command."""
    known = {
        o
        for command in cli.commands.values()
        for p in command.params
        for o in (*p.opts, *p.secondary_opts)
    }
    named = set(re.findall(r"--[a-z][a-z-]+", README.read_text("utf-8")))
    assert named <= known | {"--version", "--help"}


def test_every_line_without_a_language_is_set_up() -> None:
    """Blocks that are not run here hold what CI runs: the clone, make, pip, two outlines."""
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    targets = set(re.findall(r"^(\w+):", (README.parent / "Makefile").read_text(), re.M))
    commands = set(cli.commands)
    text = re.sub(r"^```(?:sh|python)\n.*?^```$", "", README.read_text("utf-8"), flags=re.M | re.S)
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
        for line in block.splitlines()
    ]
    assert lines
    for line in lines:
        program, *rest = line.partition("#")[0].split()
        if program == "make":
            assert rest[0] in targets, line
        elif program == "pip":
            named = re.findall(r"\[([\w,]+)\]", line)[0].split(",")
            assert set(named) <= set(extras), line
        elif program == "pulse-edge":
            assert rest[0] in commands, line
        else:
            assert program == "git", line


def test_the_first_screen_says_what_it_is_for() -> None:
    """First what it does, export before ask, then what it is not for; all before any set-up."""
    text = README.read_text("utf-8")
    said = ["pulse-edge export", "pulse-edge ask", "Research use only", "\n## ", "pip install"]
    places = [text.find(part) for part in said]
    assert -1 not in places
    assert places == sorted(places)
    assert text[: places[2]].count("\n") < 25, "it must be on the first screen"
