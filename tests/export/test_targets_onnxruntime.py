"""Models that a target cannot run are refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="targets need pulse-edge[export]")

import onnx.defs

import pulse_edge
from pulse_edge.errors import ExportError
from pulse_export.checkpoint import Checkpoint
from pulse_export.options import OptionValues
from pulse_export.pipeline import export
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.targets.registry import TARGETS, check_target, get_target

from support import tiny

RUNS = (16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 192, 208, 240, 256)
FAILS = (
    2,
    4,
    6,
    8,
    10,
    12,
    14,
    20,
    24,
    40,
    56,
    72,
    88,
    100,
    104,
    120,
    126,
    130,
    136,
    184,
    200,
    248,
)


def with_heads(path: Path, size: int) -> Path:
    return tiny.make_checkpoint(path, hidden=2 * size, heads=2, kv_heads=1, ffn=64)


@pytest.mark.parametrize("size", [*RUNS, *FAILS, 272, 512, 528])
def test_head_sizes_of_each_target(checkpoint: Path, size: int) -> None:
    spec = Checkpoint(checkpoint).spec
    spec = replace(spec, text=replace(spec.text, head_size=size))
    runs = {name: get_target(name, PRECISIONS["int8"]).misfit(spec) is None for name in TARGETS}
    multiple = size % 16 == 0
    assert runs == {
        "cpu": multiple and size <= 512,
        "cuda": multiple and size <= 256,
        "standard": True,
    }


@pytest.mark.parametrize("options", [{}, {"cache": "int8"}, {"target": "cuda"}])
@pytest.mark.parametrize("size", [8, 24, 100, 104])
def test_a_head_size_is_refused_before_any_work(
    tmp_path: Path, size: int, options: OptionValues
) -> None:
    source = with_heads(tmp_path / "source", size)
    with pytest.raises(ExportError) as caught:
        export(source, tmp_path / "out", **options, progress=lambda total: pytest.fail("began"))
    message = str(caught.value)
    assert f"its attention heads have {size} numbers" in message
    assert "multiples of 16" in message
    assert "--target standard" in message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("size", [16, 80, 112, 272])
def test_head_sizes_that_are_let_pass_answer(tmp_path: Path, size: int) -> None:
    export(with_heads(tmp_path / "source", size), tmp_path / "out", precision="int8")
    model = pulse_edge.load(tmp_path / "out", threads=1)
    page = np.full((60, 60, 3), 255, np.uint8)
    answer = model.ask(page, "Rate?", max_new_tokens=2)
    assert answer.finish_reason in ("length", "stop")


def test_the_rule_is_onnx_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day this fails the rule may go."""
    monkeypatch.setattr("pulse_export.targets.onnxruntime.HEAD_STEP", 2)
    export(with_heads(tmp_path / "source", 24), tmp_path / "out", precision="fp32")
    model = pulse_edge.load(tmp_path / "out", threads=1)
    with pytest.raises(pulse_edge.PulseEdgeError, match="head_size"):
        model.ask(np.full((60, 60, 3), 255, np.uint8), "Rate?", max_new_tokens=2)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "w8a8"])
def test_widths_need_not_be_multiples_of_blocks(tmp_path: Path, precision: str) -> None:
    source = tiny.make_checkpoint(
        tmp_path / "source", hidden=48, heads=3, ffn=7, vision_width=33, vision_heads=3,
        vision_mlp=5,
    )  # fmt: skip
    export(source, tmp_path / "out", precision=precision)
    answer = pulse_edge.load(tmp_path / "out", threads=1).ask(
        np.full((60, 60, 3), 255, np.uint8), "Rate?", max_new_tokens=2
    )
    assert answer.finish_reason in ("length", "stop")


def test_an_onnx_that_cannot_write_the_target(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Checkpoint(checkpoint).spec
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 23)
    check_target(get_target("cpu", PRECISIONS["int8"]), checkpoint, spec)
    with pytest.raises(ExportError, match=r"target standard needs opset 24.*pip install"):
        check_target(get_target("standard", PRECISIONS["int8"]), checkpoint, spec)
