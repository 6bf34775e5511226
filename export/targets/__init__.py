"""What a target must emit. The networks in `vision.py` and `decoder.py` call these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle import TextSpec
from pulse_edge.errors import ExportError

from ..graph import Graph
from ..precision import Precision, QuantWeight

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
    def opsets(self) -> dict[str, int]: ...

    @property
    def storages(self) -> frozenset[str]:
        """Weight storages it runs, of the precision table's."""

    @property
    def activations(self) -> str:
        """What quantized weights are multiplied with, in words."""

    def emit_linear(self, graph: Graph, x: str, weight: Weight, bias: NDArray[np.float32] | None, name: str) -> str:
        """y = x W^T + b."""

    def emit_layer_norm(self, graph: Graph, x: str, weight: str, bias: str, eps: float, name: str) -> str: ...

    def emit_rms_norm(self, graph: Graph, x: str, weight: str, eps: float, name: str) -> str: ...

    def emit_add_rms_norm(self, graph: Graph, x: str, skip: str, weight: str, eps: float, name: str) -> tuple[str, str]:
        """(norm(x + skip), x + skip)."""

    def emit_activation(self, graph: Graph, x: str, kind: str, name: str) -> str:
        """kind: `quick_gelu` x s(1.702 x), `gelu` (erf), `silu` x s(x)."""

    def emit_attention(self, graph: Graph, q: str, k: str, v: str, heads: int, name: str) -> str:
        """Full (bidirectional) attention."""

    def emit_cache_inputs(self, graph: Graph, spec: TextSpec) -> Cache: ...

    def emit_cached_attention(self, graph: Graph, qkv: str, cache: Cache, spec: TextSpec, layer: int, name: str) -> str:
        """RoPE, append to layer's cache, causal attention over it. qkv: q, k and v side by side."""


def get_target(name: str, precision: Precision) -> Target:
    """The target for one precision. Raises `ExportError` for a pair that is not supported."""
    from .contrib import CPU, CUDA  # each target's file names what it supports

    makers: dict[str, Target] = {"cpu": CPU, "cuda": CUDA}
    if name not in makers:
        raise ExportError(f"target {name!r} is not one of {', '.join(makers)}")
    target = makers[name]
    storages = {precision.decoder, precision.head, precision.vision}
    if not storages <= target.storages:
        raise ExportError(
            f"target {name} does not run {precision.name}: it supports weights in {', '.join(sorted(target.storages))}"
        )
    return target
