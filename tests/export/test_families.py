"""Decoders of other families than Llama's: which are read, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.spec import RopeScaling
from pulse_edge.errors import CheckpointError
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.targets.target import rope_tables

from support import families, tiny
from support.damage import edit, refused

LINEAR, LLAMA3 = families.LINEAR, families.LLAMA3


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints whose weights are never read; the tokenizer is SentencePiece's."""
    folder = tmp_path_factory.mktemp("families")
    made = {"llama": tiny.make_checkpoint(folder / "llama", kv_heads=2)}
    made["mistral"] = families.make_mistral(folder / "mistral")
    made["mistral, hf"] = families.make_mistral(folder / "mistral-hf", layout="hf_next")
    made["llama, hf"] = tiny.make_checkpoint(folder / "llama-hf", layout="hf_next", kv_heads=2)
    return made


@pytest.fixture
def path(sources: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(sources[request.param], tmp_path / "copy"))


def change(path: Path, fields: dict[str, Any]) -> None:
    """Of the decoder, wherever they stand."""
    config = json.loads((path / "config.json").read_text())
    if "text_config" in config:
        edit(path, text_config=config["text_config"] | fields)
    else:
        edit(path, **fields)


def test_mistral_is_read_in_both_layouts(sources: dict[str, Path]) -> None:
    for name in ("mistral", "mistral, hf"):
        spec = Checkpoint(sources[name]).spec
        assert (spec.text.kv_heads, spec.text.rope_theta, spec.text.qkv_bias) == (2, 1e6, None)
        assert (spec.prompt.name, spec.prompt.style) == ("mistral_instruct", "llama_2")
    assert Checkpoint(sources["mistral"]).architecture == "LlavaMistralForCausalLM"
    assert Checkpoint(sources["mistral"], template="llava_v1").spec.prompt.style is None


def test_the_class_is_known_by_the_model_type_alone(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sources["mistral"], tmp_path / "copy"))
    edit(path, architectures=None)
    assert Checkpoint(path).architecture == "LlavaMistralForCausalLM"


def test_a_conversion_has_its_family_s_defaults(sources: dict[str, Path], tmp_path: Path) -> None:
    """transformers gives a Mistral 8 KV heads and a window of 4096 positions."""
    path = Path(shutil.copytree(sources["mistral, hf"], tmp_path / "copy"))
    text = json.loads((path / "config.json").read_text())["text_config"]
    del text["num_key_value_heads"]
    edit(path, text_config=text)
    assert "4 heads / 8 KV heads does not divide" in refused(path)
    text["num_key_value_heads"] = 2
    text["max_position_embeddings"] = 8192
    del text["sliding_window"]
    edit(path, text_config=text)
    message = refused(path)
    assert "sliding_window is 4096, below the bundle's context of 8192" in message
    assert "--context 4096" in message


# -- sliding windows


@pytest.mark.parametrize("path", ["mistral", "mistral, hf"], indirect=True)
@pytest.mark.parametrize("window", [None, 512, 513, 4096])
def test_a_window_as_long_as_the_context_hides_nothing(path: Path, window: int | None) -> None:
    change(path, {"sliding_window": window})
    assert Checkpoint(path).spec.text.context == 512


@pytest.mark.parametrize("path", ["mistral", "mistral, hf"], indirect=True)
@pytest.mark.parametrize("window", [1, 300, 511])
def test_a_shorter_window_is_refused_with_its_number(path: Path, window: int) -> None:
    change(path, {"sliding_window": window})
    message = refused(path)
    assert f"sliding_window is {window}, below the bundle's context of 512" in message
    assert f"--context {window} or less" in message


@pytest.mark.parametrize("path", ["mistral"], indirect=True)
def test_the_bundle_s_context_is_what_counts(path: Path, tmp_path: Path) -> None:
    change(path, {"sliding_window": 256})
    with pytest.raises(CheckpointError, match=r"sliding_window is 256, below .* context of 257"):
        export(path, tmp_path / "bundle", precision="fp32", context=257)
    export(path, tmp_path / "bundle", precision="fp32", context=256)
    assert open_bundle(tmp_path / "bundle").manifest.model.text.context == 256


@pytest.mark.parametrize("path", ["mistral", "mistral, hf"], indirect=True)
@pytest.mark.parametrize("window", [0, -1, 4096.0, "4096", True, [4096]])
def test_windows_that_are_none(path: Path, window: Any) -> None:
    change(path, {"sliding_window": window})
    assert "sliding_window" in refused(path)


# -- stretched RoPE


@pytest.mark.parametrize("path", ["llama", "mistral", "llama, hf"], indirect=True)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_stretched_rope_is_read_in_both_places(path: Path, key: str) -> None:
    change(path, {"rope_scaling": None, key: LINEAR})
    assert Checkpoint(path).spec.text.rope == RopeScaling("linear", 4.0)
    change(path, {key: {"type": "linear", "factor": 2}})
    assert Checkpoint(path).spec.text.rope == RopeScaling("linear", 2.0)
    change(path, {key: {"type": "linear", "rope_type": "linear", "factor": 1}})
    assert Checkpoint(path).spec.text.rope is None
    change(path, {"rope_theta": 5e5, key: LLAMA3 | {"rope_theta": 5e5}})
    text = Checkpoint(path).spec.text
    assert text.rope == RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
    assert text.rope_theta == 5e5


WRONG_ROPE: list[tuple[dict[str, Any], str]] = [
    *[({"rope_type": kind, "factor": 2.0}, repr(kind)) for kind in (
        "dynamic", "yarn", "longrope", "su", "mrope", "ntk", "proportional", "", None, 3, ["linear"]
    )],
    ({"type": "yarn", "factor": 4.0}, "'yarn' is not supported"),
    ({"type": "dynamic", "rope_type": "linear", "factor": 2.0}, "'dynamic' is not supported"),
    ({"type": "linear", "rope_type": "llama3", "factor": 2.0}, "make the two agree"),
    ({"rope_type": "linear"}, "no 'factor'"),
    ({"rope_type": "linear", "factor": "2"}, "factor is '2'"),
    ({"rope_type": "linear", "factor": 0.5}, "factor is 0.5, must be at least 1"),
    ({"rope_type": "linear", "factor": -2.0}, "factor is -2.0"),
    ({"rope_type": "linear", "factor": 1e9}, "factor is 1000000000.0"),
    ({"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0}, "'low_freq_factor'"),
    ({"rope_type": "linear", "factor": 2.0, "attention_factor": 1.0}, "'attention_factor'"),
    ({"rope_type": "default", "mrope_section": [16, 24, 24]}, "'mrope_section'"),
    ({"mrope_section": [16, 24, 24]}, "'mrope_section'"),
    ({"rope_type": "default", "factor": 2.0}, "factor is 2.0"),
    (LLAMA3 | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (LLAMA3 | {"beta_fast": 32}, "'beta_fast'"),
    ({k: v for k, v in LLAMA3.items() if k != "high_freq_factor"}, "no 'high_freq_factor'"),
    ({k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}, "no 'low_freq_factor'"),
    ({k: v for k, v in LLAMA3.items() if k[0] != "o"}, "no 'original_max_position_embeddings'"),
    (LLAMA3 | {"low_freq_factor": 4.0}, "must be below high_freq_factor"),
    (LLAMA3 | {"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0"),
    (LLAMA3 | {"original_max_position_embeddings": 8192.5}, "is 8192.5"),
]  # fmt: skip


@pytest.mark.parametrize("path", ["llama"], indirect=True)
@pytest.mark.parametrize(("scaling", "reason"), WRONG_ROPE, ids=lambda v: str(v)[:50])
def test_other_scalings_are_refused_by_name(
    path: Path, scaling: dict[str, Any], reason: str
) -> None:
    for key in ("rope_scaling", "rope_parameters"):
        fields: dict[str, Any] = {"rope_scaling": None, "rope_parameters": None, key: scaling}
        edit(path, **fields)
        assert reason in refused(path)


@pytest.mark.parametrize("path", ["llama"], indirect=True)
def test_two_scalings_that_differ(path: Path) -> None:
    edit(path, rope_scaling=LINEAR, rope_parameters=LINEAR | {"factor": 2.0})
    assert "rope_scaling and rope_parameters differ" in refused(path)
    edit(path, rope_parameters=LINEAR | {"rope_theta": 10000.0})
    assert Checkpoint(path).spec.text.rope == RopeScaling("linear", 4.0)


@pytest.mark.parametrize("path", ["llama"], indirect=True)
@pytest.mark.parametrize("scaling", [LINEAR, LLAMA3], ids=["linear", "llama3"])
def test_tables_and_reference_turn_alike(path: Path, scaling: dict[str, Any]) -> None:
    """The graphs' tables against the reference, which has a formula of its own."""
    edit(path, rope_scaling=scaling)
    text = Checkpoint(path).spec.text
    cos, sin = rope_tables(text)
    unit = np.zeros((text.context, 1, text.head_size), np.float32)
    half = text.head_size // 2
    unit[..., :half] = 1
    places = np.arange(text.context, dtype=np.int64)
    turned = reference.rotate(unit, places, text.rope_theta, text.rope)[:, 0]
    np.testing.assert_allclose(turned[:, :half], cos, atol=1e-4)
    np.testing.assert_allclose(turned[:, half:], sin, atol=1e-4)
    plain = reference.rotate(unit, places, text.rope_theta)[:, 0]
    assert np.abs(plain[:, half:] - sin).max() > 0.1


def test_linear_scaling_by_hand(sources: dict[str, Path]) -> None:
    """Position 8 under a factor of 4 is turned as position 2."""
    x = np.random.default_rng(0).normal(0, 1, (1, 1, 16)).astype(np.float32)
    stretched = reference.rotate(x, np.array([8]), 1e4, RopeScaling("linear", 4.0))
    np.testing.assert_allclose(stretched, reference.rotate(x, np.array([2]), 1e4), atol=1e-6)


# -- what is no such decoder


OTHER_DECODERS = (
    "gemma", "gemma2", "phi3", "qwen3", "qwen2_moe", "qwen2_vl", "mixtral", "mpt", "gpt_neox",
    "falcon", "cohere", "ministral", "Mistral", "", 7, None,
)  # fmt: skip


@pytest.mark.parametrize("path", ["llama, hf"], indirect=True)
@pytest.mark.parametrize("kind", OTHER_DECODERS)
def test_other_decoders_are_refused_by_name(path: Path, kind: Any) -> None:
    change(path, {"model_type": kind})
    message = refused(path)
    assert f"model_type is {kind!r}" in message
    assert "'llama' or 'mistral' or 'qwen2'" in message


@pytest.mark.parametrize("path", ["llama"], indirect=True)
@pytest.mark.parametrize(
    "name",
    [
        "LlavaMptForCausalLM",
        "LlavaGemmaForCausalLM",
        "LlavaMixtralForCausalLM",
        "LlavaQwenMoeForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
    ],
)
def test_other_published_classes_are_refused_by_name(path: Path, name: str) -> None:
    edit(path, architectures=[name])
    message = refused(path)
    assert repr(name) in message
    assert "LlavaMistralForCausalLM, LlavaQwenForCausalLM" in message


@pytest.mark.parametrize("path", ["mistral"], indirect=True)
@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "llava_llama"},
        {"model_type": "mistral"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"use_sliding_window": True},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"hidden_act": "gelu"},
        {"num_local_experts": 8},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_mistral_fields_that_change_the_network(path: Path, fields: dict[str, Any]) -> None:
    edit(path, **fields)
    assert next(iter(fields)) in refused(path)
