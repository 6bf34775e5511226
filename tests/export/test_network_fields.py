"""Config fields that change the network are refused by name, known or not; others are let pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_export.checkpoint import Checkpoint

from support.damage import edit, refused
from support.fixture_types import Checkpoints


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def hf_copy(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints(layout="hf_next"), tmp_path / "copy"))


CHANGES: list[dict[str, Any]] = [
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"quantization_config": {"quant_method": "awq"}},
    {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}},
    {"quantization_config": {"quant_method": "fp8"}},
    {"quantization_config": {"quant_method": "hqq"}},
    {"quantization_config": {"quant_method": "compressed-tensors"}},
    {"compression_config": {"format": "pack-quantized"}},
    {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}},
    {"mm_resampler_type": "spatial_pool", "mm_spatial_pool_stride": 2},
    {"mm_resampler_type": "perceiver"},
    {"mm_resampler_type": "qformer"},
    {"mm_ecg_tower": "ecg-clip"},
    {"ecg_tower_layers": 12},
    {"s2": True},
    {"mm_use_im_start_end": True},
    {"mm_use_im_patch_token": True},
    {"mm_vision_select_feature": "cls_patch"},
    {"mm_vision_tower_2": "facebook/dinov2-large"},
    {"mm_time_series_projector": "mlp"},
    {"model_type": "llava_mistral"},
    {"vision_config": {"hidden_size": 64}},
    {"hidden_act": "gelu"},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"sliding_window": 4096},
    {"layer_types": ["sliding_attention", "full_attention"]},
    {"layer_types": "full_attention"},
    {"partial_rotary_factor": 0.5},
    {"rotary_pct": 0.25},
    {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
    {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"rope_scaling": None, "rope_parameters": {"rope_type": "dynamic"}},
    {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "llama3"}},
    {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
    {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    {"rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}},
    {"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    {"rope_interleaved": True},
    {"num_local_experts": 8},
    {"num_experts": 64, "num_experts_per_tok": 8},
    {"n_routed_experts": 64},
    {"moe_intermediate_size": 1408},
    {"embedding_multiplier": 12.0},
    {"logits_scaling": 8.0},
    {"attention_multiplier": 0.0078},
    {"attn_logit_softcapping": 50.0},
    {"qk_norm": True},
    {"use_qk_norm": True},
    {"alibi": True},
    {"is_encoder_decoder": True},
    {"pretraining_tp": 2},
    {"lora_r": 16},
    {"tie_word_embeddings": "yes"},
]


@pytest.mark.parametrize("fields", CHANGES, ids=lambda f: json.dumps(f)[:60])
def test_a_field_that_changes_the_network_is_refused_by_name(
    copy: Path, fields: dict[str, Any]
) -> None:
    edit(copy, **fields)
    message = refused(copy)
    assert any(key in message for key in fields)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("text_config", {"sliding_window": 1024}),
        ("text_config", {"quantization_config": {"quant_method": "awq"}}),
        ("text_config", {"hidden_activation": "gelu_pytorch_tanh"}),
        ("text_config", {"attn_logit_softcapping": 50.0}),
        ("text_config", {"head_norm": True}),
        ("vision_config", {"num_channels": 1}),
        ("vision_config", {"hidden_act": "gelu_pytorch_tanh"}),
        ("vision_config", {"vision_use_head": True}),
        ("vision_config", {"spatial_merge_size": 2}),
        (None, {"use_image_newline_parameter": False}),
        (None, {"multimodal_projector_bias": False}),
        (None, {"model_type": "llava"}),
        (None, {"model_type": "vipllava"}),
        (None, {"vision_feature_layers": [-2, -5]}),
    ],
)
def test_parts_of_a_conversion(hf_copy: Path, part: str | None, fields: dict[str, Any]) -> None:
    stored = json.loads((hf_copy / "config.json").read_text())
    edit(hf_copy, **({part: stored[part] | fields} if part else fields))
    message = refused(hf_copy)
    assert next(iter(fields)) in message
    assert (part or "config.json") in message


# What real configs carry: Vicuna's, LLaVA-1.6's and later ones', and what transformers adds.
HARMLESS: dict[str, Any] = {
    "_name_or_path": "x",
    "_attn_implementation": "sdpa",
    "_attn_implementation_autoset": True,
    "attention_dropout": 0.1,
    "comment": "x",
    "dtype": "float16",
    "freeze_mm_mlp_adapter": True,
    "image_crop_resolution": 224,
    "image_split_resolution": 224,
    "initializer_range": 0.02,
    "layer_types": ["full_attention", "full_attention"],
    "mm_hidden_size": 64,
    "mm_projector_lr": 2e-5,
    "mm_resampler_type": None,
    "mm_spatial_pool_mode": "bilinear",
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter",
    "mm_vision_tower_lr": 2e-6,
    "num_local_experts": None,
    "partial_rotary_factor": 1.0,
    "pretraining_tp": 1,
    "quantization_config": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "sliding_window": None,
    "temperature": 0.9,
    "tune_mm_mlp_adapter": True,
    "tune_mm_vision_resampler": False,
    "unfreeze_mm_vision_tower": True,
    "use_bfloat16": False,
    "use_mm_proj": True,
}


def test_harmless_fields_leave_the_model_as_it_is(copy: Path, checkpoint: Path) -> None:
    edit(copy, **HARMLESS)
    assert Checkpoint(copy).spec == Checkpoint(checkpoint).spec


def test_rope_theta_may_stand_in_any_of_its_places(copy: Path) -> None:
    for fields in (
        {"rope_theta": 5e5},
        {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ):
        edit(copy, **fields)
        assert Checkpoint(copy).spec.text.rope_theta == 5e5
    edit(copy, rope_theta=..., rope_parameters=...)
    assert Checkpoint(copy).spec.text.rope_theta == 10000.0


def test_a_tower_has_transformers_defaults(hf_copy: Path) -> None:
    """12 heads for a `vision_config` that names none; CLIP-L/336 for a config without any."""
    vision = json.loads((hf_copy / "config.json").read_text())["vision_config"]
    del vision["num_attention_heads"]
    edit(hf_copy, vision_config=vision)
    assert "width 64 / heads 12 does not divide" in refused(hf_copy)
    edit(hf_copy, vision_config=..., image_grid_pinpoints=[[336, 672]])
    (hf_copy / "preprocessor_config.json").unlink()
    assert "config.json says [1024, 3, 14, 14]" in refused(hf_copy) or "missing" in refused(hf_copy)


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ([2], 2, (2,)),
        (2, ..., (2,)),
        (..., ..., (2,)),
        (2, [2, 7], (2, 7)),
        (2, [7, 2], (2, 7)),  # the tokenizer's comes first: it ends turns
        ([2, 7], [2, 7, 9], (2, 7, 9)),
    ],
)
def test_end_tokens(copy: Path, config: Any, generation: Any, ends: tuple[int, ...]) -> None:
    edit(copy, eos_token_id=config)
    edit(copy, "generation_config.json", eos_token_id=generation)
    assert Checkpoint(copy).spec.text.eos == ends


@pytest.mark.parametrize(
    ("config", "generation", "message"),
    [
        (2, 7, "eos_token_id is [7], but"),
        (7, 2, "eos_token_id is [2], but"),
        ([2, 7], 2, "eos_token_id is [2], but"),
        (7, 7, "its end token is 2, but eos_token_id"),
        (7, ..., "its end token is 2, but eos_token_id"),
    ],
)
def test_end_tokens_that_disagree(copy: Path, config: Any, generation: Any, message: str) -> None:
    edit(copy, eos_token_id=config)
    edit(copy, "generation_config.json", eos_token_id=generation)
    assert message in refused(copy)


def test_beginning_tokens_that_disagree(copy: Path) -> None:
    edit(copy, "generation_config.json", bos_token_id=5)
    assert "generation_config.json: bos_token_id is 5, but" in refused(copy)
    edit(copy, bos_token_id=5)
    assert "its beginning token is 1, but config.json says bos_token_id 5" in refused(copy)
