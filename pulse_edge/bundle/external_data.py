"""Where the tensors of a graph lie, read from the graph's file.

The exporter writes weights as ONNX external data: a tensor names a file and a range in it. This
reads those references with a few lines of protobuf, because the runtime has no ONNX library. Field
numbers are those of onnx.proto3 (github.com/onnx/onnx). A reference anywhere but in the main
graph's initializers is refused: an engine would open a file that nobody has checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pulse_edge.errors import BundleError

# TensorProto.DataType -> numpy's name; None for types that numpy lacks, with their bits.
DTYPES: dict[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
PACKED_BITS = {21: 4, 22: 4}  # UINT4 and INT4: two elements a byte
MOST_DIMENSIONS = 8
DEEPEST = 16  # graphs within graphs

_VARINT = 0  # protobuf's wire types
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5


@dataclass(frozen=True)
class GraphTensor:
    """An initializer whose data lie in another file.

    Attributes:
        dtype: numpy's name of it; "" for 4-bit types, which numpy lacks.
        location: the file's name.
        offset: in that file, in bytes.
        size: in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    size: int


class _Field(NamedTuple):
    number: int
    kind: int  # wire type
    value: int  # of a number; 0 for bytes
    content: memoryview  # of bytes; empty for a number


def graph_tensors(graph: bytes, where: str) -> tuple[GraphTensor, ...]:
    """The initializers of a graph that have external data.

    Args:
        graph: an ONNX model's bytes.
        where: its file, for messages.

    Raises:
        BundleError: the bytes are no model, or a tensor refers to a file in a place or in a manner
            that the exporter never writes.
    """
    try:
        return tuple(_model_tensors(memoryview(graph), where))
    except (IndexError, ValueError, OverflowError) as error:
        raise BundleError(f"{where}: not a graph that can be read ({error})") from None


def _model_tensors(model: memoryview, where: str) -> Iterator[GraphTensor]:
    names: set[str] = set()
    for field in _fields(model):
        if field.number == 20:
            raise BundleError(f"{where}: holds training information, which no export writes")
        if field.number == 25:  # a function, whose nodes may hold tensors
            for part in _fields(field.content):
                if part.number == 7:
                    _refuse_in_node(part.content, where, 0)
        if field.number == 7:
            for part in _fields(field.content):
                if part.number == 5:
                    tensor = _external(part.content, where)
                    if tensor is None:
                        continue
                    if tensor.name in names:
                        raise BundleError(f"{where}: two tensors are named {tensor.name!r:.60}")
                    names.add(tensor.name)
                    yield tensor
                else:
                    _refuse_in_graph(part, where, 0)


def _refuse_in_graph(part: _Field, where: str, depth: int) -> None:
    """Refuse external data in a part of a graph. Initializers of the main graph do not come here.

    `depth`: graphs around it.
    """
    if depth > DEEPEST:
        raise BundleError(f"{where}: graphs are nested more than {DEEPEST} deep")
    if part.number == 1:
        _refuse_in_node(part.content, where, depth)
    elif part.number == 5:
        _refuse_external(part.content, where)
    elif part.number == 15:  # a sparse initializer: two tensors
        for tensor in _fields(part.content):
            if tensor.number in (1, 2):
                _refuse_external(tensor.content, where)


def _refuse_in_node(node: memoryview, where: str, depth: int) -> None:
    for field in _fields(node):
        if field.number != 5:  # an attribute
            continue
        for part in _fields(field.content):
            if part.number in (5, 10):  # a tensor, or one of several
                _refuse_external(part.content, where)
            elif part.number in (6, 11):  # a graph, or one of several
                for inner in _fields(part.content):
                    _refuse_in_graph(inner, where, depth + 1)
            elif part.number in (22, 23):  # sparse tensors
                _refuse_in_graph(part._replace(number=15), where, depth)


def _refuse_external(tensor: memoryview, where: str) -> None:
    for field in _fields(tensor):
        if field.number == 13 or (field.number == 14 and field.value):
            raise BundleError(f"{where}: a tensor outside the main graph refers to another file")


def _external(tensor: memoryview, where: str) -> GraphTensor | None:
    """An initializer with external data; None for one with its own."""
    shape: list[int] = []
    kind = 0
    name = ""
    entries: dict[str, str] = {}
    elsewhere = False
    for field in _fields(tensor):
        if field.number == 1:
            shape += [field.value] if field.kind == _VARINT else _packed_numbers(field.content)
        elif field.number == 2:
            kind = field.value
        elif field.number == 8:
            name = str(field.content, "utf-8")
        elif field.number == 13:
            key, value = _key_and_value(field.content)
            if key in entries:
                raise BundleError(f"{where}: {name!r:.60} names its {key!r:.60} twice")
            entries[key] = value
        elif field.number == 14:
            elsewhere = field.value == 1
    if not elsewhere and not entries:
        return None
    return _checked(name, kind, tuple(shape), entries, where)


def _checked(
    name: str, kind: int, shape: tuple[int, ...], entries: dict[str, str], where: str
) -> GraphTensor:
    what = f"{where}: tensor {name!r:.60}"
    if unknown := entries.keys() - {"location", "offset", "length"}:
        raise BundleError(f"{what} has external data with {min(unknown)!r:.60}")
    if kind not in DTYPES and kind not in PACKED_BITS:
        raise BundleError(f"{what} is of ONNX's type {kind}, which no export writes")
    if len(shape) > MOST_DIMENSIONS or any(not 0 <= edge < 1 << 40 for edge in shape):
        raise BundleError(f"{what} has the shape {list(shape)!r:.60}")
    bits = PACKED_BITS.get(kind) or 8 * np.dtype(DTYPES[kind]).itemsize
    size = -(-math.prod(shape) * bits // 8)
    offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", str(size)))
    if length != size:
        raise BundleError(f"{what} is said to take {length} bytes, and takes {size}")
    if offset % max(1, bits // 8):
        raise BundleError(f"{what} begins at byte {offset}, amid an element")
    location = entries.get("location", "")
    return GraphTensor(name, DTYPES.get(kind, ""), shape, location, offset, size)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"{text!r:.60} is no number of bytes")
    return int(text)


def _key_and_value(content: memoryview) -> tuple[str, str]:
    key, value = "", ""
    for field in _fields(content):
        if field.number == 1:
            key = str(field.content, "utf-8")
        elif field.number == 2:
            value = str(field.content, "utf-8")
    return key, value


def _packed_numbers(content: memoryview) -> list[int]:
    numbers = []
    at = 0
    while at < len(content):
        number, at = _read_varint(content, at)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of a protobuf message, in order."""
    at = 0
    empty = message[:0]
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield _Field(number, kind, value, empty)
        elif kind == _BYTES:
            size, at = _read_varint(message, at)
            if size > len(message) - at:
                raise ValueError("cut off")
            yield _Field(number, kind, 0, message[at : at + size])
            at += size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
            if at > len(message):
                raise ValueError("cut off")
            yield _Field(number, kind, 0, empty)
        else:
            raise ValueError(f"protobuf's wire type {kind}")


def _read_varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number of more than ten bytes")
