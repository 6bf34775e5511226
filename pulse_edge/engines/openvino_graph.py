"""The decoder with a KV cache in the shape that OpenVINO's CPU plugin fuses.

`decoder.onnx` is written for ONNX Runtime: `GroupQueryAttention` over a cache that comes in and
goes out, which OpenVINO would copy at every step. Here each of these nodes becomes a rotation, a
state that grows by concatenation, and `ScaledDotProductAttention`. The plugin runs the three as one
node over a cache of its own (its StatefulSDPAFusion), as it does with optimum-intel's models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.openvino_library import load_openvino
from pulse_edge.errors import EngineError

ATTENTION = "GroupQueryAttention"
# Inputs of the node: q, k, v, the cache's two, its two lengths, and the tables of the rotation.
COS_INPUT, SIN_INPUT = 7, 8
# What the exporter writes. A node that says otherwise computes something else.
ATTRIBUTES: Mapping[str, Any] = {
    "do_rotary": True,
    "rotary_interleaved": False,
    "local_window_size": -1,
    "smooth_softmax": False,
    "scale": 0.0,
}
# The model's inputs, in order: float32 [1, rows, hidden], int64 [n], int64 [rows], float32
# [1, 1, rows, cached + rows], and int32 [1], always 0, which the fusion asks for.
EMBEDS, LOGIT_ROWS, POSITIONS, MASK, BEAM = (
    "inputs_embeds",
    "logit_rows",
    "positions",
    "mask",
    "beam",
)


def stateful_decoder(model: Any, text: TextSpec) -> Any:
    """A decoder whose cache is its state.

    Args:
        model: `decoder.onnx`, an `openvino.Model`; it is used up.
        text: the decoder's sizes.

    Returns:
        `openvino.Model` with the inputs above and one output, logits float32 [n, vocab].

    Raises:
        EngineError: the graph's attention is not what the exporter writes.
    """
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == ATTENTION]
    if len(nodes) != text.layers:
        problem = f"{len(nodes)} nodes {ATTENTION} for {text.layers} layers"
        raise EngineError(f"engine openvino cannot run this decoder: it has {problem}")
    for node in nodes:
        _check_attributes(node)
    rewriter = _Rewriter(text, nodes[0].input_value(COS_INPUT), nodes[0].input_value(SIN_INPUT))
    for layer, node in enumerate(nodes):
        node.output(0).replace(rewriter.attention(layer, node).output(0))
    parameters = {node.get_friendly_name(): node for node in model.get_parameters()}
    results = [r for r in model.get_results() if r.input_value(0).get_node() not in nodes]
    inputs = [parameters[EMBEDS], parameters[LOGIT_ROWS], *rewriter.inputs]
    return load_openvino().Model(results, rewriter.writes, inputs, rewriter.variables, "decoder")


def _check_attributes(node: Any) -> None:
    attributes = node.get_attributes()
    for name, value in ATTRIBUTES.items():
        if attributes.get(name, value) != value:
            raise EngineError(
                f"engine openvino cannot run this decoder: its attention has {name} "
                f"{attributes[name]}, not {value}; use --engine onnxruntime"
            )


class _Rewriter:
    """Writes the attention of every layer.

    Attributes:
        inputs: parameters besides those that the graph had.
        writes: nodes that write the state.
        variables: the state.
    """

    def __init__(self, text: TextSpec, cos: Any, sin: Any) -> None:
        self._ov = load_openvino()
        self._op = self._ov.opset13
        self._text = text
        positions = self._op.parameter([-1], np.int64, POSITIONS)
        self._mask = self._op.parameter([1, 1, -1, -1], np.float32, MASK)
        self._beam = self._op.parameter([-1], np.int32, BEAM)
        self.inputs = [positions, self._mask, self._beam]
        self.writes: list[Any] = []
        self.variables: list[Any] = []
        self._cos = self._table(cos, positions)
        self._sin = self._table(sin, positions)

    def attention(self, layer: int, node: Any) -> Any:
        """[batch, rows, heads * head size]; `node` is the one that it replaces."""
        op, text = self._op, self._text
        query, key, value = (node.input_value(number) for number in range(3))
        keys = self._cached(f"{layer}.key", self._rotated(key))
        values = self._cached(f"{layer}.value", value)
        y = op.scaled_dot_product_attention(
            self._rotated(query), keys, values, self._mask, causal=False
        )
        rows_first = op.transpose(y, self._ints(0, 2, 1, 3))
        merged = op.reshape(rows_first, self._ints(0, 0, text.heads * text.head_size), True)
        merged.set_friendly_name(node.get_friendly_name())
        return merged

    def _rotated(self, x: Any) -> Any:
        """x [batch, heads, rows, head size] after the rotary embedding.

        In the form of Hugging Face's Llama, which the plugin fuses to one node.
        """
        op, half = self._op, self._text.head_size // 2
        first = op.slice(x, self._ints(0), self._ints(half), self._ints(1), self._ints(3))
        second = op.slice(x, self._ints(half), self._ints(2**31 - 1), self._ints(1), self._ints(3))
        turned = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], -1)
        return op.add(op.multiply(x, self._cos), op.multiply(turned, self._sin))

    def _table(self, table: Any, positions: Any) -> Any:
        """Rows of a table [context, head size / 2], twice side by side: [1, 1, rows, head size]."""
        op = self._op
        rows = op.gather(table, positions, op.constant(np.int64(0)))
        return op.unsqueeze(op.concat([rows, rows], -1), self._ints(0, 1))

    def _cached(self, name: str, new: Any) -> Any:
        """What the layer's cache holds with the new rows, repeated for the heads that share it."""
        ov, op, text = self._ov, self._op, self._text
        info = ov.op.util.VariableInfo()
        info.data_shape = ov.PartialShape([-1, text.kv_heads, -1, text.head_size])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = ov.op.util.Variable(info)
        self.variables.append(variable)
        empty = np.zeros((1, text.kv_heads, 0, text.head_size), np.float32)
        past = ov.op.read_value(op.constant(empty), variable)
        past = op.gather(past, self._beam, op.constant(np.int64(0)))
        whole = op.concat([past, new], 2)
        self.writes.append(ov.op.assign(whole, variable))
        shared = text.heads // text.kv_heads
        if shared == 1:
            return whole
        apart = op.unsqueeze(whole, self._ints(2))
        copies = op.broadcast(apart, self._ints(1, 1, shared, 1, 1), None, "BIDIRECTIONAL")
        return op.reshape(copies, self._ints(0, text.heads, -1, text.head_size), True)

    def _ints(self, *numbers: int) -> Any:
        return self._op.constant(np.array(numbers, np.int64))
