"""Plain ONNX for TensorRT, which ONNX Runtime's CPU provider can check.

Opset 24. Operator contracts: docs/Operators.md in onnx/onnx. TensorRT's own conditions, from
NvInfer.h: IDequantizeLayer (scales are strictly positive, zero points absent) and
IKVCacheUpdateLayer (the cache's length is static; it is an input of the network, its update an
output, and both have one address).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import ModelSpec, TextSpec
from pulse_export.graph import Graph, onnx_type
from pulse_export.quantize.precision import STORAGES, Precision
from pulse_export.quantize.weights import QuantWeight
from pulse_export.targets.target import CacheInputs, Weight, rope_tables

INT8 = onnx_type(np.int8)


@dataclass(frozen=True)
class TensorRTTarget:
    """Plain ONNX in one float type."""

    io: type[np.generic]
    storages: frozenset[str]
    activations: str
    name: str = "standard"
    # Not int8: tensorrt-rtx 1.7 writes weights of int8 blocks out as floats before each product.
    blocked: frozenset[str] = frozenset({"int4"})
    caches: frozenset[str] = frozenset({"float"})
    quantize_cache: None = None
    signed_scales: bool = False
    calibrated: bool = True
    gathers: bool = False
    batched: bool = False
    indexed: bool = False

    @property
    def features(self) -> type[np.generic]:
        return np.float32

    @property
    def opsets(self) -> dict[str, int]:
        return {"": 24}

    def bits(self, storage: str) -> int:
        return STORAGES[storage].bits

    def adapted(self, precision: Precision, tower: str | None = None) -> Precision:
        return replace(precision, vision=tower or precision.vision)

    def misfit(self, spec: ModelSpec) -> str | None:
        return None  # its operators take all sizes that `spec` can have

    def emit_linear(
        self,
        graph: Graph,
        x: str,
        weight: Weight,
        bias: NDArray[np.float32] | None,
        name: str,
        scale: float | None = None,
    ) -> str:
        # An int8 product leaves the engine's kernel unscaled, in the MatMul's type (tensorrt-rtx
        # 1.7's listing). Sums of products of codes do not fit float16.
        wide = self.io if scale is None else np.float32
        if scale is not None:
            x = self._emit_rounded(graph, x, scale)
        if isinstance(weight, QuantWeight):
            matrix = self._emit_dequantized(graph, weight, name, wide)
        else:
            matrix = graph.weight(f"{name}.weight", weight.T, self.io)
        y = graph.node("MatMul", [x, matrix], name=name if wide == self.io else f"{name}.product")
        if wide != self.io:
            y = graph.node("Cast", [y], name=name, to=onnx_type(self.io))
        if bias is not None:
            y = graph.node(
                "Add", [y, graph.weight(f"{name}.bias", bias.astype(self.io))], name=f"{name}.add"
            )
        return y

    def _emit_rounded(self, graph: Graph, x: str, scale: float) -> str:
        """x as int8 codes, and back as float32; once for all layers that read x."""
        step = np.maximum(np.array(scale, self.io), np.finfo(self.io).smallest_normal)  # type: ignore[type-var]
        if f"{x}.rounded" not in graph:
            codes = graph.node(
                "QuantizeLinear", [x, graph.constant(step)], name=f"{x}.codes", output_dtype=INT8
            )
            graph.node(
                "DequantizeLinear",
                [codes, graph.constant(step.astype(np.float32))],
                name=f"{x}.rounded",
            )
        return f"{x}.rounded"

    def _emit_dequantized(
        self, graph: Graph, weight: QuantWeight, name: str, dtype: type[np.generic]
    ) -> str:
        """The weight [columns, rows] in floats, left to the engine to fuse into the `MatMul`."""
        # A block of zeros has scale 0, which TensorRT refuses; any other gives the same weights.
        scales = np.maximum(weight.scales.T.astype(dtype), np.finfo(dtype).smallest_subnormal)  # type: ignore[type-var]
        grouping: dict[str, Any] = {"axis": 0, "block_size": weight.block}
        if len(scales) == 1:  # one scale for each output
            scales, grouping = scales[0], {"axis": 1}
        stored = [
            graph.weight(f"{name}.codes", signed_codes(weight)),
            graph.weight(f"{name}.scales", scales),
        ]
        return graph.node("DequantizeLinear", stored, name=f"{name}.weight", **grouping)

    def emit_layer_norm(
        self, graph: Graph, x: str, weight: str, bias: str, eps: float, name: str
    ) -> str:
        return graph.node("LayerNormalization", [x, weight, bias], name=name, axis=-1, epsilon=eps)

    def emit_rms_norm(self, graph: Graph, x: str, weight: str, eps: float, name: str) -> str:
        return graph.node("RMSNormalization", [x, weight], name=name, axis=-1, epsilon=eps)

    def emit_add_rms_norm(
        self, graph: Graph, x: str, skip: str, weight: str, eps: float, name: str
    ) -> tuple[str, str]:
        total = graph.node("Add", [x, skip], name=f"{name}.sum")
        return self.emit_rms_norm(graph, total, weight, eps, name), total

    def emit_activation(self, graph: Graph, x: str, kind: str, name: str) -> str:
        if kind == "gelu":
            return graph.node("Gelu", [x], name=name)
        gate = x
        if kind == "quick_gelu":
            gate = graph.node(
                "Mul", [x, graph.constant(np.array(1.702, self.io))], name=f"{name}.scaled"
            )
        return graph.node("Mul", [x, graph.node("Sigmoid", [gate], name=f"{name}.gate")], name=name)

    def emit_attention(self, graph: Graph, q: str, k: str, v: str, heads: int, name: str) -> str:
        return graph.node("Attention", [q, k, v], name=name, q_num_heads=heads, kv_num_heads=heads)

    def emit_cache_inputs(self, graph: Graph, x: str, spec: TextSpec) -> CacheInputs:
        """`position` int64 [1] is the cache row of the first new row.

        Row i goes to position + i and sees the keys up to there; keys of a longer past behind it
        are masked. The mask is computed from the position: tensorrt-rtx 1.7 silently drops
        `Attention`'s `nonpad_kv_seqlen`, and `is_causal` alone counts from the first key.
        """
        cos, sin = rope_tables(spec)
        position = graph.input("position", np.int64, [1])
        names = {
            "position": position,
            "cos": graph.weight("rope.cos", cos.astype(self.io)),
            "sin": graph.weight("rope.sin", sin.astype(self.io)),
        }
        shape = [1, spec.kv_heads, spec.context, spec.head_size]
        for layer in range(spec.layers):
            for part in ("key", "value"):
                names[f"past.{layer}.{part}"] = graph.input(f"past.{layer}.{part}", self.io, shape)
                graph.output(f"present.{layer}.{part}", self.io, shape)
        # Counted from zero and then moved, not Range(position, ...): in TensorRT no shape may
        # depend on a value that is on the device.
        count = graph.node(
            "Squeeze",
            [graph.node("Shape", [x], name="rows.shape", start=1, end=2)],
            name="rows.count",
        )
        rows = graph.node("Range", [_int(graph, 0), count, _int(graph, 1)], name="rows")
        rows = graph.node("Add", [rows, position], name="rows.positions")
        # [1, rows]
        names["positions"] = graph.node("Unsqueeze", [rows, _ints(graph, 0)], name="positions")
        queries = graph.node("Unsqueeze", [rows, _ints(graph, 0, 1, 3)], name="mask.queries")
        keys = graph.weight("mask.keys", np.arange(spec.context))
        # [1, 1, rows, context]
        names["mask"] = graph.node("LessOrEqual", [keys, queries], name="mask")
        return CacheInputs(names)

    def emit_cached_attention(
        self, graph: Graph, qkv: str, cache: CacheInputs, spec: TextSpec, layer: int, name: str
    ) -> str:
        c = cache.names
        groups = [spec.heads, spec.kv_heads, spec.kv_heads]
        x = graph.node(
            "Reshape", [qkv, _ints(graph, 0, 0, sum(groups), spec.head_size)], name=f"{name}.heads"
        )
        # [1, heads, rows, head_size]
        x = graph.node("Transpose", [x], name=f"{name}.heads.first", perm=[0, 2, 1, 3])
        split = [f"{name}.{p}" for p in "qkv"]
        q, k, v = graph.nodes(
            "Split", [x, _ints(graph, *groups)], split, name=f"{name}.split", axis=1
        )
        tables = [c["cos"], c["sin"], c["positions"]]
        q = graph.node("RotaryEmbedding", [q, *tables], name=f"{name}.q.rope")
        k = graph.node("RotaryEmbedding", [k, *tables], name=f"{name}.k.rope")
        k, v = (
            graph.nodes(
                "TensorScatter",
                [c[f"past.{layer}.{part}"], new, c["position"]],
                [f"present.{layer}.{part}"],
                name=f"{name}.{part}",
                axis=2,
            )[0]
            for part, new in (("key", k), ("value", v))
        )
        y = graph.node("Attention", [q, k, v, c["mask"]], name=name, scale=spec.head_size**-0.5)
        y = graph.node("Transpose", [y], name=f"{name}.rows", perm=[0, 2, 1, 3])
        return graph.node(
            "Reshape", [y, _ints(graph, 0, 0, spec.heads * spec.head_size)], name=f"{name}.merged"
        )


# For checks on a CPU; plans are built from HALF's graphs.
FULL = TensorRTTarget(
    io=np.float32, storages=frozenset({"fp32", "int8", "int4", "w8a8"}), activations="fp32"
)
HALF = TensorRTTarget(
    io=np.float16, storages=frozenset({"fp16", "int8", "int4", "w8a8"}), activations="fp16"
)


def target(name: str, precision: Precision) -> TensorRTTarget:
    """`standard`, in the float type that the precision needs."""
    return {"standard": FULL if precision.full else HALF}[name]


def signed_codes(weight: QuantWeight) -> NDArray[np.generic]:
    """int4 or int8 [columns, rows]: codes with zero at 0, for `DequantizeLinear` without a zero
    point."""
    codes = (weight.codes[:, : weight.columns].T - np.uint8(weight.zero)).view(np.int8)
    return codes.view(ml_dtypes.int4) if weight.bits == 4 else codes


def _int(graph: Graph, value: int) -> str:
    return graph.constant(np.array(value, np.int64))


def _ints(graph: Graph, *values: int) -> str:
    return graph.constant(np.array(values, np.int64))
