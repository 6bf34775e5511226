"""A language model with trained weights, read from a GGUF file, for comparisons of 4-bit formats.

Weights that somebody else trained on text tell whether a recipe helps beyond pulse-nano. Files of
small models hold 4 bits already, whose values lie on a grid that some formats meet exactly. So
every input channel of a matrix is scaled by a random factor, which the norm or the matrix before it
takes back: the function stays, the grid goes. Texts are sampled from the model itself, so neither a
tokenizer nor a data set is needed, and its loss on them is the entropy that it has there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.bundle.spec import ModelSpec, TextSpec
from pulse_export import reference
from pulse_export.checkpoint import Floats

SPREAD = 0.25  # of the logarithm of the scales: uniform between these two signs
# GGUF's names of a layer's tensors -> ours.
NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class LanguageModel:
    """A decoder without a tower.

    Attributes:
        name: as the file gives it.
        spec: the decoder's; the rest is of another model, and not used.
        tensors: float32, by canonical name.
    """

    name: str
    spec: ModelSpec
    tensors: dict[str, Floats]

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self.tensors)

    def tensor(self, name: str) -> Floats:
        """A tensor by its canonical name."""
        return self.tensors[name]

    def elements(self, name: str) -> int:
        """The numbers in a tensor."""
        return self.tensors[name].size

    def sample(self, seed: Sequence[int], count: int) -> list[int]:
        """Ids of a text: the begin of text, then `count` - 1 draws from the model's distribution.

        Args:
            seed: of the draws.
            count: how many ids.
        """
        rng = np.random.default_rng(list(seed))
        table, cache = self.tensors["embed_tokens.weight"], reference.Cache()
        ids = [self.spec.text.bos]
        while len(ids) < count:
            row = reference.logits(table[[ids[-1]]], self.spec, self.tensor, [-1], cache)[0]
            odds = np.exp(row.astype(np.float64) - row.max())
            ids.append(int(rng.choice(len(odds), p=odds / odds.sum())))
        return ids

    def embed(self, ids: Sequence[int]) -> Floats:
        """Embeddings float32 [tokens, hidden]."""
        return self.tensors["embed_tokens.weight"][list(ids)]


def read_gguf(path: Path, like: ModelSpec) -> LanguageModel:
    """A Llama decoder from a GGUF file.

    Args:
        path: the file; its tensors in any format that the `gguf` package reads.
        like: gives what a language model does not have.
    """
    import gguf

    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        found = reader.get_field(name)
        return None if found is None else found.contents()

    spec = replace(like, text=_text_spec(field))
    raw = {
        t.name: np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), np.float32)
        for t in reader.tensors
    }
    tensors = {
        "embed_tokens.weight": raw["token_embd.weight"],
        "norm.weight": raw["output_norm.weight"],
        "lm_head.weight": raw.get("output.weight", raw["token_embd.weight"]),
    }
    for i in range(spec.text.layers):
        for theirs, ours in NAMES.items():
            tensors[f"layers.{i}.{ours}.weight"] = raw[f"blk.{i}.{theirs}.weight"]
        for part, heads in (("q", spec.text.heads), ("k", spec.text.kv_heads)):
            name = f"layers.{i}.self_attn.{part}_proj.weight"
            tensors[name] = _halves(tensors[name], heads)
        _leave_grid(tensors, i, spec.text)
    return LanguageModel(str(field("general.name") or path.stem), spec, tensors)


def _text_spec(field: Any) -> TextSpec:
    heads, hidden = int(field("llama.attention.head_count")), int(field("llama.embedding_length"))
    return TextSpec(
        hidden=hidden,
        layers=int(field("llama.block_count")),
        heads=heads,
        kv_heads=int(field("llama.attention.head_count_kv")),
        head_size=hidden // heads,
        ffn=int(field("llama.feed_forward_length")),
        vocab=int(field("llama.vocab_size")),
        eps=float(field("llama.attention.layer_norm_rms_epsilon")),
        rope_theta=float(field("llama.rope.freq_base") or 10000.0),
        context=int(field("llama.context_length")),
        bos=int(field("tokenizer.ggml.bos_token_id")),
        eos=(int(field("tokenizer.ggml.eos_token_id")),),
    )


def _halves(weight: Floats, heads: int) -> Floats:
    """Rows of a projection from GGUF's order of rotated pairs to halves, which our reference has.

    The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3).reshape(weight.shape))


def _leave_grid(tensors: dict[str, Floats], i: int, text: TextSpec) -> None:
    """Scale the input channels of layer `i`'s matrices, and what feeds them by the inverse."""
    rng, layer = np.random.default_rng([i, 5]), f"layers.{i}"

    def scales(count: int) -> Floats:
        return np.exp(rng.uniform(-SPREAD, SPREAD, count)).astype(np.float32)

    for norm, readers in (
        ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ):
        vector = scales(text.hidden)
        tensors[f"{layer}.{norm}.weight"] = tensors[f"{layer}.{norm}.weight"] / vector
        for name in readers:
            tensors[f"{layer}.{name}.weight"] = tensors[f"{layer}.{name}.weight"] * vector
    vector = scales(text.kv_heads * text.head_size)
    shared = vector.reshape(text.kv_heads, 1, -1).repeat(text.heads // text.kv_heads, 1).ravel()
    _rescale(tensors, f"{layer}.self_attn.v_proj.weight", vector)
    tensors[f"{layer}.self_attn.o_proj.weight"] = (
        tensors[f"{layer}.self_attn.o_proj.weight"] * shared
    )
    vector = scales(text.ffn)
    _rescale(tensors, f"{layer}.mlp.up_proj.weight", vector)
    tensors[f"{layer}.mlp.down_proj.weight"] = tensors[f"{layer}.mlp.down_proj.weight"] * vector


def _rescale(tensors: dict[str, Floats], name: str, vector: Floats) -> None:
    """Divide a matrix's outputs."""
    tensors[name] = tensors[name] / vector[:, None]
