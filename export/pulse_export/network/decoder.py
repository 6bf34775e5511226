"""The decoder as one graph for prefill, steps and verification.

Inputs are inputs_embeds [batch, rows, hidden], logit_rows int64 [n] and the cache; outputs are
logits float32 [batch * n, vocab] of those rows, sequence after sequence, and the cache. The batch
is 1 in graphs of targets that are not `batched`, and their logits are [n, vocab].

Targets that gather take rows int64 [rows] and table [table_rows, hidden] instead of embeddings.
They also give tokens int64 [n]: the likeliest of each row of logits, -1 where its logit is not
finite. Source: transformers modeling_llama.py.

`write_prefill` writes one for prompts alone. It fills the cache and gives no logits, so it has no
logit_rows and ends with the last layer's keys and values.
"""

from __future__ import annotations

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.graph import onnx_type
from pulse_export.network.writer import NetworkWriter


def write_decoder(net: NetworkWriter, spec: ModelSpec) -> None:
    text, target = spec.text, net.target
    x = _embeddings(net, text.hidden)
    logit_rows = net.graph.input("logit_rows", np.int64, ["logit_rows"])
    normed = _layers(net, spec, x, logit_rows)
    logits = net.linear(normed, "lm_head", part="head")
    if target.batched:
        logits = net.node("Reshape", logits, net.ints(-1, text.vocab), name="logits.rows")
    else:
        logits = net.node("Squeeze", logits, net.ints(0), name="logits.rows")
    net.node("Cast", logits, name="logits", to=onnx_type(np.float32))
    count = "batch_logit_rows" if target.batched else "logit_rows"
    net.graph.output("logits", np.float32, [count, text.vocab])
    if target.gathers:
        _likeliest(net)


def write_prefill(net: NetworkWriter, spec: ModelSpec) -> None:
    """The decoder without logits."""
    _layers(net, spec, _embeddings(net, spec.text.hidden), None)


def _layers(net: NetworkWriter, spec: ModelSpec, x: str, logit_rows: str | None) -> str:
    """The normed rows that the head reads. Without `logit_rows` it ends with the last attention."""
    text, target = spec.text, net.target
    cache = target.emit_cache_inputs(net.graph, x, text)
    weight = net.parameter("layers.0.input_layernorm.weight")
    normed = target.emit_rms_norm(net.graph, x, weight, text.eps, "layers.0.norm")
    for i in range(text.layers):
        last = i == text.layers - 1
        name = f"layers.{i}"
        qkv = net.linear(
            normed,
            *(f"{name}.self_attn.{p}_proj" for p in "qkv"),
            part="decoder",
            name=f"{name}.qkv",
            biased=bool(text.qkv_bias),
        )
        h = target.emit_cached_attention(net.graph, qkv, cache, text, i, f"{name}.attention")
        if last:  # from here on only rows with logits matter
            if logit_rows is None:
                break
            h = net.node("Gather", h, logit_rows, name="rows.attention", axis=1)
            x = net.node("Gather", x, logit_rows, name="rows.residual", axis=1)
        h = net.linear(h, f"{name}.self_attn.o_proj", part="decoder")
        weight = net.parameter(f"{name}.post_attention_layernorm.weight")
        h, x = target.emit_add_rms_norm(net.graph, h, x, weight, text.eps, f"{name}.post_norm")
        h = _mlp(net, h, f"{name}.mlp")
        weight = net.parameter("norm.weight" if last else f"layers.{i + 1}.input_layernorm.weight")
        name = "norm" if last else f"layers.{i + 1}.norm"
        normed, x = target.emit_add_rms_norm(net.graph, h, x, weight, text.eps, name)
    return normed


def _embeddings(net: NetworkWriter, hidden: int) -> str:
    """[batch, rows, hidden]."""
    io = net.target.io
    if not net.target.gathers:
        batch = "batch" if net.target.batched else 1
        return net.graph.input("inputs_embeds", io, [batch, "rows", hidden])
    table = net.graph.input("table", io, ["table_rows", hidden])
    rows = net.graph.input("rows", np.int64, ["rows"])
    x = net.node("Gather", table, rows, name="rows.embeddings", axis=0)
    return net.node("Unsqueeze", x, net.ints(0), name="rows.batch")


def _likeliest(net: NetworkWriter) -> None:
    """tokens int64 [logit_rows] of logits."""
    best = net.node("ArgMax", "logits", name="tokens.best", axis=1, keepdims=1)
    logit = net.node("GatherElements", "logits", best, name="tokens.logit", axis=1)
    size = net.node("Abs", logit, name="tokens.size")
    finite = net.node(
        "Less", size, net.graph.constant(np.array(np.inf, np.float32)), name="tokens.finite"
    )
    token = net.node("Where", finite, best, net.ints(-1), name="tokens.column")
    net.node("Squeeze", token, net.ints(1), name="tokens")
    net.graph.output("tokens", np.int64, ["logit_rows"])


def _mlp(net: NetworkWriter, x: str, name: str) -> str:
    """SwiGLU."""
    gate = net.linear(x, f"{name}.gate_proj", part="decoder")
    up = net.linear(x, f"{name}.up_proj", part="decoder")
    gate = net.target.emit_activation(net.graph, gate, "silu", f"{name}.act")
    return net.linear(
        net.node("Mul", gate, up, name=f"{name}.gated"), f"{name}.down_proj", part="decoder"
    )
