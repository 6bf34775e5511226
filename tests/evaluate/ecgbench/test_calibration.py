"""Conversations of every configuration as calibration data of an export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pulse_edge.evaluate.ecgbench.items import CONFIGS
from pulse_edge.evaluate.ecgbench.mini import write_mini

pytest.importorskip("pyarrow")
pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_export.checkpoint import Checkpoint
from pulse_export.quantize.samples import read_samples


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("calibration") / "mini"
    return folder, write_mini(folder, pages=1)


@pytest.mark.parametrize("layout", ["readme", "gem/ecg_bench"])
def test_every_configuration_is_calibration_data(
    layout: str, mini: tuple[Path, dict[str, int]], checkpoint: Path
) -> None:
    folder, counts = mini
    images = folder / layout.split("/")[0] / "images"
    spec = Checkpoint(checkpoint).spec
    drawn = Counter[str]()
    for config in CONFIGS:
        prompts = folder / layout / f"{config}.json"
        if prompts.is_file():
            for sample in read_samples(checkpoint, spec, 100, images, prompts):
                assert Path(sample.name) == images / "simulated" / "00000-0.png"
                drawn[config] += 1
    assert drawn == counts
    assert len(counts) >= 7
