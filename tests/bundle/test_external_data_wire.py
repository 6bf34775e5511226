"""References in the bytes of a graph: what is read, what is passed over, what is refused.

The messages are written here by hand, because no library writes wrong ones. Field numbers are those
of onnx.proto3.
"""

from __future__ import annotations

import math

import pytest

from pulse_edge.bundle.external_data import GraphTensor, graph_tensors
from pulse_edge.errors import BundleError

# Of a model, a graph, a node, an attribute and a tensor.
GRAPH, TRAINING, FUNCTION, FUNCTION_NODE = 7, 20, 25, 7
NODE, INITIALIZER, SPARSE = 1, 5, 15
ATTRIBUTE = 5
DIMS, KIND, NAME, EXTERNAL, LOCATION = 1, 2, 8, 13, 14

# ONNX's number of a type, numpy's name of it, bits.
TYPES = [
    (1, "float32", 32),
    (2, "uint8", 8),
    (3, "int8", 8),
    (4, "uint16", 16),
    (5, "int16", 16),
    (6, "int32", 32),
    (7, "int64", 64),
    (9, "bool", 8),
    (10, "float16", 16),
    (11, "float64", 64),
    (21, "", 4),
    (22, "", 4),
]


def varint(value: int, length: int = 1) -> bytes:
    """A number in at least so many bytes."""
    out = bytearray()
    while value > 127 or len(out) + 1 < length:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(key: str, value: str) -> bytes:
    return message(EXTERNAL, message(1, key.encode()) + message(2, value.encode()))


def external(
    name: str = "t",
    kind: int = 1,
    dims: tuple[int, ...] = (4,),
    mark: int | None = 1,
    **entries: str,
) -> bytes:
    """A tensor in the file `w.data`."""
    fields = b"".join(number(DIMS, edge) for edge in dims)
    fields += number(KIND, kind) + message(NAME, name.encode())
    fields += b"".join(
        entry(key, value) for key, value in ({"location": "w.data"} | entries).items()
    )
    return fields + (b"" if mark is None else number(LOCATION, mark))


# Fields 1 (dims), 2 (type), 8 (name) and 9 (the bytes), and that the data lie here.
OWN = number(DIMS, 1) + number(KIND, 1) + message(NAME, b"own") + message(9, b"1234")
OWN += number(LOCATION, 0)


def model(*tensors: bytes) -> bytes:
    return message(GRAPH, b"".join(message(INITIALIZER, tensor) for tensor in tensors))


def read(*tensors: bytes) -> list[GraphTensor]:
    return list(graph_tensors(model(*tensors), "g.onnx"))


def refusal(graph: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        graph_tensors(graph, "g.onnx")
    text = str(caught.value)
    assert text.startswith("g.onnx: ")
    return text


# -- tensors


@pytest.mark.parametrize(("kind", "dtype", "bits"), TYPES)
@pytest.mark.parametrize("dims", [(), (0,), (1,), (3,), (2, 5), (3, 3)])
def test_types_and_sizes(kind: int, dtype: str, bits: int, dims: tuple[int, ...]) -> None:
    size = math.ceil(math.prod(dims) * bits / 8)
    step = max(1, bits // 8)
    for offset in (0, step, 3 * step):
        expected = GraphTensor("t", dtype, dims, "w.data", offset, size)
        assert read(external(kind=kind, dims=dims, offset=f"{offset}")) == [expected]
        named = external(kind=kind, dims=dims, offset=f"{offset}", length=f"{size}")
        assert read(named) == [expected]
    for amid in range(1, step):
        text = refusal(model(external(kind=kind, dims=dims, offset=f"{amid}")))
        assert text == f"g.onnx: tensor 't' begins at byte {amid}, amid an element"
    for length in (size - 1, size + 1):
        if length >= 0:
            text = refusal(model(external(kind=kind, dims=dims, length=f"{length}")))
            assert text == f"g.onnx: tensor 't' is said to take {length} bytes, and takes {size}"


@pytest.mark.parametrize("kind", [0, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 24, 1 << 40])
def test_types_that_no_export_writes(kind: int) -> None:
    expected = f"g.onnx: tensor 't' is of ONNX's type {kind}, which no export writes"
    assert refusal(model(external(kind=kind))) == expected


def test_a_tensor_without_a_type_is_of_no_type() -> None:
    tensor = number(DIMS, 4) + message(NAME, b"t") + entry("location", "w.data")
    assert "is of ONNX's type 0," in refusal(model(tensor))


@pytest.mark.parametrize("edge", [0, 1, 127, 128, 129, 255, 256, 16_384, 1 << 35, (1 << 40) - 1])
def test_edges_of_a_shape(edge: int) -> None:
    for dims in ((edge,), (1, edge), (edge, 2)):
        (tensor,) = read(external(dims=dims))
        assert (tensor.shape, tensor.size) == (dims, 4 * math.prod(dims))
        packed = message(DIMS, b"".join(varint(value) for value in dims))
        assert read(packed + external(dims=())) == [tensor]
        assert read(packed + external(dims=(7,)))[0].shape == (*dims, 7)


@pytest.mark.parametrize("edge", [1 << 40, 1 << 41, 1 << 63, (1 << 64) - 1])
def test_edges_that_no_tensor_has(edge: int) -> None:
    assert "has the shape [1, " in refusal(model(external(dims=(1, edge))))


def test_dimensions() -> None:
    assert read(external(dims=(1,) * 8))[0].shape == (1,) * 8
    assert refusal(model(external(dims=(1,) * 9))).endswith(f"has the shape {[1] * 9}")


@pytest.mark.parametrize("mark", [None, 0, 1, 2])
def test_a_tensor_that_names_a_file_lies_there(mark: int | None) -> None:
    """Whatever its mark says: ONNX Runtime looks at the mark, other readers at the entries."""
    assert read(external(mark=mark)) == [GraphTensor("t", "float32", (4,), "w.data", 0, 16)]


def test_a_tensor_that_is_marked_as_external_lies_in_no_named_file() -> None:
    marked = number(DIMS, 4) + number(KIND, 1) + number(LOCATION, 1)
    assert read(marked) == [GraphTensor("", "float32", (4,), "", 0, 16)]


def test_tensors_with_data_of_their_own_are_passed_over() -> None:
    assert read(OWN) == []
    unmarked = OWN.removesuffix(number(LOCATION, 0))
    assert read(unmarked) == []
    names = [tensor.name for tensor in read(OWN, external("a"), OWN, external("b"), OWN)]
    assert names == ["a", "b"]


@pytest.mark.parametrize("key", ["locatio", "locationXX", "offset ", "Length", "checksum", ""])
def test_entries_of_another_name(key: str) -> None:
    text = refusal(model(external() + entry(key, "1")))
    assert text == f"g.onnx: tensor 't' has external data with {key!r}"


@pytest.mark.parametrize("key", ["location", "offset", "length"])
def test_entries_that_come_twice(key: str) -> None:
    text = refusal(model(external(offset="0", length="16") + entry(key, "0")))
    assert text == f"g.onnx: 't' names its '{key}' twice"


def test_an_entrys_other_fields_are_passed_over() -> None:
    key, value = message(1, b"offset"), message(2, b"8")
    for content in (value + key, number(3, 1) + key + value + message(4, b"x")):
        assert read(external() + message(EXTERNAL, content))[0].offset == 8


@pytest.mark.parametrize("text", ["0", "8", "00000008", "0" * 17 + "4", "9" * 17 + "6"])
def test_numbers_of_bytes(text: str) -> None:
    assert read(external(offset=text))[0].offset == int(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 18 + "4", "-4", "+4", "4.0", "0x4", "4 ", "4_0", "٤", "²", "four"]
)
def test_what_is_no_number_of_bytes(text: str) -> None:
    expected = f"g.onnx: not a graph that can be read ({text!r} is no number of bytes)"
    assert refusal(model(external(offset=text))) == expected


def test_two_tensors_of_one_name() -> None:
    assert refusal(model(external(), external())) == "g.onnx: two tensors are named 't'"
    other = message(GRAPH, message(INITIALIZER, external()))
    assert refusal(model(external()) + other) == "g.onnx: two tensors are named 't'"


# -- references elsewhere


def node(*attributes: bytes) -> bytes:
    """With an input before its attributes, and an output after them."""
    inside = b"".join(message(ATTRIBUTE, attribute) for attribute in attributes)
    return message(1, b"x") + inside + message(2, b"y")


def attribute(field: int, content: bytes) -> bytes:
    return message(1, b"name") + message(field, content) + number(20, 4)


def holders(tensor: bytes) -> dict[str, bytes]:
    """Models that hold a tensor in each place that is not the main graph's initializers."""
    in_node = {
        "tensor": attribute(5, tensor),
        "tensors": attribute(10, OWN) + message(10, tensor),
        "graph": attribute(6, message(INITIALIZER, tensor)),
        "graphs": attribute(11, b"") + message(11, message(INITIALIZER, tensor)),
        "sparse values": attribute(22, message(1, tensor)),
        "sparse indices": attribute(22, message(2, tensor)),
        "several sparse": attribute(23, message(1, OWN)) + message(23, message(2, tensor)),
        "graph's node": attribute(6, message(NODE, node(attribute(5, tensor)))),
        "graph's sparse": attribute(6, message(SPARSE, message(1, tensor))),
        "graph's sparse indices": attribute(6, message(SPARSE, message(2, tensor))),
    }
    places = {
        name: message(GRAPH, message(NODE, node(attribute(5, OWN), inside)))
        for name, inside in in_node.items()
    }
    places |= {
        f"function's {name}": message(FUNCTION, message(FUNCTION_NODE, node(inside)))
        for name, inside in in_node.items()
    }
    places["sparse initializer"] = message(GRAPH, message(SPARSE, message(1, tensor)))
    places["its indices"] = message(GRAPH, message(SPARSE, message(2, tensor)))
    return places


PLACES = holders(external())
HARMLESS = holders(OWN)


@pytest.mark.parametrize("place", PLACES)
def test_a_reference_in_another_place_is_refused(place: str) -> None:
    expected = "g.onnx: a tensor outside the main graph refers to another file"
    assert refusal(PLACES[place]) == expected
    assert refusal(model(external("first")) + PLACES[place]) == expected
    assert graph_tensors(HARMLESS[place], "g.onnx") == ()
    for mark in (b"", number(LOCATION, 0)):  # an entry alone, and a mark alone
        assert refusal(holders(entry("location", "x") + mark)[place]) == expected
    assert refusal(holders(number(LOCATION, 1))[place]) == expected


def test_training_information_is_refused() -> None:
    assert "holds training information" in refusal(model(external()) + message(TRAINING, b""))


def nested(depth: int, inside: bytes) -> bytes:
    """A node with so many graphs, each in a node of the one around it."""
    for _ in range(depth):
        inside = node(attribute(6, message(NODE, inside)))
    return inside


@pytest.mark.parametrize("holder", [(GRAPH, NODE), (FUNCTION, FUNCTION_NODE)])
def test_graphs_may_be_nested_16_deep(holder: tuple[int, int]) -> None:
    outer, inner = holder
    legal = message(outer, message(inner, nested(16, node())))
    assert graph_tensors(legal, "g.onnx") == ()
    hidden = message(outer, message(inner, nested(16, node(attribute(5, external())))))
    assert "refers to another file" in refusal(hidden)
    deeper = message(outer, message(inner, nested(17, node())))
    assert refusal(deeper) == "g.onnx: graphs are nested more than 16 deep"


# -- the wire


@pytest.mark.parametrize("extra", [4, 8])
def test_fields_of_fixed_size_are_passed_over(extra: int) -> None:
    kind = {4: 5, 8: 1}[extra]
    field = varint(99 << 3 | kind) + b"\x0d" * extra
    expected = read(external())
    assert graph_tensors(field + model(external()) + field, "g.onnx") == tuple(expected)
    assert read(field + external() + field) == expected
    cut = model(external()) + field[:-1]
    assert refusal(cut) == "g.onnx: not a graph that can be read (cut off)"


@pytest.mark.parametrize("field", [GRAPH, TRAINING + 1, FUNCTION])
def test_a_number_is_no_message(field: int) -> None:
    """A field of another wire type than the format's is unknown, and passed over."""
    assert graph_tensors(number(field, 1), "g.onnx") == ()


def test_a_mark_of_another_wire_type_is_none() -> None:
    for mark in (message(LOCATION, b"1"), varint(LOCATION << 3 | 5) + b"\1\0\0\0"):
        assert graph_tensors(holders(mark)["tensor"], "g.onnx") == ()
        assert read(number(KIND, 1) + mark) == []


@pytest.mark.parametrize("kind", [3, 4, 6, 7])
def test_other_wire_types_are_refused(kind: int) -> None:
    text = refusal(model(external()) + varint(1 << 3 | kind) + b"\0" * 8)
    assert text == f"g.onnx: not a graph that can be read (protobuf's wire type {kind})"


def test_a_message_ends_where_its_holder_ends() -> None:
    whole = model(external())
    assert len(graph_tensors(whole, "g.onnx")) == 1
    assert refusal(whole[:-1]) == "g.onnx: not a graph that can be read (cut off)"
    longer = message(GRAPH, varint(INITIALIZER << 3 | 2) + varint(1))
    assert refusal(longer + b"\0" * 9) == "g.onnx: not a graph that can be read (cut off)"
    for end in range(1, len(whole)):
        refusal(whole[:end])


@pytest.mark.parametrize("length", range(1, 11))
def test_numbers_of_up_to_ten_bytes(length: int) -> None:
    for value in (0, 1, 6, 127):
        dims = varint(DIMS << 3) + varint(value, length)
        assert read(dims + external(dims=()))[0].shape == (value,)
        packed = message(DIMS, varint(value, length) + varint(3))
        assert read(packed + external(dims=()))[0].shape == (value, 3)


def test_a_number_of_eleven_bytes() -> None:
    dims = varint(DIMS << 3) + varint(1, 11)
    text = refusal(model(dims + external(dims=())))
    assert text == "g.onnx: not a graph that can be read (a number of more than ten bytes)"


def test_names_that_are_no_text() -> None:
    assert "not a graph that can be read" in refusal(model(message(NAME, b"\xff") + external()))
