"""Least work and traffic of the networks, from their sizes alone.

FLOP are multiplications and additions. A linear layer of K inputs and N outputs takes 2 K N FLOP a
row; attention takes 4 x heads x head size for each pair of a row and a position that it attends to
(q k' and p v).
"""

from __future__ import annotations

from collections.abc import Iterator

from pulse_edge.bundle.spec import TextSpec, VisionSpec
from pulse_edge.units import element_bytes


def layer_weights(text: TextSpec) -> int:
    """Elements of one decoder layer's linears."""
    return (
        text.hidden * text.head_size * 2 * (text.heads + text.kv_heads) + 3 * text.hidden * text.ffn
    )


def cache_row(text: TextSpec, stored: str) -> int:
    """Bytes of one position in the cache of all layers. `stored`: its type."""
    return 2 * text.layers * text.kv_heads * text.head_size * element_bytes(stored)


def passes(tokens: int, before: int, size: int) -> Iterator[tuple[int, int]]:
    """(positions before, rows) of each pass over `tokens` positions, `size` at a time, 0 for
    all."""
    for at in range(before, before + tokens, size or tokens):
        yield at, min(size or tokens, before + tokens - at)


def linear(text: TextSpec, rows: int) -> int:
    """FLOP of the layers' linears for `rows` rows, and of the head for one.

    The exported decoder runs what follows the last layer's attention for that one row only, which
    saves little of 32 layers, but a third of a slice of two.
    """
    layer = layer_weights(text)
    qkv = text.hidden * text.head_size * (text.heads + 2 * text.kv_heads)
    every = (text.layers - 1) * layer + qkv
    return 2 * (rows * every + (layer - qkv) + text.hidden * text.vocab)


def attention(text: TextSpec, before: int, rows: int) -> int:
    """FLOP of `rows` positions that attend to `before` and, causally, to each other."""
    pairs = rows * before + rows * (rows + 1) // 2
    return 4 * text.layers * text.heads * text.head_size * pairs


def vision_weights(vision: VisionSpec, hidden: int, projector_depth: int) -> int:
    """Elements of the tower's and the projector's linears."""
    layer = 4 * vision.width**2 + 2 * vision.width * vision.mlp
    projector = vision.width * hidden + (projector_depth - 1) * hidden**2
    return vision.feature_layers * layer + projector


def vision_linear(vision: VisionSpec, hidden: int, projector_depth: int, views: int) -> int:
    """FLOP of the linears for `views` views. The class token counts as one more patch."""
    rows = vision.grid**2 + 1
    patches = 3 * vision.patch_size**2 * vision.width
    return 2 * views * rows * (vision_weights(vision, hidden, projector_depth) + patches)


def vision_attention(vision: VisionSpec, views: int) -> int:
    """FLOP of attention for `views` views: every row attends to every row of its view."""
    rows = vision.grid**2 + 1
    return 4 * views * vision.feature_layers * vision.width * rows**2
