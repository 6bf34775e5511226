"""ONNX Runtime's fused operators, for its CPU and CUDA providers.

The operators are those of the domain `com.microsoft`. Operator contracts: docs/ContribOperators.md
in microsoft/onnxruntime. The two providers run the same graph. They differ in its float type, and
in what `MatMulNBits` multiplies (CPU: int8 activations, quantized per block on the fly). w8a8 is
the CPU's alone: whole bytes times whole bytes, with one scale for each token and one for each
output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import ModelSpec, TextSpec
from pulse_export.graph import Graph
from pulse_export.quantize.precision import STORAGES, Precision
from pulse_export.quantize.weights import QuantWeight
from pulse_export.targets.target import CacheInputs, CacheScales, Weight, rope_tables

MS = "com.microsoft"
# w8a8 uses 7 of a weight's 8 bits: without VNNI, x86 adds pairs of products in int16, where
# 2 * 255 * 127 saturates and 2 * 255 * 64 does not.
BYTE_BITS = 7
HEAD_STEP = 16  # of GroupQueryAttention's heads (its helper.h, `CheckRotaryCaches`)
SCALE_INPUT = 12  # of GroupQueryAttention: the keys' scales; the values' follow
ONE, MIDDLE = np.array(1, np.float32), np.array(128, np.uint8)


@dataclass(frozen=True)
class OnnxRuntimeTarget:
    """ONNX Runtime with one of its providers."""

    name: str
    io: type[np.generic]
    storages: frozenset[str]
    accuracy_level: (
        int  # of MatMulNBits: 4 quantizes activations to int8, 0 leaves the choice to the provider
    )
    activations: str
    blocked: frozenset[str] = frozenset({"int8", "int4"})
    caches: frozenset[str] = frozenset({"float"})
    signed_scales: bool = True
    calibrated: bool = False
    gathers: bool = False
    batched: bool = False
    indexed: bool = False
    largest_head: int = 512  # numbers of a head; the largest that was tried

    @property
    def features(self) -> type[np.generic]:
        return self.io

    @property
    def opsets(self) -> dict[str, int]:
        return {"": 21, MS: 1}

    def bits(self, storage: str) -> int:
        return BYTE_BITS if storage == "w8a8" else STORAGES[storage].bits

    def adapted(self, precision: Precision, tower: str | None = None) -> Precision:
        """What replaces an int8 vision tower, which always runs thousands of rows at once.

        CPU: whole bytes, which are 2.4 times as fast there as blocks (Zen 3). CUDA without
        `--tower`: fp16, because 8-bit `MatMulNBits` dequantizes the weight before each product.
        Five views took 11.1 ms against 12.4 on an H100; it costs 0.3 GB.
        """
        vision = tower or precision.vision
        if vision == "int8" and "w8a8" in self.storages:
            vision = "w8a8"
        elif vision == "int8" and tower is None and "fp16" in self.storages:
            vision = "fp16"
        return replace(precision, vision=vision)

    def misfit(self, spec: ModelSpec) -> str | None:
        size = spec.text.head_size
        if size % HEAD_STEP == 0 and size <= self.largest_head:
            return None
        return (
            f"its attention heads have {size} numbers, GroupQueryAttention takes multiples of "
            f"{HEAD_STEP} up to {self.largest_head}; export with --target standard"
        )

    def emit_linear(
        self,
        graph: Graph,
        x: str,
        weight: Weight,
        bias: NDArray[np.float32] | None,
        name: str,
        scale: float | None = None,
    ) -> str:
        if isinstance(weight, QuantWeight) and weight.bits == BYTE_BITS:
            y = _emit_bytes(graph, x, weight, name)
        elif isinstance(weight, QuantWeight):
            codes = graph.weight(f"{name}.codes", pack(weight))
            scales = graph.weight(f"{name}.scales", weight.scales.astype(self.io))
            y = graph.node(
                "MatMulNBits",
                [x, codes, scales],
                name=name,
                domain=MS,
                K=weight.columns,
                N=weight.codes.shape[0],
                bits=weight.bits,
                block_size=weight.block,
                accuracy_level=self.accuracy_level,
            )
        else:
            y = graph.node(
                "MatMul", [x, graph.weight(f"{name}.weight", weight.T, self.io)], name=name
            )
        if bias is not None:
            y = graph.node(
                "Add", [y, graph.weight(f"{name}.bias", bias.astype(self.io))], name=f"{name}.add"
            )
        return y

    def emit_layer_norm(
        self, graph: Graph, x: str, weight: str, bias: str, eps: float, name: str
    ) -> str:
        return graph.node("LayerNormalization", [x, weight, bias], name=name, axis=-1, epsilon=eps)

    def emit_rms_norm(self, graph: Graph, x: str, weight: str, eps: float, name: str) -> str:
        # ONNX Runtime keeps this contrib operator in the default domain.
        return graph.node(
            "SimplifiedLayerNormalization",
            [x, weight],
            name=name,
            axis=-1,
            epsilon=eps,
            stash_type=1,
        )

    def emit_add_rms_norm(
        self, graph: Graph, x: str, skip: str, weight: str, eps: float, name: str
    ) -> tuple[str, str]:
        outputs = graph.nodes(
            "SkipSimplifiedLayerNormalization",
            [x, skip, weight],
            [name, "", "", f"{name}.sum"],
            name=name,
            domain=MS,
            epsilon=eps,
        )
        return outputs[0], outputs[3]

    def emit_activation(self, graph: Graph, x: str, kind: str, name: str) -> str:
        if kind == "gelu":
            return graph.node("Gelu", [x], name=name, domain=MS)
        return graph.node(
            "QuickGelu", [x], name=name, domain=MS, alpha={"quick_gelu": 1.702, "silu": 1.0}[kind]
        )

    def emit_attention(self, graph: Graph, q: str, k: str, v: str, heads: int, name: str) -> str:
        return graph.node("MultiHeadAttention", [q, k, v], name=name, domain=MS, num_heads=heads)

    def emit_cache_inputs(self, graph: Graph, x: str, spec: TextSpec) -> CacheInputs:
        """Inputs that `GroupQueryAttention` places rows by.

        `seqlens_k` int32 [batch] is each cache's rows after this call, less one; `total_length`
        int32 [] is the largest of `seqlens_k` + 1.
        """
        cos, sin = rope_tables(spec)
        batch: int | str = "batch" if self.batched else 1
        names = {
            "seqlens_k": graph.input("seqlens_k", np.int32, [batch]),
            "total_length": graph.input("total_length", np.int32, []),
            "cos": graph.weight("rope.cos", cos.astype(self.io)),
            "sin": graph.weight("rope.sin", sin.astype(self.io)),
        }
        for layer in range(spec.layers):
            for part in ("key", "value"):
                shape = [batch, spec.kv_heads, "capacity", spec.head_size]
                names[f"past.{layer}.{part}"] = graph.input(f"past.{layer}.{part}", self.io, shape)
                graph.output(f"present.{layer}.{part}", self.io, shape)
        return CacheInputs(names)

    def emit_cached_attention(
        self, graph: Graph, qkv: str, cache: CacheInputs, spec: TextSpec, layer: int, name: str
    ) -> str:
        c = cache.names
        return graph.nodes(
            "GroupQueryAttention",
            [
                qkv,
                "",
                "",
                c[f"past.{layer}.key"],
                c[f"past.{layer}.value"],
                c["seqlens_k"],
                c["total_length"],
                c["cos"],
                c["sin"],
            ],
            [name, f"present.{layer}.key", f"present.{layer}.value"],
            name=name,
            domain=MS,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )[0]

    def quantize_cache(self, graph: Graph, scales: CacheScales) -> None:
        """Keys, after their rotation, and values are rounded with one scale a channel of a head."""
        for name, scale in scales.items():
            graph.retype(f"past.{name}", np.int8)
            graph.retype(f"present.{name}", np.int8)
            graph.weight(f"scale.{name}", scale, inline=True)
        for attention in graph.named("GroupQueryAttention"):
            inputs, outputs = graph.ends(attention)
            layer = [present.removeprefix("present.") for present in outputs[1:3]]
            unused = [""] * (SCALE_INPUT - len(inputs))
            graph.extend(
                attention,
                [*unused, *(f"scale.{name}" for name in layer)],
                k_quant_type="PER_CHANNEL",
                v_quant_type="PER_CHANNEL",
                kv_cache_bit_width=8,
            )


def _emit_bytes(graph: Graph, x: str, weight: QuantWeight, name: str) -> str:
    """x W^T from uint8 activations, rounded here token by token, and int8 weights."""
    codes, scale = _emit_codes(graph, x)
    stored = (weight.codes[:, : weight.columns].astype(np.int8) - np.int8(weight.zero)).T
    one, middle, zero = (graph.constant(v) for v in (ONE, MIDDLE, np.array(0, np.int8)))
    weights = (
        graph.weight(f"{name}.codes", stored),
        one,
        graph.weight(f"{name}.scales", weight.scales[:, 0]),
    )
    y = graph.node(
        "MatMulIntegerToFloat", [codes, *weights, middle, zero], name=f"{name}.product", domain=MS
    )
    return graph.node("Mul", [y, scale], name=name)


def _emit_codes(graph: Graph, x: str) -> tuple[str, str]:
    """x [..., rows, columns] -> uint8 codes around 128, and scales [..., rows, 1].

    Emitted once for all layers that read x. `DynamicQuantizeMatMul` would do it in one node, but
    with one scale for all rows: a token with large activations, such as Llama's first, would take
    the precision of the others.
    """
    codes, scale = f"{x}.bytes", f"{x}.byte_scales"
    if codes not in graph:
        floor, step = (
            graph.constant(np.array(1e-30, np.float32)),
            graph.constant(np.array(1 / 127, np.float32)),
        )
        largest = graph.node("Abs", [x], name=f"{x}.magnitudes")
        largest = graph.node(
            "ReduceMax", [largest, graph.constant(np.array([-1]))], name=f"{x}.largest", keepdims=1
        )
        largest = graph.node("Max", [largest, floor], name=f"{x}.positive")
        graph.node("Mul", [largest, step], name=scale)
        units = graph.node("Div", [x, scale], name=f"{x}.units")
        graph.node(
            "QuantizeLinear", [units, graph.constant(ONE), graph.constant(MIDDLE)], name=codes
        )
    return codes, scale


CPU = OnnxRuntimeTarget(
    name="cpu",
    io=np.float32,
    storages=frozenset({"fp32", "int8", "int4", "w8a8"}),
    accuracy_level=4,
    activations="int8, dynamic, per block",
    batched=True,
    caches=frozenset({"float", "int8"}),
)
CUDA = OnnxRuntimeTarget(
    name="cuda",
    io=np.float16,
    storages=frozenset({"fp16", "int8", "int4"}),
    accuracy_level=0,
    activations="fp16",
    gathers=True,
    indexed=True,
    largest_head=256,  # of its flash attention
)


def target(name: str, precision: Precision) -> OnnxRuntimeTarget:
    """The provider's target; its float type is the same for all precisions."""
    return {"cpu": CPU, "cuda": CUDA}[name]


def pack(weight: QuantWeight) -> NDArray[np.uint8]:
    """Codes in the layout of `MatMulNBits`: uint8 [rows, blocks, block * bits / 8].

    Two 4-bit codes share a byte, the first in the low nibble.
    """
    blocks = weight.codes.reshape(weight.codes.shape[0], -1, weight.block)
    if weight.bits == 8:
        return blocks
    packed: NDArray[np.uint8] = blocks[..., ::2] | (blocks[..., 1::2] << np.uint8(4))
    return packed
