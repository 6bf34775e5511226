"""Calibration samples on their way through the decoder, all of them one matrix after the other.

`reference.decoder_layer` takes one sample through a layer. A recipe has to see the inputs of a
matrix from all samples before it rounds that matrix, and the samples should go on through the
rounded one. So a layer has four stops here, one for each group of matrices that read the same
input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export import reference
from pulse_export.checkpoint import Floats, Tensors

# Is told the names of the matrices that read an input, and that input [tokens, columns] of each
# sample, before the matrices are read.
Visit = Callable[[tuple[str, ...], Sequence[Floats]], None]


def through_layer(
    states: Sequence[Floats], i: int, spec: ModelSpec, tensor: Tensors, visit: Visit
) -> list[Floats]:
    """Layer `i` on all samples.

    Args:
        states: the hidden state [tokens, hidden] of each sample.
        i: the layer's number.
        spec: the model.
        tensor: gives the layer's tensors. It is asked for a matrix after `visit` was told of it.
        visit: called at each of the four stops.

    Returns:
        The hidden states behind the layer.
    """
    layer, eps = f"layers.{i}", spec.text.eps
    qkv = tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv")
    weight = tensor(f"{layer}.input_layernorm.weight")
    normed = [_floats(reference.rms_norm(x, weight, eps)) for x in states]
    visit(qkv, normed)
    mixed = [_attended(y, qkv, spec, tensor) for y in normed]
    output = f"{layer}.self_attn.o_proj"
    visit((output,), mixed)
    states = [x + _product(y, tensor, output) for x, y in zip(states, mixed, strict=True)]
    weight = tensor(f"{layer}.post_attention_layernorm.weight")
    normed = [_floats(reference.rms_norm(x, weight, eps)) for x in states]
    gate, up, down = (f"{layer}.mlp.{part}_proj" for part in ("gate", "up", "down"))
    visit((gate, up), normed)
    gated = [_gated(y, gate, up, tensor) for y in normed]
    visit((down,), gated)
    return [x + _product(y, tensor, down) for x, y in zip(states, gated, strict=True)]


def _product(x: Floats, tensor: Tensors, name: str) -> Floats:
    return _floats(reference.linear_layer(x, tensor, name))


def _attended(x: Floats, names: tuple[str, ...], spec: ModelSpec, tensor: Tensors) -> Floats:
    text = spec.text
    q, k, v = (_heads(x, tensor, name, spec) for name in names)
    positions = np.arange(len(x), dtype=np.int64)
    q, k = (reference.rotate(z, positions, text.rope_theta, text.rope) for z in (q, k))
    return _floats(reference.dense_attention(q, k, v, causal=True))


def _heads(x: Floats, tensor: Tensors, name: str, spec: ModelSpec) -> reference.Array:
    heads = _product(x, tensor, name)
    if spec.text.qkv_bias:
        heads = heads + tensor(f"{name}.bias")
    return heads.reshape(len(x), -1, spec.text.head_size)


def _gated(x: Floats, gate: str, up: str, tensor: Tensors) -> Floats:
    """SwiGLU."""
    opened = _product(x, tensor, gate)
    return _floats(opened * reference.sigmoid(opened) * _product(x, tensor, up))


def _floats(x: reference.Array) -> Floats:
    return x.astype(np.float32, copy=False)
