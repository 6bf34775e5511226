"""`pulse-edge ask --layouts` and `--known`."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli.ask import ask_command
from pulse_edge.errors import ImageError, ParameterError

from support.dicom_files import dataset, save
from support.paths import DOCS


def ask(bundle: Path, *arguments: str) -> Result:
    common = ("-m", str(bundle), "--max-new-tokens", "4", "--threads", "1")
    return CliRunner().invoke(ask_command, [*arguments, *common])


def test_each_layout_is_asked_and_the_agreement_is_printed(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    recording = str(save(tmp_path / "ecg.dcm", dataset()))
    done = ask(bundle, recording, "--layouts", "6x2,3x4", "--known", "hr=72", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    schema = json.loads((DOCS / "layouts.schema.json").read_text())
    jsonschema.validate(result, schema)
    answers = result["answers"]
    assert list(answers) == ["6x2", "3x4"]
    for layout, answer in answers.items():
        assert answer["provenance"]["image"]["recording"]["layout"] == layout
        assert answer["provenance"]["known"][0]["value"] == 72
        jsonschema.validate(answer, json.loads((DOCS / "answer.schema.json").read_text()))
    assert result["agreement"]["pairs"] == 1
    text = ask(bundle, recording, "--layouts", "3x4,12x1")
    assert text.exit_code == 0, text.output
    assert "of 1 pairs of layouts" in text.stdout
    assert "Agreement is not correctness" in text.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((str(SAMPLE_PAGE), "--layouts", "3x4,6x2"), ParameterError, "an image has one layout"),
        ((str(SAMPLE_PAGE), "--page", "1", "--layouts", "3x4,6x2"), ParameterError, "document"),
        (("none.dcm", "--layouts", "3x4,6x2"), ImageError, "none.dcm: cannot be read"),
        ((str(SAMPLE_PAGE), "--layouts", "3x4"), ParameterError, "at least two of 3x4, 6x2, 12x1"),
        ((str(SAMPLE_PAGE), "--known", "hr=7"), ParameterError, "from 10 to 500 /min"),
        ((str(SAMPLE_PAGE), "--known", "x=7"), ParameterError, "known value 'x' is unknown"),
    ],
)
def test_mistakes_are_refused_before_the_model_loads(
    arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    done = ask(Path("no bundle"), *arguments)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
