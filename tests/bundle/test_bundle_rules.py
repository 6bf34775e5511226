"""The rules of opening a bundle, each on a bundle of a few bytes that was written by hand."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle import bundle as bundle_module
from pulse_edge.bundle.bundle import (
    Bundle,
    BundleFiles,
    check_size,
    open_bundle,
    open_while_hashing,
    sha256_file,
    unsealed_bundle,
)
from pulse_edge.bundle.external_data import GraphTensor
from pulse_edge.bundle.manifest import MANIFEST, FileEntry
from pulse_edge.bundle.opened import Folder, OpenedFile
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import BundleError

from support.hand_bundle import CONTENTS, manifest_of, write_bundle

BLOCK = 4 * 1024 * 1024  # bytes hashed at a time
AGAIN = "copy or export the bundle again"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path, **options)
    return str(caught.value)


def relisted(path: Path, files: tuple[FileEntry, ...]) -> None:
    """Write a sealed manifest that lists other files."""
    (path / MANIFEST).write_bytes(dumps(manifest_of({}, files=files)))


def test_a_bundle_by_hand_opens(path: Path) -> None:
    opened = open_bundle(str(path))
    assert opened == open_bundle(path)
    assert opened.path == path
    assert opened.digest == manifest_of(CONTENTS).seal
    assert opened.file("decoder.onnx") == path / "decoder.onnx"
    assert opened.read("tokenizer.model") == b"tokens"
    assert opened.size == sum(map(len, CONTENTS.values())) == 125
    assert opened.weights == ("decoder.onnx.data", "embeddings.bin", "vision.onnx.data")
    assert opened.tensors("decoder.onnx") == ()
    assert "BundleFiles" not in repr(opened)
    assert "OpenedFile" not in repr(opened)


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 5])
def test_the_hash_of_a_file(tmp_path: Path, size: int) -> None:
    content = (os.urandom(1000) * (size // 1000 + 1))[:size]
    (tmp_path / "file").write_bytes(content)
    steps: list[int] = []
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_file(tmp_path / "file", steps.append) == expected
    assert sha256_file(tmp_path / "file") == expected
    assert steps == [min(BLOCK, size - start) for start in range(0, size, BLOCK)]


# -- files


def test_a_file_is_opened_and_read_once(path: Path) -> None:
    files = BundleFiles(path)
    assert files.opened("tokenizer.model") is files.opened("tokenizer.model")
    assert files.read("tokenizer.model") == b"tokens"
    (path / "tokenizer.model").write_bytes(b"others")
    assert files.read("tokenizer.model") == b"tokens"
    assert files.opened("tokenizer.model") is not BundleFiles(path).opened("tokenizer.model")
    with pytest.raises(BundleError, match="absent: missing"):
        files.opened("absent")


def test_several_files_are_steady_at_once(path: Path) -> None:
    files = BundleFiles(path)
    names = ("embeddings.bin", "decoder.onnx.data")
    with files.steady(names):
        for name in names:
            assert files.opened(name).content().bytes.tobytes() == CONTENTS[name]
        with pytest.raises(RuntimeError, match="outside steady"):
            files.opened("vision.onnx.data").content()


@pytest.mark.parametrize("name", ["absent", "file"])
def test_no_directory_is_no_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    expected = f"no bundle at {path}: not a directory; make one with"
    assert refused(path) == f"{expected} 'pulse-edge export CHECKPOINT {path}'"


def test_a_bundle_that_is_being_written(path: Path) -> None:
    (path / MANIFEST).unlink()
    written = unsealed_bundle(path, manifest_of({}))
    assert [(f.path, f.size, f.sha256) for f in written.manifest.files] == [
        (name, len(content), "") for name, content in CONTENTS.items()
    ]
    assert written.path == path
    assert written.read("tokenizer.model") == b"tokens"


# -- tensors in other files


@pytest.mark.parametrize(
    ("location", "offset", "size", "message"),
    [
        ("decoder.onnx.data", 0, 64, None),
        ("decoder.onnx.data", 60, 4, None),
        ("decoder.onnx.data", 64, 0, None),
        ("embeddings.bin", 0, 48, None),
        ("decoder.onnx.data", 0, 65, "its tensor 'w' exceeds decoder.onnx.data"),
        ("decoder.onnx.data", 61, 4, "its tensor 'w' exceeds decoder.onnx.data"),
        ("decoder.onnx.data", 1 << 40, 1, "its tensor 'w' exceeds decoder.onnx.data"),
        ("embeddings.bin", 0, 49, "its tensor 'w' exceeds embeddings.bin"),
        ("tokenizer.model", 0, 4, "'w' lies in 'tokenizer.model', which manifest.json does not"),
        ("absent.data", 0, 4, "its tensor 'w' lies in 'absent.data', which manifest.json does not"),
        ("", 0, 0, "its tensor 'w' lies in '', which manifest.json does not list"),
    ],
)
def test_where_a_tensor_may_lie(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
    offset: int,
    size: int,
    message: str | None,
) -> None:
    first = GraphTensor("first", "uint8", (4,), "decoder.onnx.data", 0, 4)
    tensor = GraphTensor("w", "uint8", (size,), location, offset, size)
    monkeypatch.setattr(bundle_module, "graph_tensors", lambda *_: (first, tensor))
    if message is None:
        assert open_bundle(path).tensors("vision.onnx") == (first, tensor)
        return
    text = refused(path)
    assert text.startswith(f"{path / 'vision.onnx'}: ")
    assert message in text
    assert text.endswith(AGAIN)


@pytest.mark.parametrize("graph", ["vision.onnx", "decoder.onnx"])
def test_both_graphs_are_read(tmp_path: Path, graph: str) -> None:
    path = write_bundle(tmp_path / "other", {graph: b"\x0f"})
    assert f"{path / graph}: not a graph that can be read" in refused(path)


# -- hashes


@pytest.mark.parametrize("name", [name for name, content in CONTENTS.items() if content])
def test_an_altered_file(path: Path, name: str) -> None:
    content = CONTENTS[name]
    (path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    expected = f"{path / name}: altered (its SHA-256 is not the one in {MANIFEST}); {AGAIN}"
    assert refused(path) == expected
    assert refused(path, check_hashes=True) == expected
    open_bundle(path, check_hashes=False)
    begun = []
    with pytest.raises(BundleError, match="altered"), open_while_hashing(path):
        begun.append(name)
    assert begun == ([name] if name.endswith((".data", ".bin")) else [])
    with open_while_hashing(path, check_hashes=False) as opened:
        assert opened.path == path


@pytest.mark.parametrize("error", [RuntimeError("of the body"), BundleError("of the body")])
def test_a_body_that_fails(path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match="of the body"), open_while_hashing(path):
        raise error
    (path / "embeddings.bin").write_bytes(bytes(48))
    with pytest.raises(BundleError, match=r"embeddings\.bin: altered"), open_while_hashing(path):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_body_that_is_ended(path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), open_while_hashing(path):
        raise error


def test_progress_of_every_file(path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    open_bundle(path, progress=lambda *call: calls.append(call))
    assert {(stage, total) for stage, _, total in calls} == {("checking", 125)}
    assert sorted(done for _, done, _ in calls) == sorted(
        len(content) for name, content in CONTENTS.items() if content or name.endswith("onnx")
    )


def test_weights_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: OpenedFile, step: Callable[[int], None] | None = None) -> str:
        raise BundleError(f"{self.path}: the disk is broken")

    monkeypatch.setattr(OpenedFile, "sha256", fails)
    assert refused(path) == f"{path / 'decoder.onnx.data'}: the disk is broken; {AGAIN}"


def test_bytes_that_are_parsed_and_cannot_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = OpenedFile.read

    def fails(self: OpenedFile) -> bytes:
        if self.path.name != "tokenizer.model":
            return read(self)
        raise BundleError(f"{self.path}: the disk is broken")

    monkeypatch.setattr(OpenedFile, "read", fails)
    assert refused(path) == f"{path / 'tokenizer.model'}: the disk is broken; {AGAIN}"


# -- the directory


def test_what_is_no_bundle_yet(path: Path) -> None:
    (path / MANIFEST).unlink()
    text = refused(path)
    assert text.startswith(
        f"{path}: no {MANIFEST}, so not a bundle (an export that was interrupted"
    )
    (path / "config.json").touch()
    assert "so not a bundle (this looks like a checkpoint; run 'pulse-edge export'" in refused(path)


def test_a_manifest_that_cannot_be_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Folder, name: str) -> os.stat_result:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Folder, "status", fails)
    assert refused(path) == f"{path / MANIFEST}: cannot be read (Permission denied)"


def test_a_manifest_that_is_a_folder(path: Path) -> None:
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()
    assert refused(path) == f"{path / MANIFEST}: cannot be read (not a regular file)"


@pytest.mark.parametrize("name", ["plans", "signatures"])
def test_folders_that_are_added(path: Path, name: str) -> None:
    (path / name).mkdir()
    (path / name / "anything").touch()
    assert open_bundle(path).digest == manifest_of(CONTENTS).seal
    (path / name / "anything").unlink()
    (path / name).rmdir()
    (path / name).touch()
    assert refused(path) == f"{path / name}: not a directory; remove it"


@pytest.mark.parametrize("name", ["0", "e", "plan", "zzz", ".hidden", "Manifest.json"])
def test_anything_else_is_refused(path: Path, name: str) -> None:
    expected = f"{path / name}: {MANIFEST} does not list it; remove it, or {AGAIN}"
    (path / name).touch()
    assert refused(path) == expected
    (path / name).unlink()
    (path / name).mkdir()
    assert refused(path) == expected


@pytest.mark.parametrize(
    "name", ["vision.onnx", "decoder.onnx", "embeddings.bin", "tokenizer.model"]
)
def test_a_part_that_is_not_listed(path: Path, name: str) -> None:
    relisted(path, tuple(f for f in manifest_of(CONTENTS).files if f.path != name))
    expected = f"{path / MANIFEST}: lists no {name}; export the bundle again"
    assert refused(path) == expected
    (path / name).unlink()
    assert refused(path) == expected


def test_more_files_may_be_listed(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "more", {"a.txt": b"1", "z.data": b"2"})
    assert open_bundle(path).read("a.txt") == b"1"
    assert open_bundle(path).weights[-1] == "z.data"
    (path / "a.txt").unlink()
    assert refused(path) == f"{path / 'a.txt'}: missing; {AGAIN}"


@pytest.mark.parametrize("size", [5, 7])
def test_a_file_of_another_size(path: Path, size: int) -> None:
    (path / "tokenizer.model").write_bytes(bytes(size))
    expected = f"{path / 'tokenizer.model'}: {size} bytes, {MANIFEST} says 6; {AGAIN}"
    assert refused(path) == expected
    assert refused(path, check_hashes=False) == expected


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\nb", "\x1b", "plans/x", "./a"])
def test_a_name_that_is_not_plain(path: Path, name: str) -> None:
    expected = f"list lists {name!r}, which is not a plain file name; {AGAIN}"
    with pytest.raises(BundleError) as caught:
        check_size(BundleFiles(path), FileEntry(name, 1, ""), "list")
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["a", "...", ".a", "a b", "é", "a\\b"])
def test_a_plain_name(path: Path, name: str) -> None:
    (path / name).write_bytes(b"12")
    check_size(BundleFiles(path), FileEntry(name, 2, ""), "list")


def test_bundles_are_compared_by_what_they_say(path: Path, tmp_path: Path) -> None:
    opened = open_bundle(path)
    assert Bundle(path, opened.manifest) == opened
    assert Bundle(path, opened.manifest).files is not opened.files
    assert Bundle(path, opened.manifest, opened.files).files is opened.files
    assert replace(opened, path=tmp_path, files=opened.files) != opened
