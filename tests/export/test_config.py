"""Configurations: unsupported values are refused by name, and none crashes the export."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.errors import CheckpointError
from pulse_export.checkpoint import Checkpoint

from support.damage import edit, refused


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The published layout, to change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def hf_copy(checkpoints: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(checkpoints(layout="hf_next", merge="spatial_unpad"), tmp_path / "copy")
    )


@pytest.mark.parametrize(
    "text", ["[[56, 112], [112, 56]]", "[(56, 112), (112, 56)]", " [(56,112),(112,56)]\n"]
)
def test_grids_as_text(copy: Path, text: str) -> None:
    edit(copy, image_grid_pinpoints=text)
    assert Checkpoint(copy).spec.image.grids == ((56, 112), (112, 56))


def test_a_tower_that_is_known_by_name(copy: Path) -> None:
    """Without vision_config.json the name stands for CLIP-L/336, whose sizes these weights do not
    have.
    """
    (copy / "vision_config.json").unlink()
    assert "multiples of 336" in refused(copy)
    edit(copy, image_grid_pinpoints=[[336, 672]])
    assert "mm_hidden_size is 64, supported is 1024" in refused(copy)
    edit(copy, mm_hidden_size=1024)
    assert "missing tensors: vision.encoder.layers.3." in refused(copy)
    edit(copy, mm_vision_tower="google/siglip")
    message = refused(copy)
    assert "'google/siglip'" in message
    assert "vision_config.json" in message


def test_a_legacy_flag_that_is_none(copy: Path) -> None:
    values: tuple[Any, ...] = ("false", 2, [], {})
    for wrong in values:
        edit(copy, "tokenizer_config.json", legacy=wrong)
        assert "legacy is" in refused(copy)


@pytest.mark.parametrize(
    "file", ["config.json", "vision_config.json", "tokenizer_config.json", "generation_config.json",
             "preprocessor_config.json", "model.safetensors.index.json"],
)  # fmt: skip
def test_json_that_is_none(copy: Path, file: str) -> None:
    for content in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a": 1}}',
        b"1" * 5000,
    ):
        (copy / file).write_bytes(content)
        assert str(copy / file) in refused(copy)
    (copy / file).unlink()
    (copy / file).mkdir()
    assert str(copy / file) in refused(copy)


# -- configurations that are refused by name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"architectures": ["MixtralForCausalLM"]},
            "architecture 'MixtralForCausalLM' is not supported",
        ),
        ({"architectures": ["Qwen2VL"]}, "LlavaLlamaForCausalLM"),  # says what is
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "RoPE scaling 'longrope'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling: no 'factor'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "RoPE scaling 'yarn'"),
        (
            {"mm_vision_select_feature": "cls_patch"},
            "mm_vision_select_feature is 'cls_patch', supported is 'patch'",
        ),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"mm_use_im_patch_token": True}, "mm_use_im_patch_token is True"),
        ({"mm_projector_type": "identity"}, "mm_projector_type 'identity'"),
        ({"mm_projector_type": "mlp0x_gelu"}, "mm_projector_type 'mlp0x_gelu'"),
        ({"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type 'spatial'"),
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio 'anyres_max_9'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', supported is 'silu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mm_vision_select_layer": -4}, "feature layer -4 of a tower with 3 layers"),
        ({"mm_vision_select_layer": 0}, "feature layer 0"),
        ({"mm_vision_select_layer": 4}, "feature layer 4"),
        ({"num_attention_heads": 3}, "does not divide"),
        ({"num_key_value_heads": 3}, "does not divide"),
        ({"num_attention_heads": 64, "num_key_value_heads": 64}, "head size 1 is odd"),
        ({"image_grid_pinpoints": [[56, 100]]}, "multiples of 56"),
        ({"image_grid_pinpoints": []}, "image_grid_pinpoints is []"),
        ({"image_grid_pinpoints": [[0, 56]]}, "multiples of 56"),
        ({"image_grid_pinpoints": [[-56, 56]]}, "multiples of 56"),
        ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, "image_grid_pinpoints is '(1x1),...,(6x6)'"),
        ({"eos_token_id": 512}, "eos_token_id is 512, must be a whole number from 0 to 511"),
        ({"bos_token_id": -1}, "bos_token_id is -1"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings is 1000000000000"),
        ({"vocab_size": ...}, "no 'vocab_size'"),
        ({"hidden_size": None}, "no 'hidden_size'"),
    ],
)
def test_a_configuration_is_refused_by_name(
    copy: Path, fields: dict[str, Any], message: str
) -> None:
    edit(copy, **fields)
    assert message in refused(copy)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (
            None,
            {"vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy is 'full'",
        ),
        (None, {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        (None, {"vision_feature_layer": [-2, -5]}, "vision_feature_layer is [-2, -5]"),
        (
            "text_config",
            {"model_type": "mixtral"},
            "text_config: model_type is 'mixtral', supported is 'llama'",
        ),
        (
            "vision_config",
            {"model_type": "siglip_vision_model"},
            "vision_config: model_type is 'siglip_vision_model'",
        ),
        ("vision_config", {"patch_size": 15}, "does not divide"),
        ("vision_config", {"num_attention_heads": 5}, "does not divide"),
        (
            "text_config",
            {"rope_scaling": {"rope_type": "dynamic"}},
            "text_config rope_scaling: RoPE scaling 'dynamic'",
        ),
    ],
)
def test_a_conversion_is_refused_by_name(
    hf_copy: Path, part: str | None, fields: dict[str, Any], message: str
) -> None:
    if part:
        fields = {part: json.loads((hf_copy / "config.json").read_text())[part] | fields}
    edit(hf_copy, **fields)
    assert message in refused(hf_copy)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resample": 2}, "resample is 2"),
        ({"rescale_factor": 0.5}, "rescale_factor is 0.5"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5], must be three numbers"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std is [0.5, 0.0, 0.5], must be over 0"),
    ],
)
def test_preprocessing_is_refused_by_name(
    hf_copy: Path, fields: dict[str, Any], message: str
) -> None:
    edit(hf_copy, "preprocessor_config.json", **fields)
    assert message in refused(hf_copy)


# -- any field of any type: refused, or as good as before, but never a traceback

NUMBERS = (0, -1, 1.5, 7, float("nan"), float("inf"), 10**30)
WRONG: tuple[Any, ...] = (
    *(None, True, False),
    *NUMBERS,
    *("", "x", "8"),
    *([], [1], ["x"], [[]], {}, {"a": 1}),
    ...,  # the field is left out
)


def _fields(data: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from _fields(value, (*at, key))


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "config.json"),
        ({}, "vision_config.json"),
        ({}, "generation_config.json"),
        ({"layout": "hf_next", "merge": "spatial_unpad"}, "config.json"),
        ({"layout": "hf_next", "merge": "spatial_unpad"}, "preprocessor_config.json"),
    ],
)
def test_no_field_of_any_type_crashes(
    checkpoints: Callable[..., Path], tmp_path: Path, options: dict[str, Any], file: str
) -> None:
    path = Path(shutil.copytree(checkpoints(**options), tmp_path / "copy"))
    original = (path / file).read_text()
    refusals = 0
    for at in _fields(json.loads(original)):
        for wrong in WRONG:
            data = json.loads(original)
            parent = data
            for key in at[:-1]:
                parent = parent[key]
            parent[at[-1]] = wrong
            if wrong is ...:
                del parent[at[-1]]
            (path / file).write_text(json.dumps(data))
            with contextlib.suppress(CheckpointError):
                Checkpoint(path)
                continue
            refusals += 1
    assert refusals > 10
