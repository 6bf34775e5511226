"""The Llama decoder as one graph for prefill, decode and verification of speculated tokens.

inputs_embeds [1, rows, hidden], logit_rows int64 [n] -> logits float32 [n, vocab] of those rows, and the cache.
Source: transformers modeling_llama.py.
"""

from __future__ import annotations

import numpy as np

from pulse_edge.bundle import ModelSpec

from .graph import NUMPY_TO_ONNX
from .net import Net


def write_decoder(net: Net, spec: ModelSpec) -> None:
    text, target = spec.text, net.target
    x = net.graph.input("inputs_embeds", target.io, [1, "rows", text.hidden])
    wanted = net.graph.input("logit_rows", np.int64, ["logit_rows"])
    cache = target.emit_cache_inputs(net.graph, x, text)
    weight = net.parameter("layers.0.input_layernorm.weight")
    normed = target.emit_rms_norm(net.graph, x, weight, text.eps, "layers.0.norm")
    for i in range(text.layers):
        last = i == text.layers - 1
        name = f"layers.{i}"
        qkv = net.linear(normed, *(f"{name}.self_attn.{p}_proj" for p in "qkv"), part="decoder", name=f"{name}.qkv")
        h = target.emit_cached_attention(net.graph, qkv, cache, text, i, f"{name}.attention")
        if last:  # from here on only the rows whose logits are wanted matter
            h = net.node("Gather", h, wanted, name="rows.attention", axis=1)
            x = net.node("Gather", x, wanted, name="rows.residual", axis=1)
        h = net.linear(h, f"{name}.self_attn.o_proj", part="decoder")
        weight = net.parameter(f"{name}.post_attention_layernorm.weight")
        h, x = target.emit_add_rms_norm(net.graph, h, x, weight, text.eps, f"{name}.post_norm")
        h = _mlp(net, h, f"{name}.mlp")
        weight = net.parameter("norm.weight" if last else f"layers.{i + 1}.input_layernorm.weight")
        name = "norm" if last else f"layers.{i + 1}.norm"
        normed, x = target.emit_add_rms_norm(net.graph, h, x, weight, text.eps, name)
    logits = net.linear(normed, "lm_head", part="head")
    logits = net.node("Squeeze", logits, net.ints(0), name="logits.rows")
    net.node("Cast", logits, name="logits", to=NUMPY_TO_ONNX[np.dtype(np.float32)])
    net.graph.output("logits", np.float32, ["logit_rows", text.vocab])


def _mlp(net: Net, x: str, name: str) -> str:
    """SwiGLU."""
    gate = net.linear(x, f"{name}.gate_proj", part="decoder")
    up = net.linear(x, f"{name}.up_proj", part="decoder")
    gate = net.target.emit_activation(net.graph, gate, "silu", f"{name}.act")
    return net.linear(net.node("Mul", gate, up, name=f"{name}.gated"), f"{name}.down_proj", part="decoder")
