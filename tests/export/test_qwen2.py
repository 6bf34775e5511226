"""Qwen2 decoders: biases on every target and through every recipe, windows, end tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")
pytest.importorskip("tokenizers", reason="byte-level tokenizers need pulse-edge[tokenizers]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.quantize.fold import DecoderFolds
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.smooth import sites

from support import families
from support.damage import edit, refused
from support.numbers import relative, relative_norm

Floats = NDArray[np.float32]
ROWS = 40


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make_qwen(tmp_path_factory.mktemp("qwen") / "checkpoint")


@pytest.fixture
def copy(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "copy"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    noise = np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    return folder


def test_a_qwen2_checkpoint(qwen: Path) -> None:
    source = Checkpoint(qwen)
    text, prompt = source.spec.text, source.spec.prompt
    assert (text.qkv_bias, text.kv_heads, text.rope_theta) == (True, 2, 1e6)
    assert text.eos == (families.token("<|im_end|>"),)
    assert (prompt.name, prompt.style, source.tokenizer) == ("qwen_1_5", "chatml", "tokenizer.json")
    assert source.architecture == "LlavaQwenForCausalLM"
    assert "layers.1.self_attn.k_proj.bias" in source.names


def test_a_missing_bias_is_named(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.self_attn.v_proj.bias"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "missing tensors: layers.1.self_attn.v_proj.bias" in refused(copy)


def test_a_bias_that_llama_has_not_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    families.add_biases(path)
    assert "unknown tensors: model.layers.0.self_attn.k_proj.bias" in refused(path)


# Of a Llama without biases on the same targets at the same sizes, and a third more.
WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "fp32": ({"precision": "fp32"}, 1e-5),
    "fp32, int8 cache": ({"precision": "fp32", "cache": "int8"}, 0.03),
    "int8": ({"precision": "int8"}, 0.025),
    "int4": ({"precision": "int4"}, 0.2),
    "w8a8": ({"precision": "w8a8"}, 0.035),
    "two sets": ({"precision": "int4", "prefill": "w8a8"}, 0.2),
    "two sets, int8 cache": ({"precision": "int4", "prefill": "w8a8", "cache": "int8"}, 0.2),
    "rtn": ({"precision": "int4", "recipe": "rtn"}, 0.2),
    "gptq": ({"precision": "int4", "recipe": "gptq"}, 0.2),
    "awq": ({"precision": "int4", "recipe": "awq"}, 0.2),
    "auto": ({"precision": "int4", "recipe": "auto"}, 0.2),
    "cuda fp16": ({"precision": "fp16", "target": "cuda"}, 2e-3),
    "cuda int4": ({"precision": "int4", "target": "cuda"}, 0.2),
    "standard fp32": ({"precision": "fp32", "target": "standard"}, 1e-5),
    "standard int4": ({"precision": "int4", "target": "standard"}, 0.2),
    "standard w8a8": ({"precision": "w8a8", "target": "standard"}, 0.12),
}


@pytest.fixture(scope="module")
def expected(qwen: Path) -> tuple[NDArray[np.int64], Floats]:
    """Tokens, and the reference's logits of each."""
    source = Checkpoint(qwen)
    ids = np.random.default_rng(1).integers(3, 400, ROWS)
    embeds = source.tensor("embed_tokens.weight")[ids]
    return ids, np.asarray(reference.logits(embeds, source.spec, source.tensor), np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_biases_are_added_on_every_target_and_through_every_recipe(
    qwen: Path, page: Path, tmp_path: Path, expected: tuple[NDArray[np.int64], Floats], way: str
) -> None:
    options, bar = WAYS[way]
    ids, logits = expected
    data = Recipe(images=page, samples=1)
    calibrated = options.get("recipe") in ("gptq", "awq", "auto") or way == "standard w8a8"
    more: dict[str, Any] = {"calibration": data} if calibrated else {}
    export(qwen, tmp_path / "bundle", **options, **more)
    bundle = open_bundle(tmp_path / "bundle")
    engine = open_engine(bundle, EngineOptions(threads=1, device="cpu"))
    prompt = np.asarray(engine.prefill(engine.rows(ids[:-1])), np.float32).copy()
    last = np.asarray(engine.step(engine.rows(ids[-1:])), np.float32)[0]
    assert relative_norm(np.stack([prompt, last]), logits[-2:]) < bar


def test_without_their_biases_the_logits_are_others(
    qwen: Path, expected: tuple[NDArray[np.int64], Floats]
) -> None:
    """So the bars above would show a bias that is lost."""
    source = Checkpoint(qwen)
    ids, logits = expected

    def without(part: str) -> Floats:
        def tensor(name: str) -> Any:
            value = source.tensor(name)
            return value * 0 if name.endswith(f"{part}_proj.bias") else value

        return np.asarray(
            reference.logits(tensor("embed_tokens.weight")[ids], source.spec, tensor), np.float32
        )

    for part in "qkv":
        assert relative_norm(without(part)[-2:], logits[-2:]) > 0.3, part


def test_a_bias_is_scaled_with_its_outputs_where_scaling_is_folded(
    qwen: Path, expected: tuple[NDArray[np.int64], Floats]
) -> None:
    """Folding any vectors leaves the logits as they are."""
    source = Checkpoint(qwen)
    spec, (ids, logits) = source.spec, expected
    folds, rng = DecoderFolds(source.tensor, spec), np.random.default_rng(2)
    for site in sites(spec, ("decoder",)):
        columns = source.tensor(f"{site.readers[0]}.weight").shape[1]
        vector = np.asarray(rng.uniform(0.25, 4, columns), np.float32)
        folds.add(site.readers, folds.shared(site.readers, vector))
    name = "layers.0.self_attn.v_proj.bias"
    assert relative(folds(name), source.tensor(name)) > 0.1
    for kept in ("q", "k"):
        name = f"layers.0.self_attn.{kept}_proj.bias"
        np.testing.assert_array_equal(folds(name), source.tensor(name))
    got = reference.logits(folds("embed_tokens.weight")[ids], spec, folds)
    assert relative(got, logits) < 1e-4


def test_native_kernels_refuse_a_bias_by_name(qwen: Path, tmp_path: Path) -> None:
    export(qwen, tmp_path / "bundle", precision="int4", target="cuda")
    problem = engine_module("native").why_not(open_bundle(tmp_path / "bundle"))
    assert problem == "q, k and v have biases, which the kernels do not add"


# -- windows, heads and tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 0},
        {"use_sliding_window": None, "sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 512},
        {"use_sliding_window": True, "sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 4096, "layer_types": ["sliding_attention"]},
        {"layer_types": ["full_attention", "full_attention"]},
        {"attention_bias": True},
        {"use_mrope": False},
        {"max_window_layers": 28},
    ],
    ids=str,
)
def test_windows_that_hide_nothing(copy: Path, fields: dict[str, Any]) -> None:
    edit(copy, **fields)
    assert Checkpoint(copy).spec.text.qkv_bias


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"use_sliding_window": True, "sliding_window": 511}, "sliding_window is 511, below"),
        ({"use_sliding_window": True, "sliding_window": "x"}, "sliding_window is 'x'"),
        ({"use_sliding_window": 1}, "use_sliding_window is 1"),
        ({"layer_types": ["sliding_attention"]}, "layer_types is ['sliding_attention']"),
        ({"layer_types": ["chunked_attention"]}, "layer_types is ['chunked_attention']"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention'"),
        ({"use_mrope": True}, "use_mrope is True"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2]}}, "'mrope' is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"num_experts": 60}, "num_experts is 60"),
        ({"eos_token_id": 5}, "eos_token_id is"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_unsupported_variations_are_refused_by_name(
    copy: Path, fields: dict[str, Any], reason: str
) -> None:
    edit(copy, **fields)
    assert reason in refused(copy)


def test_the_token_that_ends_a_turn_comes_first(copy: Path) -> None:
    """transformers stops at each; the first one stands between turns."""
    ends = [families.token("<|endoftext|>"), families.token("<|im_end|>")]
    edit(copy, eos_token_id=ends)
    edit(copy, "generation_config.json", eos_token_id=ends)
    assert Checkpoint(copy).spec.text.eos == (ends[1], ends[0])
    edit(copy, eos_token_id=..., bos_token_id=...)
    edit(copy, "generation_config.json", eos_token_id=...)
    assert Checkpoint(copy).spec.text.eos == (ends[1],)
    edit(copy, eos_token_id=ends[0])
    message = refused(copy)
    assert "'<|im_end|>'" in message
    assert f"is {[ends[0]]}; make them agree" in message


def test_tied_embeddings(tmp_path: Path) -> None:
    path = families.make_qwen(tmp_path / "tied", tied=True, layout="hf_next")
    source = Checkpoint(path)
    assert source.tied
    np.testing.assert_array_equal(
        source.tensor("lm_head.weight"), source.tensor("embed_tokens.weight")
    )
    config = json.loads((path / "config.json").read_text())
    assert config["text_config"]["model_type"] == "qwen2"
