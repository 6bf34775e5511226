"""Embeddings, tensors and the description of a bundle whose numbers are known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.cubins import write_cubins
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.embeddings import CheckedRows, Embeddings, open_embeddings
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.bundle.spec import ImageSpec
from pulse_edge.bundle.tensors import (
    TensorEntry,
    has_tensors,
    index_bytes,
    open_tensors,
    read_index,
)
from pulse_edge.errors import BundleError

from support.hand_bundle import PRECISION, SIDE, SPEC, write_bundle

# -- embeddings


def table(rows: int, dtype: type[np.floating[Any]]) -> np.ndarray[Any, Any]:
    return np.arange(rows * 4, dtype=dtype).reshape(rows, 4)


@pytest.mark.parametrize(
    ("stored", "merge", "rows"),
    [("fp16", "flat", 6), ("fp32", "flat", 6), ("fp16", "spatial_unpad", 7)],
)
@pytest.mark.parametrize("copied", [True, False])
def test_a_table_of_a_type_and_a_size(
    tmp_path: Path, stored: Any, merge: Any, rows: int, copied: bool
) -> None:
    """Merging with `image_newline` takes one row below the vocabulary's."""
    dtype = np.float32 if stored == "fp32" else np.float16
    expected = table(rows, dtype)
    fields = {
        "precision": replace(PRECISION, embeddings=stored),
        "model": replace(SPEC, image=replace(SPEC.image, merge=merge)),
    }
    path = write_bundle(tmp_path / "whole", {"embeddings.bin": expected.tobytes()}, **fields)
    bundle = open_bundle(path)
    assert open_embeddings(bundle).dtype == dtype
    assert np.array_equal(open_embeddings(bundle), expected)
    embeddings = Embeddings(bundle, np.float32, copied)
    assert len(embeddings) == rows
    numbers = np.array([rows - 1, 0, 3])
    assert np.array_equal(embeddings.rows(numbers), expected[numbers])
    assert embeddings.rows(numbers).dtype == np.float32
    for size in (expected.nbytes - 2, expected.nbytes + 2, expected.nbytes * 2):
        other = tmp_path / f"of {size}"
        write_bundle(other, {"embeddings.bin": bytes(size)}, **fields)
        with pytest.raises(BundleError) as caught:
            Embeddings(open_bundle(other), np.float32, copied)
        problem = f"{size} bytes are no table [{rows}, 4] of {np.dtype(dtype).name}"
        assert (
            str(caught.value) == f"{other / 'embeddings.bin'}: {problem}; export the bundle again"
        )


@pytest.mark.parametrize("copied", [True, False])
def test_numbers_beyond_the_table_are_of_the_page(tmp_path: Path, copied: bool) -> None:
    path = write_bundle(tmp_path / "bundle", {"embeddings.bin": table(6, np.float16).tobytes()})
    embeddings = Embeddings(open_bundle(path), np.float16, copied)
    page = np.arange(100, 124, dtype=np.float16).reshape(2, 3, 4)
    found = embeddings.rows(np.array([6, 5, 11, 0, 7]), page)
    assert found.dtype == np.float16
    assert found.tolist() == [
        [100, 101, 102, 103],
        [20, 21, 22, 23],
        [120, 121, 122, 123],
        [0, 1, 2, 3],
        [104, 105, 106, 107],
    ]
    for numbers, features in ((np.array([6]), None), (np.array([12]), page)):
        with pytest.raises(IndexError):
            embeddings.rows(numbers, features)


def test_a_table_is_copied_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle", {"embeddings.bin": table(6, np.float16).tobytes()})
    bundle = open_bundle(path)
    copied, read = Embeddings(bundle, np.float32), Embeddings(bundle, np.float32, copied=False)
    (path / "embeddings.bin").write_bytes(bytes(48))
    numbers = np.array([1])
    assert copied.rows(numbers).tolist() == [[4, 5, 6, 7]]
    with pytest.raises(BundleError, match=r"embeddings\.bin: was changed since it was loaded"):
        read.rows(numbers)


def test_rows_are_not_copied_without_need(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle", {"embeddings.bin": table(6, np.float16).tobytes()})
    rows = CheckedRows(open_bundle(path))
    assert rows.shape == (6, 4)
    assert rows[np.array([], np.int64)].shape == (0, 4)
    assert rows[np.array([2, 2])].tolist() == [[8, 9, 10, 11]] * 2
    with pytest.raises(IndexError):
        rows[np.array([6])]


# -- tensors


def entry(**fields: Any) -> TensorEntry:
    whole = TensorEntry("w", "float16", (2, 3), 4)
    return replace(whole, **fields)


def indexed(path: Path, *tensors: TensorEntry, **fields: Any) -> Path:
    """A bundle with an index; `fields` of the index are changed."""
    data = json.loads(index_bytes(tensors)) | fields
    return write_bundle(path, {"decoder.tensors.json": json.dumps(data).encode()})


def test_the_index_to_the_byte() -> None:
    assert json.loads(index_bytes((entry(),))) == {
        "schema_version": 1,
        "file": "decoder.onnx.data",
        "tensors": [{"name": "w", "dtype": "float16", "shape": [2, 3], "offset": 4}],
    }


@pytest.mark.parametrize(
    "tensor",
    [
        entry(),
        entry(dtype="float32", shape=(16,), offset=0),
        entry(dtype="float32", shape=(1, 1, 1, 1, 1, 1, 1, 15), offset=4),
        entry(dtype="uint8", shape=(64,), offset=0),
        entry(dtype="uint8", shape=(1,), offset=63),
        entry(dtype="uint8", shape=(), offset=3),
        entry(shape=(0, (1 << 40) - 1), offset=64),
        entry(shape=(32,), offset=0),
    ],
)
def test_tensors_that_lie_in_their_file(tmp_path: Path, tensor: TensorEntry) -> None:
    """It holds the bytes 0 to 63."""
    bundle = open_bundle(indexed(tmp_path / "bundle", entry(name="first"), tensor))
    assert has_tensors(bundle) is True
    assert read_index(bundle) == {"first": entry(name="first"), "w": tensor}
    expected = np.arange(64, dtype=np.uint8)[tensor.offset :].tobytes()[: tensor.size]
    with open_tensors(bundle) as file:
        assert list(file.entries) == ["first", "w"]
        assert (file["w"].dtype.name, file["w"].shape) == (tensor.dtype, tensor.shape)
        assert file["w"].tobytes() == expected
        with pytest.raises(BundleError, match=r"decoder\.tensors\.json lists no other; export"):
            file["other"]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (entry(dtype="float64"), "w is of 'float64'"),
        (entry(dtype="int8"), "w is of 'int8'"),
        (entry(dtype="uint8XX"), "w is of 'uint8XX'"),
        (entry(shape=(1,) * 9), "w has the shape [1, 1, 1, 1, 1, 1, 1, 1, 1]"),
        (entry(shape=(-1,)), "w has the shape [-1]"),
        (entry(shape=(0, 1 << 40)), "w has the shape [0, 1099511627776]"),
        (entry(offset=3), "w begins amid an element"),
        (entry(dtype="float32", offset=2), "w begins amid an element"),
        (entry(offset=-2), "w does not lie in decoder.onnx.data"),
        (entry(offset=54), "w does not lie in decoder.onnx.data"),
        (entry(offset=64, shape=(1,)), "w does not lie in decoder.onnx.data"),
        (entry(offset=1 << 50, shape=()), "w does not lie in decoder.onnx.data"),
        (entry(shape=(33,), offset=0), "w does not lie in decoder.onnx.data"),
    ],
)
def test_tensors_that_lie_elsewhere(tmp_path: Path, tensor: TensorEntry, message: str) -> None:
    path = indexed(tmp_path / "bundle", tensor)
    with pytest.raises(BundleError) as caught:
        read_index(open_bundle(path))
    expected = f"{path / 'decoder.tensors.json'}: {message}; export the checkpoint again"
    assert str(caught.value) == expected


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_index_of_another_version(tmp_path: Path, version: Any) -> None:
    path = indexed(tmp_path / "bundle", entry(), schema_version=version)
    with pytest.raises(BundleError, match=f"schema version {version!r}, this pulse-edge reads 1;"):
        read_index(open_bundle(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"decoder\.tensors\.json: cannot be read \(.*\); export the checkpoint again"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "schema version None, this pulse-edge reads 1"),
        (b'{"schema_version": 1}', "missing field 'file', 'tensors'"),
    ],
)
def test_what_is_no_index(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_bundle(tmp_path / "bundle", {"decoder.tensors.json": content})
    with pytest.raises(BundleError, match=message):
        read_index(open_bundle(path))


def test_an_index_of_an_unlisted_file(tmp_path: Path) -> None:
    byte = entry(dtype="uint8", shape=(), offset=0)
    path = indexed(tmp_path / "bundle", byte, file="absent.data")
    with pytest.raises(BundleError, match=r"w does not lie in absent\.data"):
        read_index(open_bundle(path))
    empty = indexed(tmp_path / "empty", entry(shape=(0,), offset=0), file="absent.data")
    assert list(read_index(open_bundle(empty))) == ["w"]


def test_a_bundle_without_an_index(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    assert has_tensors(bundle) is False
    with pytest.raises(BundleError, match=r"exported without decoder\.tensors\.json; export the"):
        read_index(bundle)


def test_a_tensors_bytes() -> None:
    assert entry().size == 12
    assert entry(dtype="uint8", shape=(5,)).size == 5
    assert entry(dtype="float32", shape=()).size == 4


# -- the network


def test_patches_and_views() -> None:
    assert SPEC.vision.grid == 4
    assert SPEC.most_views == 3

    def views(image: ImageSpec) -> int:
        return replace(SPEC, image=image).most_views

    grids = ((SIDE, SIDE), (4 * SIDE, 3 * SIDE), (2 * SIDE, SIDE))
    assert views(replace(SPEC.image, grids=grids)) == 13
    assert views(replace(SPEC.image, grids=())) == 1
    assert views(replace(SPEC.image, grids=grids, aspect="pad")) == 1
    assert views(replace(SPEC.image, grids=grids, aspect="square")) == 1


# -- in words


def test_a_bundle_in_words(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle")
    bundle = open_bundle(path)
    write_cubins(bundle, 87, "a compiler", {})
    (path / "plans" / "tensorrt-10-sm87").mkdir()
    (path / "plans" / "tensorrt-10-sm87" / "plans.json").touch()
    lines = describe_bundle(bundle)
    assert lines[:7] == [
        ("bundle", f"{path}, 125 B, target cpu"),
        ("seal", bundle.digest),
        ("checkpoint", "by-hand: LlavaLlamaForCausalLM, 1.2 M parameters, float16"),
        ("vision", "2 of 3 layers, width 32, 56 px in patches of 14; anyres, flat"),
        ("decoder", "2 layers, width 4, 4 heads (2 KV), vocabulary 6, context 128"),
        (
            "precision",
            "int4: decoder int4, head int8, vision fp16, blocks of 32; activations fp32; nearest",
        ),
        ("KV cache", "fp16, 128 B a token, 16.4 kB at full context"),  # 2 * 2 * 2 * 8 numbers
    ]
    digest = hashlib.sha256(b"tokens").hexdigest()
    assert lines[10] == ("tokenizer.model", f"6 B  {digest[:16]}…")
    assert [name for name, _ in lines[7:13]] == [entry.path for entry in bundle.manifest.files]
    assert lines[13:] == [
        ("plans", "tensorrt-10-sm87"),
        ("kernels", "native-sm87"),
        ("notice", NOTICE),
    ]


def test_a_bundle_without_blocks_in_words(tmp_path: Path) -> None:
    precision = replace(PRECISION, block_size=0, kv_cache="int8")
    lines = dict(describe_bundle(open_bundle(write_bundle(tmp_path / "b", precision=precision))))
    assert "vision fp16; activations fp32" in lines["precision"]
    assert lines["KV cache"] == "int8, 64 B a token, 8.2 kB at full context"
