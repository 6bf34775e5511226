"""`pulse-edge ask --deadline`: in time, or what there is and an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from pulse_edge.cli import cli
from pulse_edge.errors import ParameterError

from support.requests import page


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.fromarray(page()).save(tmp_path / "page.png")
    return str(tmp_path / "page.png")


def run(bundle: Path, image: str, *more: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["ask", image, "-m", str(bundle), *more])
    return done.exit_code, done.stdout, done.stderr


def test_in_time(bundle: Path, image: str) -> None:
    code, out, _ = run(bundle, image, "--deadline", "3600", "--json", "--max-new-tokens", "4")
    assert code == 0
    deadline = json.loads(out)["deadline"]
    assert (deadline["deadline_s"], deadline["met"], deadline["skipped"]) == (3600, True, [])


def test_too_late(bundle: Path, image: str) -> None:
    code, out, err = run(bundle, image, "--deadline", "1e-6", "--best-effort")
    assert code == 13
    assert "ended by deadline" in out
    assert "the deadline of 1e-06 s passed; not finished: decode_image, preprocess" in err
    code, out, _ = run(bundle, image, "--deadline", "1e-6", "--json")
    assert code == 13
    assert json.loads(out)["finish_reason"] == "deadline"


def test_no_deadline(bundle: Path, image: str) -> None:
    done = CliRunner().invoke(cli, ["ask", image, "-m", str(bundle), "--deadline", "0"])
    assert isinstance(done.exception, ParameterError)
    assert str(done.exception) == "deadline_s is 0.0, but must be seconds over 0"
