"""CLIP ViT and LLaVA's projector as one graph; or the projector behind another tower.

Pixels float32 [views, 3, side, side] -> features [views, patches, hidden]. Sources: transformers
modeling_clip.py `CLIPVisionTransformer`; llava clip_encoder.py (the hidden state before the last
layers, without class token and post-LayerNorm) and multimodal_projector/builder.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.graph import onnx_type
from pulse_export.network.writer import NetworkWriter

# Writes a tower: the graph, and the name of pixels in the target's float type -> the name of the
# patches' hidden states [views, patches, width].
WriteTower = Callable[[NetworkWriter, str], str]


def write_vision(net: NetworkWriter, spec: ModelSpec, tower: WriteTower | None = None) -> None:
    """Write the whole tower and projector. Pixels are float32, features as the target has them.

    Args:
        net: the graph, target, precision and tensors.
        spec: the model.
        tower: writes another tower than CLIP's.
    """
    v, io = spec.vision, net.target.io
    pixels = net.graph.input("pixels", np.float32, ["views", 3, v.image_size, v.image_size])
    if io != np.float32:
        pixels = net.node("Cast", pixels, name="pixels.cast", to=onnx_type(io))
    x = tower(net, pixels) if tower else _clip(net, spec, pixels)
    for depth in range(spec.projector_depth):
        if depth:
            x = net.target.emit_activation(net.graph, x, "gelu", f"projector.{2 * depth - 1}")
        x = net.linear(x, f"projector.{2 * depth}", part="vision")
    out = net.target.features
    net.node("Cast", x, name="features", to=onnx_type(out))
    net.graph.output("features", out, ["views", v.grid**2, spec.text.hidden])


def _clip(net: NetworkWriter, spec: ModelSpec, pixels: str) -> str:
    """Hidden states of the patches [views, patches, width], without the class token."""
    v = spec.vision
    x = _embed(net, spec, pixels)
    x = net.layer_norm(x, "vision.pre_layrnorm", v.eps)
    for i in range(v.feature_layers):
        x = _layer(net, spec, x, f"vision.encoder.layers.{i}")
    return net.node("Slice", x, net.ints(1), net.ints(2**31), net.ints(1), name="vision.patches")


def _embed(net: NetworkWriter, spec: ModelSpec, pixels: str) -> str:
    """Embedded patches [views, 1 + patches, width], the class token first, with positions.

    The patch convolution is one matrix product, because its stride is its kernel.
    """
    v, io = spec.vision, net.target.io
    g, p = v.grid, v.patch_size
    x = net.node("Reshape", pixels, net.ints(0, 3, g, p, g, p), name="vision.cut")
    # -> [views, grid y, grid x, channel, patch y, patch x]
    x = net.node("Transpose", x, name="vision.order", perm=[0, 2, 4, 1, 3, 5])
    x = net.node("Reshape", x, net.ints(0, g * g, 3 * p * p), name="vision.patch_pixels")
    kernel = net.tensors("vision.embeddings.patch_embedding.weight").reshape(v.width, -1)
    x = net.target.emit_linear(net.graph, x, kernel, None, "vision.patch_embedding")
    # The class token and its position are one constant row: padding adds a zero row in its place.
    positions = net.tensors("vision.embeddings.position_embedding.weight").copy()
    positions[0] += net.tensors("vision.embeddings.class_embedding")
    x = net.node("Pad", x, net.ints(0, 1, 0, 0, 0, 0), name="vision.class_row")
    return net.node(
        "Add",
        x,
        net.graph.weight("vision.positions", positions.astype(io)),
        name="vision.embeddings",
    )


def _layer(net: NetworkWriter, spec: ModelSpec, x: str, name: str) -> str:
    v = spec.vision
    h = net.layer_norm(x, f"{name}.layer_norm1", v.eps)
    q, k, w = (net.linear(h, f"{name}.self_attn.{p}_proj", part="vision") for p in "qkv")
    h = net.target.emit_attention(net.graph, q, k, w, v.heads, f"{name}.attention")
    h = net.linear(h, f"{name}.self_attn.out_proj", part="vision")
    x = net.node("Add", x, h, name=f"{name}.add1")
    h = net.layer_norm(x, f"{name}.layer_norm2", v.eps)
    h = net.linear(h, f"{name}.mlp.fc1", part="vision")
    h = net.target.emit_activation(net.graph, h, v.activation, f"{name}.mlp.act")
    h = net.linear(h, f"{name}.mlp.fc2", part="vision")
    return net.node("Add", x, h, name=f"{name}.add2")
