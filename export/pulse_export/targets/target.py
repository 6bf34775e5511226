"""What a target must emit. The networks call this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import TextSpec
from pulse_export.graph import Graph
from pulse_export.quantize.precision import Precision, Storage
from pulse_export.quantize.weights import QuantWeight

Weight = QuantWeight | NDArray[np.float32]  # float32 [rows = outputs, columns = inputs]


@dataclass(frozen=True)
class Cache:
    """What a decoder layer's attention needs besides its projections; built once per graph by `emit_cache_inputs`."""

    names: dict[str, str]


class Target(Protocol):
    """One way of writing the networks. Values are [batch, rows, features] in `io` floats unless said otherwise."""

    @property
    def name(self) -> str: ...

    @property
    def io(self) -> type[np.generic]:
        """The graphs' float type."""

    @property
    def features(self) -> type[np.generic]:
        """Of the image's features, which go from one graph to the other over the host."""

    @property
    def opsets(self) -> dict[str, int]: ...

    @property
    def storages(self) -> frozenset[str]:
        """Weight storages it runs, of the precision table's."""

    def bits(self, storage: str) -> int:
        """Of a quantized storage's codes."""

    @property
    def blocked(self) -> frozenset[str]:
        """Quantized storages whose weights have a scale for each block of inputs; others have one for each output."""

    @property
    def signed_scales(self) -> bool:
        """Whether a scale may be negative (see `quantize`)."""

    def adapted(self, precision: Precision, tower: Storage | None = None) -> Precision:
        """The precision as it runs best here, with another storage for a part.

        tower: what the vision tower and projector are to be stored as, in so many bits; None leaves
            it to the target.
        """

    @property
    def activations(self) -> str:
        """What quantized weights are multiplied with, in words."""

    @property
    def calibrated(self) -> bool:
        """Whether w8a8 needs activation scales from a calibration; if not, they are found at run time."""

    @property
    def gathers(self) -> bool:
        """Whether the decoder takes the numbers of rows of a table on the device (`engines.engine.Engine`), and
        says which token is the likeliest, instead of taking embeddings."""

    def emit_linear(
        self, graph: Graph, x: str, weight: Weight, bias: NDArray[np.float32] | None, name: str,
        scale: float | None = None,
    ) -> str:  # fmt: skip
        """y = x W^T + b. `scale`: x is rounded to int8 codes of this step first, where the target is `calibrated`."""

    def emit_layer_norm(self, graph: Graph, x: str, weight: str, bias: str, eps: float, name: str) -> str: ...

    def emit_rms_norm(self, graph: Graph, x: str, weight: str, eps: float, name: str) -> str: ...

    def emit_add_rms_norm(self, graph: Graph, x: str, skip: str, weight: str, eps: float, name: str) -> tuple[str, str]:
        """(norm(x + skip), x + skip)."""

    def emit_activation(self, graph: Graph, x: str, kind: str, name: str) -> str:
        """kind: `quick_gelu` x s(1.702 x), `gelu` (erf), `silu` x s(x)."""

    def emit_attention(self, graph: Graph, q: str, k: str, v: str, heads: int, name: str) -> str:
        """Full (bidirectional) attention."""

    def emit_cache_inputs(self, graph: Graph, x: str, spec: TextSpec) -> Cache:
        """The cache, and the positions of x's rows in it."""

    def emit_cached_attention(self, graph: Graph, qkv: str, cache: Cache, spec: TextSpec, layer: int, name: str) -> str:
        """RoPE, append to layer's cache, causal attention over it. qkv: q, k and v side by side."""


def rope_tables(spec: TextSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cos, sin float32 [context, head_size / 2] of Llama's rotary embedding.

    Angles are rounded to float32 before the cosine, as in Hugging Face's LlamaRotaryEmbedding: at position 4,000 an
    exact angle would differ from what the model was trained with in the fourth digit.
    """
    exponents = np.arange(0, spec.head_size, 2, dtype=np.float32) / np.float32(spec.head_size)
    inverse = (1 / spec.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    angles = np.outer(np.arange(spec.context, dtype=np.float32), inverse)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
