"""A graph may refer to listed files only, wherever in it the reference stands."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.external_data import GraphTensor, graph_tensors
from pulse_edge.bundle.manifest import DECODER_GRAPH, MANIFEST
from pulse_edge.errors import BundleError

from support.fixture_types import Bundles
from support.manifests import edit_manifest

Edit = Callable[[onnx.ModelProto], object]


def external(
    name: str = "extra", location: str = "decoder.onnx.data", **fields: str
) -> TensorProto:
    """A tensor of four floats in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": "0", "length": "16"} | fields
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*tensors: TensorProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "graph", [], [], list(tensors)))


def read(edited: onnx.ModelProto) -> tuple[GraphTensor, ...]:
    return graph_tensors(edited.SerializeToString(), "graph.onnx")


@pytest.mark.parametrize("target", ["cpu", "cuda", "standard"])
@pytest.mark.parametrize("graph", ["vision.onnx", "decoder.onnx"])
def test_it_finds_what_the_onnx_library_finds(bundles: Bundles, target: str, graph: str) -> None:
    bundle = open_bundle(bundles("int4", 32, target))
    expected = {}
    for tensor in onnx.load(str(bundle.file(graph)), load_external_data=False).graph.initializer:
        if tensor.external_data:
            fields = {entry.key: entry.value for entry in tensor.external_data}
            expected[tensor.name] = (
                tuple(tensor.dims),
                fields["location"],
                int(fields["offset"]),
                int(fields["length"]),
            )
    found = bundle.tensors(graph)
    assert {t.name: (t.shape, t.location, t.offset, t.size) for t in found} == expected
    assert len(found) > 10
    for tensor in found:
        if tensor.dtype:
            size = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
            assert size == tensor.size


# -- places where a reference may hide


def in_attribute(edited: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["hidden"], value=external())
    edited.graph.node.append(node)


def in_list_of_tensors(edited: onnx.ModelProto) -> None:
    node = helper.make_node("Custom", [], ["hidden"])
    attribute = node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(external())
    edited.graph.node.append(node)


def in_subgraph(edited: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external()])
    edited.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))


def in_attribute_of_a_subgraph(edited: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["hidden"], value=external())
    inner = helper.make_graph([node], "inner", [], [])
    outer = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=inner)], "o", [], []
    )
    edited.graph.node.append(helper.make_node("Loop", ["x"], ["y"], body=outer))


def in_sparse_values(edited: onnx.ModelProto) -> None:
    edited.graph.sparse_initializer.add(values=external(), dims=[4])


def in_sparse_indices(edited: onnx.ModelProto) -> None:
    edited.graph.sparse_initializer.add(indices=external(), dims=[4])


def in_sparse_attribute(edited: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["hidden"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(external())
    edited.graph.node.append(node)


def in_function(edited: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["hidden"], value=external())
    edited.functions.add(name="f", domain="d").node.append(node)


def in_training(edited: onnx.ModelProto) -> None:
    edited.training_info.add().initialization.CopyFrom(helper.make_graph([], "t", [], []))


def location_alone(edited: onnx.ModelProto) -> None:
    """External by its location's mark, without a place."""
    node = helper.make_node(
        "Constant", [], ["hidden"], value=TensorProto(data_location=TensorProto.EXTERNAL)
    )
    edited.graph.node.append(node)


@pytest.mark.parametrize(
    "hide",
    [
        in_attribute,
        in_list_of_tensors,
        in_subgraph,
        in_attribute_of_a_subgraph,
        in_sparse_values,
        in_sparse_indices,
        in_sparse_attribute,
        in_function,
        in_training,
        location_alone,
    ],
)
def test_references_outside_the_main_graphs_initializers_are_refused(hide: Edit) -> None:
    edited = model(external("known"))
    assert [tensor.name for tensor in read(edited)] == ["known"]
    hide(edited)
    with pytest.raises(BundleError, match=r"refers to another file|training information"):
        read(edited)


def test_graphs_within_graphs_have_a_depth() -> None:
    graph = helper.make_graph([], "inner", [], [])
    for _ in range(30):
        graph = helper.make_graph(
            [helper.make_node("If", ["x"], ["y"], then_branch=graph)], "g", [], []
        )
    with pytest.raises(BundleError, match="nested more than 16 deep"):
        read(helper.make_model(graph))


# -- references that no export writes


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (external(offset="-1"), "no number of bytes"),
        (external(offset="1e3"), "no number of bytes"),
        (external(offset=" 4"), "no number of bytes"),
        (external(offset="\u0664"), "no number of bytes"),
        (external(offset="9" * 30), "no number of bytes"),
        (external(offset="2"), "amid an element"),
        (external(length="15"), "said to take 15 bytes, and takes 16"),
        (external(length="0"), "said to take 0 bytes"),
        (external(checksum="1"), "external data with 'checksum'"),
        (external(basepath="/"), "external data with 'basepath'"),
        (
            TensorProto(name="x", data_type=8, dims=[1], data_location=TensorProto.EXTERNAL),
            "ONNX's type 8",
        ),
        (
            TensorProto(name="x", data_type=16, dims=[1], data_location=TensorProto.EXTERNAL),
            "ONNX's type 16",
        ),
        (
            TensorProto(name="x", data_type=1, dims=[-1], data_location=TensorProto.EXTERNAL),
            "has the shape",
        ),
        (
            TensorProto(name="x", data_type=1, dims=[1 << 41], data_location=TensorProto.EXTERNAL),
            "has the shape",
        ),
        (
            TensorProto(name="x", data_type=1, dims=[1] * 9, data_location=TensorProto.EXTERNAL),
            "has the shape",
        ),
    ],
)
def test_references_that_no_export_writes_are_refused(tensor: TensorProto, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(model(tensor))


def test_names_are_unique() -> None:
    with pytest.raises(BundleError, match="two tensors are named 'extra'"):
        read(model(external(), external()))
    twice = external()
    twice.external_data.add(key="location", value="other")
    with pytest.raises(BundleError, match="names its 'location' twice"):
        read(model(twice))


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_graph_are_refused_or_empty(content: bytes) -> None:
    try:
        tensors = graph_tensors(content, "graph.onnx")
    except BundleError:
        return
    assert all(tensor.size >= 0 for tensor in tensors)


def test_every_flipped_bit_is_refused_or_read(bundles: Bundles) -> None:
    """Never another exception."""
    content = open_bundle(bundles("int4", 32, "cpu")).read(DECODER_GRAPH)
    messages = []
    for at in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        try:
            graph_tensors(bytes(flipped), "graph.onnx")
        except BundleError as error:
            messages.append(str(error))
    assert messages
    assert all(message.isprintable() for message in messages)


# -- in a bundle


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles("int4", 32, "cpu"), tmp_path / "copy"))


def relocate(path: Path, location: str) -> None:
    """Let the decoder's tensors lie in another file, and seal the bundle as a forger would."""
    graph = onnx.load(str(path / DECODER_GRAPH), load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    content = graph.SerializeToString()
    (path / DECODER_GRAPH).write_bytes(content)

    def change(manifest: dict[str, Any]) -> None:
        entry = next(f for f in manifest["files"] if f["path"] == DECODER_GRAPH)
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    edit_manifest(path, change)


@pytest.mark.parametrize(
    "location",
    [
        "hidden.data",
        "../hidden.data",
        "/tmp/hidden.data",
        "./decoder.onnx.data",
        "decoder.onnx.data/",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "tokenizer.model",
        MANIFEST,
        "DECODER.onnx.data",
        "decoder.onnx.data\x00",
    ],
)
def test_external_data_in_an_unlisted_file_is_refused(copy: Path, location: str) -> None:
    shutil.copy(copy / "decoder.onnx.data", copy.parent / "hidden.data")
    relocate(copy, location)
    with pytest.raises(BundleError, match=r"decoder\.onnx: .* does not list"):
        open_bundle(copy)


def test_external_data_beyond_its_file_is_refused(copy: Path) -> None:
    relocate(copy, "embeddings.bin")
    with pytest.raises(BundleError, match=r"decoder\.onnx: .* exceeds embeddings\.bin"):
        open_bundle(copy)
