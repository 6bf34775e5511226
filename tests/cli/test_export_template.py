"""`pulse-edge export --template`: a checkpoint with a foreign chat template, exported anyway."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.export import export_command


def test_a_foreign_template_needs_the_option(checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    (source / "chat_template.jinja").write_text("[INST] {{ m.content }} [/INST]")
    arguments = [str(source), str(tmp_path / "out"), "--precision", "fp32"]
    refused = CliRunner().invoke(export_command, arguments)
    assert refused.exit_code != 0
    assert "--template llava_v1" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(export_command, [*arguments, "--template", "llava_v1"])
    assert done.exit_code == 0, done.output
    assert open_bundle(tmp_path / "out").manifest.model.prompt.name == "llava_v1"


def test_a_template_that_there_is_not(tmp_path: Path) -> None:
    arguments = ["x", str(tmp_path / "out"), "--template", "chatml"]
    done = CliRunner().invoke(export_command, arguments)
    assert done.exit_code == 2
    assert "'chatml' is not" in done.output
    assert "llava_v1" in done.output
