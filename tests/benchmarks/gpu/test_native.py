"""The item that compares decode steps of two engines, without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.gpu import native
from benchmarks.gpu.emit import parse
from pulse_edge.assets import EMBEDDED
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine


def results_of(output: str) -> list[dict[str, Any]]:
    return [result for line in output.splitlines() if (result := parse(line))]


def test_a_dry_run(tmp_path: Path) -> None:
    """On a CPU there is ONNX Runtime alone."""
    arguments = [str(tmp_path), "--bundle", str(EMBEDDED), "--variant", "int8", "--dry-run"]
    run = CliRunner().invoke(native.main, arguments)
    assert run.exit_code == 0, run.output
    results = results_of(run.output)
    steps = [(r["rows"], r["depth"]) for r in results if r["result"] == "step"]
    assert {rows for rows, _ in steps} == {1, 2, 4, 8}
    assert len({depth for _, depth in steps}) == 2
    assert results[-1] == {"result": "summary", "engines": 1}


def test_engines_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    """Both of ONNX Runtime here: a speedup near 1."""
    bundle = open_bundle(EMBEDDED, check_hashes=False)
    engines = {
        name: open_engine(bundle, EngineOptions(threads=1, context=64))
        for name in (native.BASE, native.NATIVE)
    }
    native.compare(engines, steps=2, rounds=2)
    results = results_of(capsys.readouterr().out)
    speedups = [(r["rows"], r["depth"]) for r in results if r["result"] == "speedup"]
    assert speedups == [(rows, depth) for depth in (0, 56) for rows in (1, 2, 4, 8)]
    assert all(engine.length == 56 for engine in engines.values())


def test_a_bundle_that_the_kernels_cannot_run(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--bundle", str(EMBEDDED), "--variant", "int8"]
    run = CliRunner().invoke(native.main, arguments)
    assert run.exit_code == 0
    (result,) = results_of(run.output)
    assert result["result"] == "skipped"
    assert "the bundle was exported for cpu" in result["reason"]
