"""What a target must emit. The networks call this and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import ModelSpec, RopeScaling, TextSpec
from pulse_export.graph import Graph
from pulse_export.quantize.precision import Precision
from pulse_export.quantize.weights import QuantWeight

Weight = QuantWeight | NDArray[np.float32]  # float32 [rows = outputs, columns = inputs]
# float32 [1, kv_heads, 1, head_size], the value of code 1, by cache tensor: `0.key`, `0.value`, ...
CacheScales = Mapping[str, NDArray[np.float32]]
QuantizeCache = Callable[[Graph, CacheScales], None]


@dataclass(frozen=True)
class CacheInputs:
    """What a decoder layer's attention needs besides its projections.

    Built once a graph by `emit_cache_inputs`.

    Attributes:
        names: the graph's names of inputs and weights, by the target's own keys, such as "mask".
    """

    names: dict[str, str]


class Target(Protocol):
    """One way of writing the networks.

    Values are [batch, rows, features] in `io` floats unless a docstring says otherwise.
    """

    @property
    def name(self) -> str: ...

    @property
    def io(self) -> type[np.generic]:
        """The graphs' float type."""

    @property
    def features(self) -> type[np.generic]:
        """Type of a page's features, which go from one graph to the other over the host."""

    @property
    def opsets(self) -> dict[str, int]: ...

    @property
    def storages(self) -> frozenset[str]:
        """Names of the weight storages it runs, of `STORAGES`."""

    @property
    def caches(self) -> frozenset[str]:
        """What the KV cache may hold, of `CACHES`."""

    def bits(self, storage: str) -> int:
        """Bits of a quantized storage's codes."""

    @property
    def blocked(self) -> frozenset[str]:
        """Quantized storages with a scale for each block of inputs, not for each output."""

    @property
    def signed_scales(self) -> bool:
        """Whether a scale may be negative (see `quantize`)."""

    def adapted(self, precision: Precision, tower: str | None = None) -> Precision:
        """The precision as it runs best here: a part may get another storage.

        Args:
            precision: a row of `PRECISIONS`.
            tower: storage of the vision tower and projector; None leaves it to the target.
        """

    @property
    def activations(self) -> str:
        """Type of the activations that quantized weights are multiplied with, in words."""

    @property
    def calibrated(self) -> bool:
        """Whether w8a8 needs activation scales from a calibration; else the graph computes them."""

    @property
    def gathers(self) -> bool:
        """Whether the decoder takes numbers of rows of a table on the device instead of embeddings
        (`engines.engine.Engine`), and gives the likeliest tokens as well."""

    @property
    def batched(self) -> bool:
        """Whether the decoder takes several sequences at a time, each with a cache of its own."""

    @property
    def indexed(self) -> bool:
        """Whether the bundle says where the decoder's weights lie (`pulse_edge.bundle.tensors`)."""

    def misfit(self, spec: ModelSpec) -> str | None:
        """Why the target cannot run a model of these sizes, and what to do; None if it can."""

    def emit_linear(
        self,
        graph: Graph,
        x: str,
        weight: Weight,
        bias: NDArray[np.float32] | None,
        name: str,
        scale: float | None = None,
    ) -> str:
        """y = x W^T + b.

        Args:
            scale: x is first rounded to int8 codes of this step, if the target is `calibrated`.
        """

    def emit_layer_norm(
        self, graph: Graph, x: str, weight: str, bias: str, eps: float, name: str
    ) -> str: ...

    def emit_rms_norm(self, graph: Graph, x: str, weight: str, eps: float, name: str) -> str: ...

    def emit_add_rms_norm(
        self, graph: Graph, x: str, skip: str, weight: str, eps: float, name: str
    ) -> tuple[str, str]:
        """Returns norm(x + skip), and x + skip for the next residual."""

    def emit_activation(self, graph: Graph, x: str, kind: str, name: str) -> str:
        """An activation: `quick_gelu` x s(1.702 x), `gelu` (erf), `silu` x s(x), with sigmoid s."""

    def emit_attention(self, graph: Graph, q: str, k: str, v: str, heads: int, name: str) -> str:
        """Full (bidirectional) attention."""

    def emit_cache_inputs(self, graph: Graph, x: str, spec: TextSpec) -> CacheInputs:
        """The cache, and the positions of x's rows in it."""

    def emit_cached_attention(
        self, graph: Graph, qkv: str, cache: CacheInputs, spec: TextSpec, layer: int, name: str
    ) -> str:
        """RoPE, append to layer's cache, causal attention over it. qkv: q, k and v side by side."""

    @property
    def quantize_cache(self) -> QuantizeCache | None:
        """Gives a finished decoder a KV cache of 8-bit codes. None if `caches` has no int8.

        The graph was written with a float cache, which ran once for the scales. Weights and all
        other nodes stay.
        """


def rope_tables(spec: TextSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cos, sin float32 [context, head_size / 2] of Llama's rotary embedding.

    Angles are rounded to float32 before the cosine, as in Hugging Face's LlamaRotaryEmbedding. At
    position 4,000 an exact angle would differ in the fourth digit from the one of the training.
    """
    exponents = np.arange(0, spec.head_size, 2, dtype=np.float32) / np.float32(spec.head_size)
    inverse = (1 / spec.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    inverse = _scaled(inverse, spec.rope)
    angles = np.outer(np.arange(spec.context, dtype=np.float32), inverse)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _scaled(inverse: NDArray[np.float32], rope: RopeScaling | None) -> NDArray[np.float32]:
    """Frequencies float32 [head_size / 2] under a scaling.

    In float32 and in the order of transformers' modeling_rope_utils.py. There torch divides a
    number by a tensor as the tensor's reciprocal times the number.
    """
    if rope is None:
        return inverse
    factor = np.float32(rope.factor)
    if rope.low_freq_factor is None or rope.high_freq_factor is None:
        return inverse / factor
    original = np.float32(rope.original_context or 0)
    low, high = np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    waves = (1 / inverse) * np.float32(2 * np.pi)  # positions of a whole turn
    smooth = ((1 / waves) * original - low) / (high - low)
    between = (1 - smooth) * inverse / factor + smooth * inverse
    scaled = np.where(waves > original / low, inverse / factor, inverse)
    medium = (waves >= original / high) & (waves <= original / low)
    return np.where(medium, between, scaled).astype(np.float32)
