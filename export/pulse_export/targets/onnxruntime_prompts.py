"""The decoder of an 8-bit KV cache that prompts run through, for ONNX Runtime's CPU provider.

`GroupQueryAttention` multiplies with an 8-bit cache by expanding its codes row by row, which takes
a quarter more time in a prompt of 3,000 tokens. Here what earlier chunks have left in the cache is
expanded once a chunk, attended in float beside the chunk's own keys and values, and only the latter
are rounded, once, on their way out. The engine puts them into the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import TextSpec
from pulse_export.graph import Graph, onnx_type
from pulse_export.targets.onnxruntime import MS, ONE, OnnxRuntimeTarget
from pulse_export.targets.target import CacheInputs, CacheScales, Target, rope_tables

END = np.array([np.iinfo(np.int64).max])
ROWS_AXIS = np.array([2])  # of a cache, [1, kv heads, rows, head size]


@dataclass(frozen=True)
class OnnxRuntimePrompts(OnnxRuntimeTarget):
    """See this module. The graph takes one sequence at a time.

    Attributes:
        scales: value of code 1, by cache tensor.
    """

    scales: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def emit_cache_inputs(self, graph: Graph, x: str, spec: TextSpec) -> CacheInputs:
        """The cache is read up to the chunk's first row. `new.{layer}.key` and `.value` int8
        [1, kv_heads, rows, head_size] are the codes of the chunk's rows.
        """
        cos, sin = rope_tables(spec)
        names = {
            "seqlens_k": graph.input("seqlens_k", np.int32, [1]),
            "total_length": graph.input("total_length", np.int32, []),
            "cos": graph.weight("rope.cos", cos.astype(self.io)),
            "sin": graph.weight("rope.sin", sin.astype(self.io)),
            "start": _emit_start(graph, x),
        }
        for name in self.scales:
            cached: list[int | str] = [1, spec.kv_heads, "capacity", spec.head_size]
            names[f"past.{name}"] = graph.input(f"past.{name}", np.int8, cached)
            graph.output(f"new.{name}", np.int8, [1, spec.kv_heads, "rows", spec.head_size])
            graph.weight(f"scale.{name}", self.scales[name])
        return CacheInputs(names)

    def emit_cached_attention(
        self, graph: Graph, qkv: str, cache: CacheInputs, spec: TextSpec, layer: int, name: str
    ) -> str:
        """See `Target`."""
        c = cache.names
        tensors = [f"{layer}.key", f"{layer}.value"]
        past = [
            self._expanded(graph, c[f"past.{tensor}"], c["start"], tensor) for tensor in tensors
        ]
        placed = [c["seqlens_k"], c["total_length"], c["cos"], c["sin"]]
        outputs = graph.nodes(
            "GroupQueryAttention",
            [qkv, "", "", *past, *placed],
            [name, *(f"whole.{tensor}" for tensor in tensors)],
            name=name,
            domain=MS,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        for tensor, whole in zip(tensors, outputs[1:], strict=True):
            _emit_own_codes(graph, whole, c["start"], tensor)
        return outputs[0]

    def _expanded(self, graph: Graph, codes: str, start: str, tensor: str) -> str:
        """The floats of a cache's rows before the chunk."""
        bounds = [graph.constant(np.array([0])), start, graph.constant(ROWS_AXIS)]
        earlier = graph.node("Slice", [codes, *bounds], name=f"earlier.{tensor}")
        kind = onnx_type(self.io)
        floats = graph.node("Cast", [earlier], name=f"earlier.{tensor}.floats", to=kind)
        return graph.node("Mul", [floats, f"scale.{tensor}"], name=f"earlier.{tensor}.values")


def prompt_target(target: Target, scales: CacheScales) -> Target:
    """See the registry. `ExportOptions` takes no others than ONNX Runtime's targets."""
    assert isinstance(target, OnnxRuntimeTarget)
    return OnnxRuntimePrompts(**vars(target), scales=scales)


def _emit_start(graph: Graph, x: str) -> str:
    """int64 [1]: rows of the cache before x, [1, rows, hidden]."""
    shape = graph.node("Shape", [x], name="chunk.rows", start=1, end=2)
    total = graph.node("Cast", ["total_length"], name="chunk.total", to=onnx_type(np.int64))
    return graph.node("Sub", [total, shape], name="chunk.start")


def _emit_own_codes(graph: Graph, whole: str, start: str, tensor: str) -> None:
    """The codes of a chunk's own rows, as `GroupQueryAttention` would round them."""
    bounds = [start, graph.constant(END), graph.constant(ROWS_AXIS)]
    own = graph.node("Slice", [whole, *bounds], name=f"own.{tensor}")
    units = graph.node("Div", [own, f"scale.{tensor}"], name=f"own.{tensor}.units")
    zero = graph.constant(np.array(0, np.int8))
    graph.node("QuantizeLinear", [units, graph.constant(ONE), zero], name=f"new.{tensor}")
