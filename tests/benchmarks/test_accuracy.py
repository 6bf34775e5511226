"""benchmarks/accuracy.py on a tiny checkpoint, and its arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

from benchmarks import accuracy
from benchmarks.report.__main__ import other_tables
from benchmarks.report.__main__ import page as report_page
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.evaluate.scoring import MEAN
from pulse_export.quantize.recipe import Recipe


def test_a_table_of_a_tiny_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """Its answers are noise, but fp32 is nearer to itself than W8A8 is, and the bundles are left to
    be used again.
    """
    command = [str(checkpoint), "--rows", "fp16-standard,w8a8-naive,w8a8,int8-kv8", "--pages", "0",
               "--logit-pages", "1", "--samples", "1", "--keep", str(tmp_path)]  # fmt: skip
    first = CliRunner().invoke(accuracy.main, [*command, "--json"], catch_exceptions=False)
    record = json.loads(first.stdout)
    assert list(record["bundles"]) == ["fp32", "fp16-standard", "w8a8-naive", "w8a8", "int8-kv8"]
    assert "no smoothing" in record["bundles"]["w8a8-naive"]["recipe"]
    assert f"SmoothQuant alpha {Recipe.alpha}" in record["bundles"]["w8a8"]["recipe"]
    logits = record["logits"]
    assert logits["fp16-standard"]["kl_mean"] < logits["w8a8"]["kl_mean"] < 0.05
    assert logits["w8a8"]["positions"] > 1
    seals = {path.name: open_bundle(path).digest for path in tmp_path.iterdir()}
    assert seals == {name: made["seal"] for name, made in record["bundles"].items()}
    table = CliRunner().invoke(accuracy.main, command, catch_exceptions=False).stdout.splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["", "---", *record["bundles"]]
    assert f"{logits['w8a8']['kl_mean']:.2e}" in table[-2]
    assert open_bundle(tmp_path / "int8-kv8").manifest.precision.kv_cache == "int8"


def test_what_is_appended_is_in_the_report(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results" / "accuracy.jsonl")
    command = [str(checkpoint), "--rows", "int4", "--pages", "0", "--logit-pages", "1", "--append"]
    done = CliRunner().invoke(accuracy.main, command, catch_exceptions=False)
    (rows,) = other_tables(tmp_path / "results")
    assert rows[0][0] == "tiny, 1 and 0 pages"
    assert [row[0] for row in rows[1:]] == ["fp32", "int4"]
    assert all(cell in done.stdout for cell in rows[2])
    assert rows[2][2] in report_page({}, [], [rows])


def test_the_gate(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of one page; a line is added to the results, and losing too much is a failure. The tiny
    model's answers are noise, so what it loses is set here.
    """
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results" / "accuracy.jsonl")
    monkeypatch.setattr(accuracy, "points_lost", lambda *_: 0.75)
    command = [
        str(checkpoint),
        "--rows",
        "int8",
        "--pages",
        "1",
        "--logit-pages",
        "0",
        "--workers",
        "1",
        "--append",
    ]
    kept = ["--keep", str(tmp_path / "kept")]
    done = CliRunner().invoke(
        accuracy.main, [*command, *kept, "--fail-over", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "mean of the tasks" in done.stdout
    done = CliRunner().invoke(
        accuracy.main, [*command, *kept, "--fail-over", "0.5"], catch_exceptions=False
    )
    assert done.exit_code == 9
    assert "int8 loses 0.75 points on the mean of the tasks, over 0.5" in done.stderr
    lines = [json.loads(line) for line in accuracy.RESULTS.read_text().splitlines()]
    assert [(r["kind"], r["pages"]) for r in lines] == [("accuracy", 1)] * 2
    assert lines[0]["tasks"].keys() == {"fp32", "int8"}


def test_points_lost() -> None:
    tasks = {"fp32": {MEAN: {"value": 0.5}}, "w8a8": {MEAN: {"value": 0.49}}}
    assert accuracy.points_lost(tasks, "w8a8") == pytest.approx(1)


def test_an_unknown_row() -> None:
    done = CliRunner().invoke(accuracy.main, ["--rows", "w8a8,int3"])
    assert done.exit_code == 2
    assert "unknown row 'int3'; there are fp32, " in done.output


def test_the_comparison_of_logits() -> None:
    expected = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    same = accuracy.compare([expected], [expected])
    assert (same.positions, same.top1, same.kl_mean) == (2, 1.0, 0.0)
    assert same.cosine_min == pytest.approx(1)
    got = accuracy.compare([expected[:1], expected[1:]], [expected[:1], expected[:1]])
    p = 1 / (
        1 + math.exp(-2)
    )  # of the second row's first token; the other distribution gives it 1 / (1 + e)
    kl = p * math.log(p * (1 + math.e)) + (1 - p) * math.log((1 - p) * (1 + math.exp(-1)))
    assert got.kl_mean == pytest.approx(kl / 2, rel=1e-6)
    assert got.top1 == 0.5
    assert got.cosine_mean == pytest.approx(0.5)
    assert got.cosine_min == pytest.approx(0)
