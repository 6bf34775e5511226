"""benchmarks.language_model: a GGUF file's function is kept, its grid of values is not."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")

from benchmarks.language_model import NAMES, LanguageModel, read_gguf
from benchmarks.recipes import own_texts
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint


def _pairs(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a projection in GGUF's order: what llama.cpp's converter does."""
    split = weight.reshape(heads, 2, -1, weight.shape[1])
    return split.swapaxes(1, 2).reshape(weight.shape)


def _gguf(source: Checkpoint) -> SimpleNamespace:
    """A module that reads this checkpoint's decoder, whatever the file."""
    text = source.spec.text
    fields = {
        "general.name": "tiny",
        "llama.attention.head_count": text.heads,
        "llama.attention.head_count_kv": text.kv_heads,
        "llama.embedding_length": text.hidden,
        "llama.block_count": text.layers,
        "llama.feed_forward_length": text.ffn,
        "llama.vocab_size": text.vocab,
        "llama.attention.layer_norm_rms_epsilon": text.eps,
        "llama.rope.freq_base": text.rope_theta,
        "llama.context_length": text.context,
        "tokenizer.ggml.bos_token_id": text.bos,
        "tokenizer.ggml.eos_token_id": text.eos[0],
    }
    raw = {
        "token_embd.weight": source.tensor("embed_tokens.weight"),
        "output_norm.weight": source.tensor("norm.weight"),
        "output.weight": source.tensor("lm_head.weight"),
    }
    for i in range(text.layers):
        for theirs, ours in NAMES.items():
            weight = source.tensor(f"layers.{i}.{ours}.weight")
            if theirs in ("attn_q", "attn_k"):
                weight = _pairs(weight, text.heads if theirs == "attn_q" else text.kv_heads)
            raw[f"blk.{i}.{theirs}.weight"] = weight
    tensors = [SimpleNamespace(name=n, data=w, tensor_type="F32") for n, w in raw.items()]

    def field(name: str) -> SimpleNamespace:
        return SimpleNamespace(contents=lambda: fields[name])

    reader = SimpleNamespace(tensors=tensors, get_field=field)
    quants = SimpleNamespace(dequantize=lambda data, kind: data)
    return SimpleNamespace(GGUFReader=lambda path: reader, quants=quants)


@pytest.fixture
def model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    source = Checkpoint(checkpoint)
    monkeypatch.setitem(sys.modules, "gguf", _gguf(source))
    return read_gguf(Path("any.gguf"), source.spec)


def test_the_function_stays_and_the_grid_goes(model: LanguageModel, checkpoint: Path) -> None:
    source = Checkpoint(checkpoint)
    assert asdict(model.spec) == asdict(source.spec)
    embeds = model.embed([1, 5, 9, 17, 4])
    np.testing.assert_allclose(
        reference.logits(embeds, model.spec, model.tensor),
        reference.logits(embeds, source.spec, source.tensor),
        atol=2e-5,
    )
    for name in model.names:
        if name.endswith("_proj.weight"):
            assert not np.isclose(model.tensor(name), source.tensor(name)).all(axis=0).any()


def test_texts_are_the_models_own_and_come_again(model: LanguageModel) -> None:
    ids = model.sample((1, 0), 12)
    assert ids[0] == model.spec.text.bos
    assert ids == model.sample((1, 0), 12) != model.sample((1, 1), 12)
    (text,) = own_texts(model, 1, purpose=1)
    assert len(text.rows) == len(text.tokens) == len(text.embeds)
    np.testing.assert_array_equal(text.embeds[1:], model.embed(text.tokens[:-1]))
