"""The synthetic checkpoint: sizes, names, options, memory."""

from __future__ import annotations

import json
import math
import os
import re
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from benchmarks import synthetic
from pulse_edge.assets import RATE_QUESTION, SAMPLE_PAGE
from pulse_edge.errors import CheckpointError

from support import tiny
from support.scripts import SMALL, run_script, size_arguments


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "small"
    done = run_script("synthetic", out, *size_arguments(**SMALL), "--shard-size", 100_000)
    assert done.returncode == 0, done.stderr
    assert "RANDOM weights" in done.stdout
    return out


def test_sizes_of_pulse_7b() -> None:
    """14.13 GB in three shards, as published; a slice has the same width."""
    shapes = dict(synthetic.tensors(synthetic.Sizes()))
    assert 2 * sum(map(math.prod, shapes.values())) == 14_125_813_760
    assert len(list(synthetic.split_shards(synthetic.Sizes(), synthetic.SHARD))) == 3
    assert shapes["model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
    assert shapes["model.mm_projector.0.weight"] == (4096, 1024)
    tower = "model.vision_tower.vision_tower.vision_model"
    assert shapes[f"{tower}.embeddings.position_embedding.weight"] == (577, 1024)
    assert f"{tower}.encoder.layers.23.mlp.fc2.bias" in shapes
    part = dict(synthetic.tensors(synthetic.Sizes(layers=4)))
    assert {n: s for n, s in shapes.items() if n in part} == part
    assert shapes.keys() - part.keys() == {
        n for n in shapes if (m := re.match(r"model\.layers\.(\d+)", n)) and int(m[1]) > 3
    }


def hollow(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file of bfloat16 zeros: the header is written, the tensors are a hole."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


def test_the_export_knows_every_name_and_shape_of_the_full_size(tmp_path: Path) -> None:
    """The checkpoint opens, though its weights are a hole in a file that takes no space."""
    from pulse_export.checkpoint import Checkpoint

    sizes = synthetic.Sizes()
    written = dict(synthetic.tensors(sizes))
    hollow(tmp_path / "model.safetensors", written)
    (tmp_path / "config.json").write_text(json.dumps(synthetic.config(sizes, "bfloat16")))
    (tmp_path / "tokenizer.model").write_bytes(tiny.tokenizer_model())
    source = Checkpoint(tmp_path)
    vision = source.spec.vision
    assert (vision.layers, vision.feature_layers, source.spec.image.merge) == (24, 23, "flat")
    unused = [n for n in written if re.search(r"image_newline|post_layernorm|layers\.23\.\w+_?", n)]
    unused = [n for n in unused if not n.startswith("model.layers.")]
    assert len(source.names) == len(written) - len(unused)
    assert sum(map(source.elements, source.names)) == sum(
        math.prod(shape) for name, shape in written.items() if name not in unused
    )


def test_synthetic_weights_export_and_answer(small: Path, tmp_path: Path) -> None:
    from pulse_export.checkpoint import Checkpoint
    from pulse_export.pipeline import export

    assert len(list(small.glob("*.safetensors"))) > 2
    source = Checkpoint(small)
    assert source.info().dtype == "bfloat16"
    seen = set()
    for name in source.names:
        tensor = source.tensor(name)
        norm = tensor.ndim == 1 and name.endswith(".weight")
        assert abs(tensor.mean() - norm) < 0.02, name
        assert 0.01 < tensor.std() < 0.03, name
        seen.add(tensor.tobytes())
    assert len(seen) == len(source.names)
    export(small, tmp_path / "bundle", precision="int8")
    answer = pulse_edge.load(tmp_path / "bundle", threads=1).ask(
        SAMPLE_PAGE, RATE_QUESTION, max_new_tokens=4
    )
    assert answer.usage.image_tokens == 5 * 16
    # as many as with Llama's tokenizer, roughly: 57 for the template and this question
    assert 35 < answer.usage.prompt_tokens - answer.usage.image_tokens < 75


def test_synthetic_options(small: Path, tmp_path: Path) -> None:
    sizes = synthetic.Sizes(**SMALL)
    for name, options in (("again", {}), ("seed", {"seed": 1}), ("fp16", {"dtype": "float16"})):
        synthetic.write(tmp_path / name, sizes, shard=100_000, **options)
    first = sorted(small.glob("*.safetensors"))[0].name
    bytes_of = {name: (tmp_path / name / first).read_bytes() for name in ("again", "seed", "fp16")}
    assert bytes_of["again"] == (small / first).read_bytes()
    assert len(set(bytes_of.values())) == 3
    assert json.loads((tmp_path / "fp16/config.json").read_text())["torch_dtype"] == "float16"
    own = tmp_path / "tokenizer.model"
    own.write_bytes((small / "tokenizer.model").read_bytes())
    done = run_script(
        "synthetic",
        tmp_path / "own",
        *size_arguments(**SMALL),
        "--tokenizer",
        own,
        "--dtype",
        "float16",
    )
    assert done.returncode == 0, done.stderr
    done = run_script("synthetic", small, *size_arguments(**SMALL))
    assert done.returncode == 2
    assert "exists" in done.stderr


def test_an_interrupted_synthetic_checkpoint_does_not_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pulse_export.checkpoint import Checkpoint

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path, synthetic.Sizes(**SMALL), progress=stop)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint(tmp_path)


def test_synthetic_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors of 16 MB each, from a pool of 2 MB."""
    monkeypatch.setattr(synthetic, "POOL", synthetic.BLOCK)
    sizes = synthetic.Sizes(**SMALL | {"vocab": 125_000})
    written: list[int] = []
    tracemalloc.start()
    try:
        synthetic.write(tmp_path, sizes, tokenizer_model=b"-", progress=written.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(written) == 2 * sum(math.prod(s) for _, s in synthetic.tensors(sizes)) > 32e6
    assert peak < 4 * 4 * synthetic.BLOCK
    values = np.memmap(next(tmp_path.glob("*.safetensors")), np.uint8, "r")
    assert (
        len(np.unique(values[-2_000_000:].view(np.uint16))) > 1000
    )  # the last block is no copy of zeros


def test_a_synthetic_matrix_goes_round_its_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values repeat after the pool's length; no two rows are the same, and none begins where
    another tensor's does.
    """
    from pulse_export.checkpoint import Checkpoint

    monkeypatch.setattr(synthetic, "POOL", 1 << 12)
    synthetic.write(tmp_path, synthetic.Sizes(**SMALL))
    source, period = Checkpoint(tmp_path), (1 << 12) + synthetic.ODD
    table, head = (source.tensor(name) for name in ("embed_tokens.weight", "lm_head.weight"))
    np.testing.assert_array_equal(table.ravel()[period:], table.ravel()[:-period])
    assert len(np.unique(table, axis=0)) == len(table)
    assert (table[:, 0] != head[:, 0]).mean() > 0.9
    assert len(np.unique(table)) > 1000


def test_a_shard_that_fails_stops_the_others(tmp_path: Path) -> None:
    written: list[int] = []

    def stop(done: int) -> None:
        written.append(done)
        if len(written) == 3:
            raise OSError("no space")
        time.sleep(0.005)

    with pytest.raises(OSError, match="no space"):
        synthetic.write(tmp_path, synthetic.Sizes(**SMALL), shard=10_000, progress=stop)
    assert len(written) < 20 < len(list(synthetic.tensors(synthetic.Sizes(**SMALL))))
    assert not (tmp_path / "config.json").exists()
