"""`pulse-edge verify --engine`, as the other commands have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.cli import cli
from pulse_edge.errors import EngineError, ParameterError

pytest.importorskip("onnx", reason="verify --against needs pulse-edge[export]")


def verify(bundle: Path, checkpoint: Path, engine: str) -> str:
    arguments = ["verify", bundle, "--against", checkpoint, "--tokens", 2, "--engine", engine]
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_an_engine_that_runs_the_bundle(bundle: Path, checkpoint: Path) -> None:
    assert "PASSED (fp32)" in verify(bundle, checkpoint, "onnxruntime")


def test_an_engine_that_does_not(bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(EngineError, match="which engine tensorrt does not run"):
        verify(bundle, checkpoint, "tensorrt")


def test_an_engine_that_nobody_knows(bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(ParameterError, match="engine 'steam' is not one of auto"):
        verify(bundle, checkpoint, "steam")
