"""`pulse-edge panel`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.panel import panel_command
from pulse_edge.errors import ParameterError

from support.command import command
from support.paths import DOCS

SCHEMA = json.loads((DOCS / "result.schema.json").read_text())
MINE = """\
schema = "pulse-edge/panel/1"
name = "mine"
title = "Mine"

[[questions]]
id = "rhythm"
ask = "What is the rhythm?"
form = "plain"
options = ["sinus rhythm", "atrial fibrillation"]
replies = ["The rhythm is sinus rhythm.", "The rhythm is atrial fibrillation."]
scored = true

[[questions]]
id = "ecg"
ask = "Is there a myocardial infarction?"
options = ["yes", "no"]

[[questions]]
id = "report"
ask = "Please write a clinical report based on this ECG image."
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(panel_command, [str(argument) for argument in arguments])


def test_people_get_a_table(mine: Path) -> None:
    done = run(SAMPLE_PAGE, "--panel", mine, "--given", "QT interval=380")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("rhythm  sinus rhythm (margin ")
    assert lines[1].startswith("ecg     - (no option: ")
    assert lines[2].startswith("report  Sinus rhythm at 7")
    assert any(line.startswith("stated: sinus rhythm") for line in lines)
    assert any(line.startswith("negated: ") and "ectopic beats" in line for line in lines)
    assert "QT interval: 380 ms (given)" in lines
    assert any(line.startswith("heart rate: 7") and "(model, report)" in line for line in lines)
    assert lines[-2].startswith("[panel mine ")
    assert lines[-1] == NOTICE


def test_programs_get_json(mine: Path) -> None:
    done = run(SAMPLE_PAGE, "--panel", mine, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    jsonschema.validate(result, SCHEMA)
    assert result["panel"]["name"] == "mine"
    assert result["panel"]["questions"][0]["answer"] == "sinus rhythm"
    assert result["panel"]["questions"][1]["answer"] is None


def test_what_is_skipped_is_said(mine: Path) -> None:
    done = run(SAMPLE_PAGE, "--panel", mine, "--deadline", "0.001", "--best-effort")
    assert done.exit_code == 0, done.output
    assert "report  skipped: no time was left" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--panel", "none"), "panel 'none' is neither a file nor one of pulse-nano"),
        (("--given", "rate"), "write it as 'heart rate=72'"),
        (("--given", "heart rate=5"), "must be from 10 to 500 /min"),
        (("--deadline", "0"), "deadline_s is 0.0, but must be"),
        (("--deadline", "nan"), "deadline_s is nan, but must be"),
    ],
)
def test_mistakes_name_the_value(arguments: tuple[str, ...], message: str) -> None:
    done = run(SAMPLE_PAGE, *arguments)
    assert isinstance(done.exception, ParameterError)
    assert message in str(done.exception)


def test_exit_codes_are_those_of_other_commands(mine: Path, tmp_path: Path) -> None:
    done = command("panel", tmp_path / "none.png", "--panel", mine)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    done = command("panel", SAMPLE_PAGE, "--panel", tmp_path)
    assert done.returncode == 2
    assert "not a regular file" in done.stderr
