"""A thin ONNX graph builder.

Named nodes, shared constants, weights streamed to a second file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pulse_edge.bundle.tensors import TensorEntry
from pulse_export.threads import over_rows

ALIGNMENT = 4096  # of each external tensor, so that a runtime can map it
TILED = 1 << 18  # elements from which a matrix is copied in tiles, over threads
TILE = 512, 64  # rows, columns
INLINE_BYTES = 1024  # smaller constants stay inside the .onnx
IR_VERSIONS = {21: 10, 24: 12}  # of an opset: the lowest that may hold it
NUMPY_TO_ONNX = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(ml_dtypes.int4): TensorProto.INT4,
}


def onnx_type(dtype: type[np.generic]) -> int:
    """ONNX's number of a numpy type."""
    return int(NUMPY_TO_ONNX[np.dtype(dtype)])


class Graph:
    """One graph under construction.

    Weights go to `<file>.data` as they are added; none is kept in memory.

    Attributes:
        tensors: where the weights lie in that file.
    """

    def __init__(self, path: Path, opsets: Mapping[str, int], indexed: bool = False) -> None:
        """`indexed`: small weights go to that file, too; only constants stay inside the .onnx."""
        self.path = path
        self.tensors: list[TensorEntry] = []
        self._inline_bytes = 0 if indexed else INLINE_BYTES
        self._data_path = path.with_name(path.name + ".data")
        self._data = self._data_path.open("wb")
        self._opsets = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self._ir_version = IR_VERSIONS[opsets[""]]
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[TensorProto] = []
        self._shared: dict[tuple[Any, ...], str] = {}
        self._names: set[str] = set()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        self._outputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), shape))
        return name

    def retype(self, name: str, dtype: type[np.generic]) -> None:
        """Give the input or output of this name another type."""
        for value in (*self._inputs, *self._outputs):
            if value.name == name:
                value.type.tensor_type.elem_type = onnx_type(dtype)

    def named(self, op: str) -> list[str]:
        """Names of the nodes of one operator, in the order they were added."""
        return [node.name for node in self._nodes if node.op_type == op]

    def ends(self, name: str) -> tuple[list[str], list[str]]:
        """A node's inputs and outputs."""
        node = self._node(name)
        return list(node.input), list(node.output)

    def extend(self, name: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Add inputs, behind those it has, and attributes to a node."""
        node = self._node(name)
        node.input.extend(inputs)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )

    def _node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self._nodes if node.name == name)

    def __contains__(self, name: str) -> bool:
        """Whether there is a node of that name."""
        return name in self._names

    def node(
        self, op: str, inputs: Sequence[str], *, name: str, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output, named after the node, and return that output."""
        return self.nodes(op, inputs, [name], name=name, domain=domain, **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[str]:
        """Add a node with the outputs that are named; an empty name skips an optional one."""
        if name in self._names:
            raise ValueError(f"two nodes named {name!r}")
        self._names.add(name)
        self._nodes.append(
            helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs

    def constant(self, value: NDArray[Any]) -> str:
        """A small constant, shared between all who ask for the same one."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._shared:
            small = value.nbytes <= INLINE_BYTES
            self._shared[key] = self.weight(f"const.{len(self._shared)}", value, inline=small)
        return self._shared[key]

    def weight(
        self,
        name: str,
        value: NDArray[Any],
        dtype: type[np.generic] | None = None,
        *,
        inline: bool = False,
    ) -> str:
        """A named initializer; large ones are written to the external file at once.

        Args:
            dtype: type to store, None for the value's own. Converting here reads a transposed
                matrix only once.
            inline: keep it in the `.onnx`, whatever its size. A saved graph takes no others.
        """
        kind = np.dtype(dtype or value.dtype)
        tensor = TensorProto(name=name, data_type=NUMPY_TO_ONNX[kind], dims=value.shape)
        value = _packed(value) if kind == ml_dtypes.int4 else _contiguous(value, kind)
        if inline or value.nbytes <= self._inline_bytes:
            tensor.raw_data = value.tobytes()
        else:
            self._data.write(b"\0" * (-self._data.tell() % ALIGNMENT))
            shape = tuple(map(int, tensor.dims))
            self.tensors.append(TensorEntry(name, str(kind), shape, self._data.tell()))
            tensor.data_location = TensorProto.EXTERNAL
            for key, entry in (
                ("location", self._data_path.name),
                ("offset", str(self._data.tell())),
                ("length", str(value.nbytes)),
            ):
                tensor.external_data.add(key=key, value=entry)
            self._data.write(value.reshape(-1).view(np.uint8).data)
        self._initializers.append(tensor)
        return name

    def close(self) -> None:
        """Close the file of weights, also for a graph that was not saved."""
        self._data.close()

    def save(self) -> list[Path]:
        """Write the `.onnx`, again if it was saved before. Returns the files made."""
        self._data.close()
        graph = helper.make_graph(
            self._nodes, self.path.stem, self._inputs, self._outputs, self._initializers
        )
        model = helper.make_model(
            graph,
            opset_imports=self._opsets,
            ir_version=self._ir_version,
            producer_name="pulse-edge",
        )
        self.path.write_bytes(model.SerializeToString(deterministic=True))
        if not self._data_path.exists():
            return [self.path]
        if self._data_path.stat().st_size == 0:
            self._data_path.unlink()
            return [self.path]
        return [self.path, self._data_path]


def _contiguous(value: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`value` in row-major order, of that type.

    A large matrix is copied in tiles that fit a core's cache. Row after row, a transposed matrix
    would be read at strides of a whole row, at a quarter of the speed.
    """
    if value.ndim != 2 or value.size < TILED or (value.flags.c_contiguous and value.dtype == dtype):
        return np.ascontiguousarray(value, dtype)
    out = np.empty(value.shape, dtype)
    rows, columns = TILE

    def copy(at: slice) -> None:
        for left in range(0, value.shape[1], columns):
            out[at, left : left + columns] = value[at, left : left + columns]

    over_rows(copy, len(value), rows)
    return out


def _packed(value: NDArray[Any]) -> NDArray[np.uint8]:
    """int4 as ONNX stores it: pairs in row-major order, low nibble first."""
    nibbles = value.reshape(-1).view(np.uint8) & np.uint8(15)
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    packed: NDArray[np.uint8] = nibbles[::2] | nibbles[1::2] << np.uint8(4)
    return packed
