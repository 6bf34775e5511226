"""The whole model in plain numpy, to compare bundles with.

`pulse-edge verify --against` and the tests use it. Written from the papers and the authors' code,
independently of the runtime and of the graphs: LLaVA-1.5/1.6 (Liu et al., arXiv 2310.03744;
llava/mm_utils.py, llava/model/llava_arch.py in AIMedLab/PULSE), CLIP (Radford et al., arXiv
2103.00020), Llama 2 (Touvron et al., arXiv 2307.09288), with Hugging Face's conventions if those
leave a choice. Readability comes before speed. A 7B checkpoint still goes through on a workstation,
because weights are asked for one at a time through `tensor(name)` and attention runs in blocks of
rows.

`tensor` takes the canonical names of `checkpoint.py` and gives arrays of any float type. Arithmetic
is done in the type of the incoming activations: float32 as a rule, float64 to tell rounding from
error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.bundle.spec import ImageSpec, ModelSpec, RopeScaling

Array = NDArray[np.floating[Any]]
Tensor = Callable[[str], Array]
Size = tuple[int, int]  # (width, height)

ROW_BLOCK = 256  # queries scored at a time: 32 heads x 256 x 3,000 keys in float32 are 100 MB


# --- image -> pixels ------------------------------------------------------------------------------


def best_grid(size: Size, grids: Sequence[Size]) -> Size:
    """The grid of largest effective resolution, then least waste, then first in the list.

    Source: `select_best_resolution`.
    """
    width, height = size
    scored = []
    for order, (grid_w, grid_h) in enumerate(grids):
        scale = min(grid_w / width, grid_h / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        scored.append((-effective, grid_w * grid_h - effective, order))
    return grids[min(scored)[2]]


def views(image: Image.Image, spec: ModelSpec) -> list[Image.Image]:
    """RGB page -> square views of `image_size` pixels.

    Under anyres the first is the squashed page; the tiles follow row by row.
    """
    side, image_spec = spec.vision.image_size, spec.image
    if image_spec.aspect == "square":
        return [_shortest_edge_crop(image, side)]
    if image_spec.aspect == "stretch":
        return [_resized(image, (side, side))]
    if image_spec.aspect == "pad":
        edge = max(image.size)
        colour = tuple(int(255 * channel) for channel in image_spec.mean)
        return [_shortest_edge_crop(_centred(image, (edge, edge), colour), side)]
    grid = best_grid(image.size, image_spec.grids)
    scale_w, scale_h = grid[0] / image.width, grid[1] / image.height
    fitted = [grid[0], grid[1]]
    if scale_w < scale_h:
        fitted[1] = min(grid[1], math.ceil(image.height * scale_w))
    else:
        fitted[0] = min(grid[0], math.ceil(image.width * scale_h))
    page = _centred(_resized(image, (fitted[0], fitted[1])), grid, (0, 0, 0))
    corners = [(x, y) for y in range(0, grid[1], side) for x in range(0, grid[0], side)]
    tiles = [page.crop((x, y, x + side, y + side)) for x, y in corners]
    return [_resized(image, (side, side)), *tiles]


def _resized(image: Image.Image, size: Size) -> Image.Image:
    """Bicubic, rows first, then columns: `Image.resize` up to Pillow 12.1, to the bit.

    Upstream ran with that. Each pass rounds to bytes. Pillow 12.2 and 13 choose another order for
    some tall pages, so the order is spelled out here.
    """
    bicubic = Image.Resampling.BICUBIC
    return image.resize((size[0], image.height), bicubic).resize(size, bicubic)


def _centred(image: Image.Image, size: Size, colour: tuple[int, ...]) -> Image.Image:
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def _shortest_edge_crop(image: Image.Image, side: int) -> Image.Image:
    """Shortest edge to `side`, the other truncated to whole pixels; centre crop.

    Source: CLIPImageProcessor.
    """
    short, long = sorted(image.size)
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    resized = _resized(image, size)
    x, y = (resized.width - side) // 2, (resized.height - side) // 2
    return resized.crop((x, y, x + side, y + side))


def pixels(image: Image.Image, spec: ModelSpec) -> NDArray[np.float32]:
    """Page of any mode -> float32 [views, 3, image_size, image_size].

    Normalised as CLIPImageProcessor does.
    """
    stack = np.stack([np.asarray(view) for view in views(image.convert("RGB"), spec)])
    scaled = (stack * (1 / 255)).astype(np.float32)  # the product is a double, rounded once
    mean, std = np.array(spec.image.mean, np.float32), np.array(spec.image.std, np.float32)
    return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))


# --- pixels -> image tokens -----------------------------------------------------------------------


def erf(x: Array) -> Array:
    """The error function to the last bit of double precision (libm's), element by element."""
    flat = np.ascontiguousarray(x, np.float64).reshape(-1)
    values: NDArray[np.float64] = np.fromiter(map(math.erf, flat.data), np.float64, flat.size)
    return values.reshape(x.shape).astype(x.dtype)


def gelu(x: Array) -> Array:
    """Exact GELU, x Phi(x)."""
    result: Array = x * (erf(x / math.sqrt(2)) + 1) / 2
    return result


def sigmoid(x: Array) -> Array:
    """Without overflow: exp only ever sees what is not positive."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result


def quick_gelu(x: Array) -> Array:
    """CLIP's approximation, x sigmoid(1.702 x)."""
    return x * sigmoid(1.702 * x)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt(variance + eps) * weight + bias
    return result


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    result: Array = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight
    return result


def softmax(x: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def linear_layer(x: Array, tensor: Tensor, name: str) -> Array:
    """x W^T.

    To see what the layers read, pass a `Linear` of your own to the functions below.
    """
    result: Array = x @ tensor(f"{name}.weight").astype(x.dtype).T
    return result


Linear = Callable[[Array, Tensor, str], Array]


def _unbiased(x: Array, tensor: Tensor, name: str, linear: Linear) -> Array:
    return linear(x, tensor, name)


def _affine(x: Array, tensor: Tensor, name: str, linear: Linear) -> Array:
    """x W^T + b."""
    return linear(x, tensor, name) + tensor(f"{name}.bias").astype(x.dtype)


def _norm(x: Array, tensor: Tensor, name: str, eps: float) -> Array:
    weight, bias = (tensor(f"{name}.{part}").astype(x.dtype) for part in ("weight", "bias"))
    return layer_norm(x, weight, bias, eps)


def vision_embeddings(view: Array, spec: ModelSpec, tensor: Tensor) -> Array:
    """One view [3, H, W] -> what the first layer reads [1 + patches, width], class token first."""
    v, dtype = spec.vision, view.dtype
    edge = v.grid * v.patch_size
    blocks = view[:, :edge, :edge].reshape(3, v.grid, v.patch_size, v.grid, v.patch_size)
    # One row a patch, in the order of the kernel's elements.
    patches = blocks.transpose(1, 3, 0, 2, 4).reshape(v.grid**2, 3 * v.patch_size**2)
    kernel = tensor("vision.embeddings.patch_embedding.weight").astype(dtype).reshape(v.width, -1)
    first = tensor("vision.embeddings.class_embedding").astype(dtype)
    x = np.concatenate([first[None], patches @ kernel.T])
    x = x + tensor("vision.embeddings.position_embedding.weight").astype(dtype)
    return _norm(x, tensor, "vision.pre_layrnorm", v.eps)


def vision_layer(
    x: Array, i: int, spec: ModelSpec, tensor: Tensor, linear: Linear = linear_layer
) -> Array:
    """Layer `i` on one view's hidden state [1 + patches, width]."""
    v, layer = spec.vision, f"vision.encoder.layers.{i}"
    y = _norm(x, tensor, f"{layer}.layer_norm1", v.eps)
    q, k, w = (
        _affine(y, tensor, f"{layer}.self_attn.{p}_proj", linear).reshape(len(y), v.heads, -1)
        for p in "qkv"
    )
    x = x + _affine(
        dense_attention(q, k, w, causal=False), tensor, f"{layer}.self_attn.out_proj", linear
    )
    y = _affine(_norm(x, tensor, f"{layer}.layer_norm2", v.eps), tensor, f"{layer}.mlp.fc1", linear)
    y = quick_gelu(y) if v.activation == "quick_gelu" else gelu(y)
    return x + _affine(y, tensor, f"{layer}.mlp.fc2", linear)


def vision_hidden(view: Array, spec: ModelSpec, tensor: Tensor) -> Array:
    """One view [3, H, W] -> hidden state [1 + patches, width] after `feature_layers` layers.

    The class token comes first.
    """
    x = vision_embeddings(view, spec, tensor)
    for i in range(spec.vision.feature_layers):
        x = vision_layer(x, i, spec, tensor)
    return x


def project(x: Array, spec: ModelSpec, tensor: Tensor, linear: Linear = linear_layer) -> Array:
    """Hidden states of patches [..., width] -> features [..., hidden]."""
    for depth in range(spec.projector_depth):
        x = _affine(gelu(x) if depth else x, tensor, f"projector.{2 * depth}", linear)
    return x


def vision_features(pixels: Array, spec: ModelSpec, tensor: Tensor) -> Array:
    """Pixels [views, 3, H, W] -> projected features [views, patches, hidden].

    The class token is dropped.
    """
    return project(
        np.stack([vision_hidden(view, spec, tensor)[1:] for view in pixels]), spec, tensor
    )


def merge_features(
    features: Array, image_size: Size, spec: ModelSpec, newline: Array | None = None
) -> Array:
    """Features [views, patches, hidden] of a page of `image_size` (width, height) -> image tokens
    [tokens, hidden].

    `newline` [hidden] is needed for `spatial_unpad` under anyres only. A checkpoint with one view
    (pad, square) has its tokens as they are under either merge type: that is the way the authors'
    evaluation goes (a four-dimensional `images` tensor).
    """
    image: ImageSpec = spec.image
    if image.merge == "flat" or image.aspect != "anyres":
        return np.concatenate(list(features))
    if newline is None:
        raise ValueError("merging with spatial_unpad needs image_newline")
    side, n = spec.vision.image_size, spec.vision.grid
    grid_w, grid_h = best_grid(image_size, image.grids)
    across, down = grid_w // side, grid_h // side
    bands = [
        np.concatenate([_square(t, n) for t in features[1 + across * r :][:across]], axis=1)
        for r in range(down)
    ]
    kept = unpad(np.concatenate(bands), image_size)  # from [down n, across n, hidden]
    rows = [np.concatenate([row, newline[None].astype(row.dtype)]) for row in kept]
    return np.concatenate([features[0], *rows])


def _square(view: Array, n: int) -> Array:
    return view.reshape(n, n, -1)


def unpad(feature_map: Array, image_size: Size) -> Array:
    """A map [rows, columns, hidden] without its letterbox.

    Source: `unpad_image`, with its truncations.
    """
    (width, height), (rows, columns) = image_size, feature_map.shape[:2]
    if width / height > columns / rows:
        margin = (rows - int(height * (columns / width))) // 2
        return feature_map[margin : rows - margin]
    margin = (columns - int(width * (rows / height))) // 2
    return feature_map[:, margin : columns - margin]


# --- embeddings -> logits -------------------------------------------------------------------------


@dataclass
class Cache:
    """Keys and values of the positions so far, a layer each: [positions, kv_heads, head_size]."""

    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.keys[0]) if self.keys else 0

    def extend(self, layer: int, key: Array, value: Array) -> tuple[Array, Array]:
        """Appends; gives everything there is."""
        if layer == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[layer] = np.concatenate([self.keys[layer], key])
            self.values[layer] = np.concatenate([self.values[layer], value])
        return self.keys[layer], self.values[layer]


def dense_attention(q: Array, k: Array, v: Array, causal: bool) -> Array:
    """q [queries, heads, size], k and v [keys, kv_heads, size] -> [queries, heads size].

    Scale is size^-1/2. Query head h reads key/value head h // (heads / kv_heads). With `causal`,
    the queries are the last positions of the keys.
    """
    queries, heads, size = q.shape
    offset, group = len(k) - queries, heads // k.shape[1]
    keys = k.transpose(1, 2, 0).repeat(group, axis=0)  # [heads, size, keys]
    values = v.transpose(1, 0, 2).repeat(group, axis=0)  # [heads, keys, size]
    out = np.empty((queries, heads, size), q.dtype)
    for start in range(0, queries, ROW_BLOCK):
        block = q[start : start + ROW_BLOCK].transpose(1, 0, 2) * size**-0.5
        end = offset + start + block.shape[1] if causal else len(k)
        scores = block @ keys[:, :, :end]
        if causal:
            seen = np.arange(end)[None, :] <= offset + start + np.arange(block.shape[1])[:, None]
            scores = np.where(seen, scores, -np.inf)
        out[start : start + ROW_BLOCK] = (softmax(scores) @ values[:, :end]).transpose(1, 0, 2)
    return out.reshape(queries, heads * size)


def stretched(frequency: Array, scaling: RopeScaling | None) -> Array:
    """RoPE's frequencies under a scaling, in their own type.

    `llama3` divides those whose waves are longer than `original / low`, keeps those shorter than
    `original / high`, and interpolates between. Source: llama_models' `apply_scaling`.
    """
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    low, high, original = (
        float(value or 0)
        for value in (scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context)
    )
    waves = original * frequency / (2 * math.pi)  # in the original context
    kept = np.clip((waves - low) / (high - low), 0, 1)
    result: Array = (frequency * (kept + (1 - kept) / scaling.factor)).astype(frequency.dtype)
    return result


def rotate(
    x: Array, positions: NDArray[np.int64], theta: float, scaling: RopeScaling | None = None
) -> Array:
    """RoPE on [positions, heads, size] (arXiv 2104.09864).

    Halves are paired as Hugging Face's Llama does (`rotate_half`). Angles are formed in the
    activations' type, so that float32 rounds the way upstream's tables do.
    """
    half = x.shape[-1] // 2
    frequency = stretched((1 / theta ** (np.arange(half) / half)).astype(x.dtype), scaling)
    angle = positions.astype(x.dtype)[:, None, None] * frequency
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def decoder_layer(
    x: Array,
    i: int,
    spec: ModelSpec,
    tensor: Tensor,
    cache: Cache | None = None,
    linear: Linear = linear_layer,
) -> Array:
    """Layer `i` on hidden states [n, hidden].

    With `cache` they follow the positions that it holds of this layer, and are added to it.
    """
    t, dtype, layer = spec.text, x.dtype, f"layers.{i}"
    past = len(cache.keys[i]) if cache is not None and i < len(cache.keys) else 0
    positions = past + np.arange(len(x), dtype=np.int64)
    y = rms_norm(x, tensor(f"{layer}.input_layernorm.weight").astype(dtype), t.eps)
    project_heads = _affine if t.qkv_bias else _unbiased
    q, k, v = (
        project_heads(y, tensor, f"{layer}.self_attn.{p}_proj", linear).reshape(
            len(y), -1, t.head_size
        )
        for p in "qkv"
    )
    q, k = (rotate(z, positions, t.rope_theta, t.rope) for z in (q, k))
    mixed = dense_attention(q, *((k, v) if cache is None else cache.extend(i, k, v)), causal=True)
    x = x + linear(mixed, tensor, f"{layer}.self_attn.o_proj")
    y = rms_norm(x, tensor(f"{layer}.post_attention_layernorm.weight").astype(dtype), t.eps)
    gate = linear(y, tensor, f"{layer}.mlp.gate_proj")
    y = gate * sigmoid(gate) * linear(y, tensor, f"{layer}.mlp.up_proj")
    return x + linear(y, tensor, f"{layer}.mlp.down_proj")


def decoder_hidden(
    embeds: Array, spec: ModelSpec, tensor: Tensor, cache: Cache | None = None
) -> Array:
    """Embeddings [n, hidden] -> hidden state [n, hidden] after the last layer and `norm`.

    Without `cache` these are positions 0 to n - 1; with one they follow what it holds, and are
    added to it.
    """
    x = embeds
    for i in range(spec.text.layers):
        x = decoder_layer(x, i, spec, tensor, cache)
    return rms_norm(x, tensor("norm.weight").astype(x.dtype), spec.text.eps)


def logits(
    embeds: Array,
    spec: ModelSpec,
    tensor: Tensor,
    rows: Sequence[int] | None = None,
    cache: Cache | None = None,
) -> Array:
    """Embeddings [n, hidden] -> logits [rows, vocab] of the chosen rows, or of all.

    Of a tied checkpoint, `tensor` answers `lm_head.weight` with the embeddings.
    """
    hidden = decoder_hidden(embeds, spec, tensor, cache)
    return linear_layer(hidden if rows is None else hidden[list(rows)], tensor, "lm_head")


@dataclass(frozen=True)
class Greedy:
    """Greedily chosen ids.

    Attributes:
        margins: for each id the lead of its logit over the second best.
        scales: for each id the largest magnitude of the logits there.
    """

    tokens: list[int]
    margins: list[float]
    scales: list[float]


def greedy(embeds: Array, spec: ModelSpec, tensor: Tensor, n: int, stop: bool = True) -> Greedy:
    """Up to `n` tokens after the prompt `embeds` [length, hidden].

    Every step reads all weights once. Of equal logits the lowest id is taken, as argmax does.

    Args:
        stop: end with the first end-of-text id.
    """
    cache, chosen = Cache(), Greedy([], [], [])
    table = tensor("embed_tokens.weight")
    while len(chosen.tokens) < n:
        row = logits(embeds, spec, tensor, rows=[-1], cache=cache)[0]
        token = int(row.argmax())
        second, first = np.partition(row, -2)[-2:]
        chosen.tokens.append(token)
        chosen.margins.append(float(first - second))
        chosen.scales.append(float(np.abs(row).max()))
        if stop and token in spec.text.eos:
            break
        embeds = table[token][None].astype(embeds.dtype)
    return chosen


def splice(
    ids: Sequence[int], image: Array | None, tensor: Tensor, dtype: type = np.float32
) -> Array:
    """Prompt ids -> embeddings [n, hidden].

    A negative id is replaced by all rows of `image` [tokens, hidden].
    """
    table = tensor("embed_tokens.weight")
    parts: list[Array] = []
    for token in ids:
        if token >= 0:
            parts.append(table[token][None].astype(dtype))
        elif image is None:
            raise ValueError("the prompt has a slot for an image, but there is none")
        else:
            parts.append(image.astype(dtype))
    return np.concatenate(parts)
