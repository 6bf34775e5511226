"""docs/first-ten-minutes.md: every command prints what the page says."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from support.console_page import Example, examples, run, steady
from support.paths import DOCS, ROOT

pytest.importorskip("pydicom", reason="the page asks about a recording")

PAGE = (DOCS / "first-ten-minutes.md").read_text("utf-8")
REDO = "run PYTHONPATH=tests python -m support.console_page docs/first-ten-minutes.md"


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    shown = list(examples(PAGE))
    assert len(shown) >= 10
    for example in shown:
        assert steady(run(example.command, tmp_path)) == steady(example.output), REDO


def test_the_page_has_every_command_of_a_first_use() -> None:
    lines = [example.command for example in examples(PAGE)]
    for command in ("sample", "ask", "draw", "chat", "panel", "info"):
        assert any(f"pulse-edge {command}" in line for line in lines), command


def test_the_installation_is_what_ci_runs() -> None:
    """.ci/run runs the one block of shell commands, in a fresh clone."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    assert "first-ten-minutes.md" in (ROOT / ".ci" / "run").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installs = [line for line in PAGE.splitlines() if "pip install" in line]
    assert any(line in block.splitlines() for line in installs)
    for line in installs:
        (extras,) = re.findall(r"\[([\w,]+)\]", line)
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), line
    wheel = next(word for line in installs for word in shlex.split(line) if ".whl" in word)
    assert wheel.startswith(f"./pulse_edge-{project['version']}-")


@pytest.mark.parametrize(
    ("output", "same"),
    [
        (
            "1.74 s to first token, 92 tokens/s; ended",
            "0.52 s to first token, 1394 tokens/s; ended",
        ),
        ("bundle c9ce83265bcd, onnxruntime 1.32.0", "bundle 5882e2dbca6e, onnxruntime 1.27.0"),
        ("loaded /a/assets/pulse-nano", "loaded /b/c/assets/pulse-nano"),
        (f"seal {'a' * 64}", f"seal {'0' * 64}"),
        ("(margin 10.9)", "(margin 3.0)"),
    ],
)
def test_what_varies_is_no_difference(output: str, same: str) -> None:
    assert steady(output) == steady(same)
    assert steady("The heart rate is 75 bpm.") != steady("The heart rate is 74 bpm.")


def test_commands_and_outputs_are_told_apart() -> None:
    text = "```console\n$ one\n$ two\na\n$b\n```\n```\n$ three\n```\n"
    assert list(examples(text)) == [Example("one", ""), Example("two", "a\n$b\n")]
