"""A graph that torch traced -> nodes of a bundle's graph.

The nodes are copied as they are, to the target's opset and float type. Products with a weight are
not: they are written as the target writes its own, so that they are stored as the precision says.
Weights and constants become initializers of the main graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from pulse_edge.errors import ExportError
from pulse_export.graph import INLINE_BYTES, NUMPY_TO_ONNX, onnx_type
from pulse_export.network.writer import NetworkWriter

PREFIX = "tower"  # of names: torch's could be those of the projector


def write_traced(
    net: NetworkWriter, model: onnx.ModelProto, inputs: dict[str, str], output: str
) -> str:
    """Write what one output of a traced model needs.

    Args:
        net: the graph, target and precision. Its weights are those of the part `vision`.
        model: with its weights, in float32.
        inputs: the model's name of each input -> the graph's.
        output: the model's name of the output.

    Returns:
        The graph's name of the output.

    Raises:
        ExportError: the model has operators that no bundle may have.
    """
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    skeleton = _converted(model, set(weights), net.target.opsets[""])
    return _Copy(net, weights, inputs).run(_needed(skeleton, output), output)


def _converted(model: onnx.ModelProto, weights: set[str], opset: int) -> list[onnx.NodeProto]:
    """The nodes in another opset. Weights go in as inputs: the converter would copy them."""
    kept = onnx.ModelProto()
    kept.CopyFrom(_without_weights(model))
    for tensor in model.graph.initializer:
        kept.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    for node in kept.graph.node:
        inner = [a.name for a in node.attribute if a.HasField("g") or a.graphs]
        if inner or node.domain not in ("", "ai.onnx"):
            raise ExportError(
                f"Optimum's graph of the vision tower has the operator {node.domain or 'ONNX'}."
                f"{node.op_type}, which no bundle may have; export with --network own"
            )
    try:
        return list(version_converter.convert_version(kept, opset).graph.node)
    except (version_converter.ConvertError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ExportError(
            f"Optimum's graph of the vision tower cannot be written in opset {opset} "
            f"({reason:.200}); export with --network own"
        ) from None


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    return bare


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Those that one output depends on, in their order."""
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


class _Copy:
    """The copying of one model."""

    def __init__(
        self, net: NetworkWriter, values: dict[str, NDArray[Any]], inputs: dict[str, str]
    ) -> None:
        self._net = net
        self._values = values  # of weights and constants, by the model's name
        self._names = dict(inputs) | {"": ""}  # the model's name -> the graph's, once written

    def run(self, nodes: list[onnx.NodeProto], output: str) -> str:
        for node in nodes:
            if node.op_type == "Constant":
                self._values[node.output[0]] = _constant(node)
            elif node.op_type == "Identity" and node.input[0] in self._values:
                self._values[node.output[0]] = self._values[node.input[0]]
            elif node.op_type in ("MatMul", "Gemm") and self._is_linear(node):
                self._linear(node)
            else:
                self._node(node)
        return self._names[output]

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies rows with a stored matrix, and adds a stored bias or none."""
        x, matrix, *bias = node.input
        stored = self._values.get(matrix)
        if x in self._values or stored is None or stored.ndim != 2:
            return False
        scaled = any(
            attribute.name in ("alpha", "beta") and attribute.f != 1 for attribute in node.attribute
        )
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        return (
            not scaled
            and not turned
            and all(name in self._values and self._values[name].ndim == 1 for name in bias)
        )

    def _linear(self, node: onnx.NodeProto) -> None:
        x, matrix, *bias = node.input
        weight = self._values[matrix]
        if not any(a.name == "transB" and a.i for a in node.attribute):
            weight = weight.T  # -> [outputs, inputs]
        self._names[node.output[0]] = self._net.stored_linear(
            self._names[x],
            np.asarray(weight, np.float32),
            self._values[bias[0]] if bias else None,
            part="vision",
            name=f"{PREFIX}.{node.output[0]}",
        )

    def _node(self, node: onnx.NodeProto) -> None:
        inputs = [self._name(name) for name in node.input]
        outputs = [f"{PREFIX}.{name}" if name else "" for name in node.output]
        attributes = {a.name: self._attribute(node, a) for a in node.attribute}
        self._net.graph.nodes(node.op_type, inputs, outputs, name=outputs[0], **attributes)
        self._names |= dict(zip(node.output, outputs, strict=True))

    def _name(self, name: str) -> str:
        """The graph's name of a value; of a constant, which is written when it is first used."""
        if name not in self._names:
            value = self._value(name)
            small = value.nbytes <= INLINE_BYTES
            graph = self._net.graph
            self._names[name] = (
                graph.constant(value) if small else graph.weight(f"{PREFIX}.{name}", value)
            )
        return self._names[name]

    def _value(self, name: str) -> NDArray[Any]:
        value = self._in_io(self._values[name])
        if value.dtype not in NUMPY_TO_ONNX:
            raise ExportError(
                f"Optimum's graph of the vision tower has a constant of {value.dtype}, "
                "which no bundle may have; export with --network own"
            )
        return value

    def _in_io(self, value: NDArray[Any]) -> NDArray[Any]:
        """Floats in the target's type. Masks of the largest float32 become the largest there."""
        io = self._net.target.io
        if value.dtype != np.float32 or io == np.float32:
            return value
        largest = float(np.finfo(io).max)  # type: ignore[type-var]
        return value.clip(-largest, largest).astype(io)

    def _attribute(self, node: onnx.NodeProto, attribute: onnx.AttributeProto) -> Any:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            return onnx_type(self._net.target.io)
        if attribute.HasField("t"):
            return numpy_helper.from_array(self._in_io(numpy_helper.to_array(attribute.t)))
        return helper.get_attribute_value(attribute)


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    (attribute,) = node.attribute
    if attribute.HasField("t"):
        return numpy_helper.to_array(attribute.t)
    value = helper.get_attribute_value(attribute)
    floats = attribute.name in ("value_float", "value_floats")
    return np.array(value, np.float32 if floats else np.int64)
