"""Which weights are read: the index decides, and what contradicts it is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

import safetensors.numpy as st

from pulse_export.checkpoint import Checkpoint
from pulse_export.weight_files import FOREIGN_FILES, INDEX, SINGLE

from support import tiny
from support.damage import edit, refused
from support.fixture_types import Checkpoints

FIRST, SECOND, THIRD = (f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3))
PT = {"format": "pt"}


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def sharded(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints(shards=3), tmp_path / "sharded"))


def weight_map(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((path / INDEX).read_text())["weight_map"]
    return found


def add(file: Path, **tensors: np.ndarray) -> None:
    st.save_file(st.load_file(file) | tensors, file, metadata=PT)


def name_in(path: Path, file: str) -> str:
    return next(name for name, place in weight_map(path).items() if place == file)


# -- index and shards


@pytest.mark.parametrize("value", ["zeros", "equal"])
@pytest.mark.parametrize(("own", "other"), [(FIRST, SECOND), (FIRST, THIRD), (THIRD, FIRST)])
def test_a_tensor_in_two_shards_is_refused(sharded: Path, own: str, other: str, value: str) -> None:
    name = name_in(sharded, own)
    tensor = st.load_file(sharded / own)[name]
    add(sharded / other, **{name: tensor if value == "equal" else np.zeros_like(tensor)})
    message = refused(sharded)
    assert f"tensor {name} is in {min(own, other)} and in {max(own, other)}" in message
    assert f"{INDEX} says {own}" in message


def test_a_tensor_elsewhere_than_the_index_says(sharded: Path) -> None:
    name = name_in(sharded, FIRST)
    edit(sharded, INDEX, weight_map=weight_map(sharded) | {name: SECOND})
    assert f"tensor {name} is in {FIRST}, but {INDEX} says {SECOND}" in refused(sharded)


def test_a_tensor_that_the_index_does_not_list(sharded: Path) -> None:
    places = weight_map(sharded)
    place = places.pop("model.norm.weight")
    edit(sharded, INDEX, weight_map=places)
    message = refused(sharded)
    assert f"tensor model.norm.weight is in {place}, but {INDEX} does not list it" in message


def test_unlisted_buffers_are_harmless(sharded: Path) -> None:
    add(sharded / FIRST, **{"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)})
    Checkpoint(sharded)


def test_shards_that_the_index_does_not_list_are_not_read(
    sharded: Path, checkpoints: Checkpoints
) -> None:
    before = Checkpoint(sharded).info()
    shutil.copy(checkpoints(seed=5) / SINGLE, sharded / "zz-old.safetensors")
    (sharded / "pytorch_model.bin").write_bytes(b"pickle")
    (sharded / "model-00004-of-00004.safetensors").write_bytes(b"not even safetensors")
    assert Checkpoint(sharded).info() == before


@pytest.mark.parametrize("seed", [0, 5])
def test_an_index_beside_a_single_file_is_refused(
    sharded: Path, checkpoints: Checkpoints, seed: int
) -> None:
    shutil.copy(checkpoints(seed=seed) / SINGLE, sharded)
    message = refused(sharded)
    assert f"both {SINGLE} and {INDEX}; transformers would read {SINGLE}" in message
    (sharded / INDEX).unlink()
    expected = Checkpoint(checkpoints(seed=seed)).info()
    assert Checkpoint(sharded).info().sha256 == expected.sha256


def test_an_index_of_one_file_is_no_contradiction(copy: Path) -> None:
    names = st.load_file(copy / SINGLE)
    tiny.write_json(copy / INDEX, {"weight_map": dict.fromkeys(names, SINGLE)})
    Checkpoint(copy)


def test_strays_beside_the_single_file_are_not_read(copy: Path) -> None:
    before = Checkpoint(copy).info()
    zeros = {k: v * 0 for k, v in st.load_file(copy / SINGLE).items()}
    for name in ("zz-old.safetensors", "a.safetensors", "model-00001-of-00002.safetensors"):
        st.save_file(zeros, copy / name, metadata=PT)
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    assert Checkpoint(copy).info() == before


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "model-00001-of-00001.safetensors", "Model.safetensors"]
)
def test_a_file_of_another_name_is_not_guessed_to_be_the_model(copy: Path, name: str) -> None:
    (copy / SINGLE).rename(copy / name)
    message = refused(copy)
    assert f"nothing says that {name} is the model" in message
    assert "rename it" in message


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "a/b.safetensors", "/etc/passwd", "", ".", "..", "a\\b", 1, None,
             "x\n.safetensors", "pytorch_model.bin", ["x"]],
)  # fmt: skip
def test_places_that_are_no_file_beside_the_index(sharded: Path, file: Any) -> None:
    edit(sharded, INDEX, weight_map=weight_map(sharded) | {"model.norm.weight": file})
    assert INDEX in refused(sharded)


def test_an_index_with_a_tensor_twice(sharded: Path) -> None:
    text = (sharded / INDEX).read_text()
    line = f'"model.norm.weight": "{FIRST}",\n'
    (sharded / INDEX).write_text(text.replace('"weight_map": {', '"weight_map": {' + line))
    assert "'model.norm.weight' stands twice with different values" in refused(sharded)


# -- links, pipes, damaged headers


def test_files_may_be_links_as_in_hugging_faces_cache(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    source = checkpoints(shards=3)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert Checkpoint(snapshot).spec == Checkpoint(source).spec
    assert Checkpoint(snapshot).info().sha256 == Checkpoint(source).info().sha256
    (snapshot / SECOND).resolve().unlink()
    assert f"{SECOND}: missing" in refused(snapshot)


def test_pipes_are_not_opened(copy: Path) -> None:
    (copy / SINGLE).unlink()
    os.mkfifo(copy / SINGLE)
    assert f"{SINGLE}: not a file" in refused(copy)


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write(file: Path, header: str, data: bytes) -> None:
    text = header.encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def change_offsets(header: dict[str, Any], begin: int, end: int) -> None:
    header["model.norm.weight"]["data_offsets"] = [begin, end]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: change_offsets(h, 0, 256),
        lambda h: change_offsets(h, 0, 1 << 62),
        lambda h: change_offsets(h, 256, 0),
        lambda h: h["model.norm.weight"].update(shape=[1 << 62]),
        lambda h: h["model.norm.weight"].update(shape=[-64]),
        lambda h: h["model.norm.weight"].update(shape=[32]),
        lambda h: h["model.norm.weight"].update(dtype="F128"),
        lambda h: h.pop("model.norm.weight"),
        lambda h: h.update({"model.norm.weight": []}),
        lambda h: h.update({"deep": [[[[]]]]}),
    ],
)  # fmt: skip
def test_headers_that_lie(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header, data = header_of(copy / SINGLE)
    change(header)
    write(copy / SINGLE, json.dumps(header), data)
    assert f"{copy / SINGLE}: truncated or not safetensors" in refused(copy)


def test_a_header_with_a_tensor_twice(copy: Path) -> None:
    """safetensors itself takes the last: the same bytes as another type."""
    tensors = {k: v.astype(np.float16) for k, v in tiny.llava_weights().items()}
    st.save_file(tensors, copy / SINGLE, metadata=PT)
    header, data = header_of(copy / SINGLE)
    entry = header["model.norm.weight"]
    text = json.dumps(header)[:-1] + ', "model.norm.weight": '
    write(copy / SINGLE, text + json.dumps(entry | {"dtype": "BF16"}) + "}", data)
    assert "'model.norm.weight' stands twice" in refused(copy)


@pytest.mark.parametrize("kind", ["tf", "flax", "mlx", "np", ""])
def test_other_frameworks_files_are_refused(copy: Path, kind: str) -> None:
    """They may store matrices turned, which a square one does not show."""
    st.save_file(st.load_file(copy / SINGLE), copy / SINGLE, metadata={"format": kind})
    assert f"its format is {kind!r}, supported is 'pt'" in refused(copy)


def test_a_file_without_a_format_is_read(copy: Path) -> None:
    st.save_file(st.load_file(copy / SINGLE), copy / SINGLE)
    Checkpoint(copy)


# -- directories that are something else


@pytest.mark.parametrize("name", FOREIGN_FILES)
@pytest.mark.parametrize("alone", [True, False])
def test_adapters_and_quantized_models_are_called_what_they_are(
    copy: Path, name: str, alone: bool
) -> None:
    (copy / name).write_text("{}")
    if alone:
        (copy / SINGLE).unlink()
        (copy / "config.json").unlink()
    kind, advice = FOREIGN_FILES[name]
    advice = advice or f"merge it into its base model and export {copy}-merged"
    message = refused(copy)
    assert f"{name} says that this is {kind}" in message
    assert advice in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "adapter"),
        ("model.layers.0.self_attn.q_proj.lora_B.default.weight", "adapter"),
        ("model.layers.0.mlp.down_proj.base_layer.weight", "adapter"),
        ("model.layers.0.mlp.down_proj.qweight", "quantized"),
        ("model.layers.0.mlp.down_proj.qzeros", "quantized"),
        ("model.layers.0.mlp.down_proj.SCB", "quantized"),
        ("model.layers.0.mlp.down_proj.weight.absmax", "quantized"),
        ("model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4", "quantized"),
        ("model.layers.0.mlp.down_proj.weight_scale_inv", "quantized"),
        ("model.layers.0.mlp.down_proj.weight_packed", "quantized"),
        ("model.layers.0.mlp.down_proj.W_q", "quantized"),
        ("model.layers.0.mlp.experts.0.w1.weight", "mixture of experts"),
        ("model.layers.0.block_sparse_moe.gate.weight", "mixture of experts"),
    ],
)
@pytest.mark.parametrize("replaces", [True, False])
def test_tensors_tell_what_the_weights_are(
    copy: Path, name: str, kind: str, replaces: bool
) -> None:
    tensors = st.load_file(copy / SINGLE)
    if replaces:
        del tensors["model.layers.0.mlp.down_proj.weight"]
    tensors[name] = np.zeros((8, 64), np.float32)
    st.save_file(tensors, copy / SINGLE, metadata=PT)
    message = refused(copy)
    assert name in message
    assert kind in message


def without_tower(path: Path) -> None:
    tensors = {k: v for k, v in st.load_file(path / SINGLE).items() if "vision_tower" not in k}
    st.save_file(tensors, path / SINGLE, metadata=PT)


def test_a_frozen_tower_lies_elsewhere(copy: Path) -> None:
    without_tower(copy)
    edit(copy, unfreeze_mm_vision_tower=False)
    message = refused(copy)
    assert "no vision tower: openai/clip-vit-large-patch14-336 was frozen" in message
    assert "save_pretrained" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"unfreeze_mm_vision_tower": True},
        {"unfreeze_mm_vision_tower": ..., "mm_tunable_parts": "mm_vision_tower,mm_language_model"},
    ],
)
def test_a_trained_tower_is_not_to_be_had_elsewhere(copy: Path, fields: dict[str, Any]) -> None:
    without_tower(copy)
    edit(copy, **fields)
    assert "no vision tower, although it was trained here" in refused(copy)
