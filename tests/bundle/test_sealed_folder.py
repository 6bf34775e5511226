"""Files below `plans/`: which are given out, and what is said about the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import FileEntry
from pulse_edge.bundle.sealed_folder import SealedFiles
from pulse_edge.errors import EngineError

from support.hand_bundle import write_bundle

AGAIN = "build them again"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = write_bundle(tmp_path / "bundle")
    (path / "plans" / "gpu").mkdir(parents=True)
    return open_bundle(path)


@pytest.fixture
def folder(bundle: Bundle) -> Path:
    return bundle.path / "plans" / "gpu"


def entry(content: bytes, name: str = "kernel") -> FileEntry:
    return FileEntry(name, len(content), hashlib.sha256(content).hexdigest())


def files(bundle: Bundle) -> SealedFiles:
    return SealedFiles(bundle, "gpu", AGAIN)


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(EngineError) as caught:
        action()
    text = str(caught.value)
    assert text.endswith(f"; {AGAIN}")
    return text.removesuffix(f"; {AGAIN}")


def test_an_index(bundle: Bundle, folder: Path) -> None:
    assert files(bundle).index("index.json") is None
    (folder / "index.json").write_bytes(b"{}")
    assert files(bundle).index("index.json") == b"{}"
    assert SealedFiles(bundle, "other", AGAIN).index("index.json") is None
    (folder / "index.json").unlink()
    (folder / "index.json").mkdir()
    expected = f"{folder / 'index.json'}: not a regular file"
    assert refused(lambda: files(bundle).index("index.json")) == expected


def test_a_bundle_without_plans(bundle: Bundle, folder: Path) -> None:
    folder.rmdir()
    folder.parent.rmdir()
    assert files(bundle).index("index.json") is None


def test_the_largest_index(bundle: Bundle, folder: Path) -> None:
    """It has 2^24 bytes."""
    path = folder / "index.json"
    path.touch()
    os.truncate(path, 1 << 24)
    content = files(bundle).index("index.json")
    assert content is not None
    assert len(content) == 1 << 24
    os.truncate(path, (1 << 24) + 1)
    expected = f"{path}: 16,777,217 bytes, over 16,777,216"
    assert refused(lambda: files(bundle).index("index.json")) == expected


@pytest.mark.parametrize("place", ["plans", "plans/gpu"])
def test_a_folder_that_is_a_link_or_a_file(bundle: Bundle, place: str, tmp_path: Path) -> None:
    """It may lead anywhere, and elsewhere a moment later."""
    path = bundle.path / place
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    expected = f"{bundle.path / 'plans' / 'gpu'}: cannot be read (Not a directory)"
    assert refused(lambda: files(bundle)) == expected
    path.unlink()
    path.touch()
    assert refused(lambda: files(bundle)) == expected


def test_files_are_checked_and_given_out(bundle: Bundle, folder: Path) -> None:
    (folder / "kernel").write_bytes(b"code")
    (folder / "second").write_bytes(b"more")
    listed = [entry(b"code"), entry(b"more", "second")]
    assert files(bundle).read(listed, "index.json") == {"kernel": b"code", "second": b"more"}
    assert files(bundle).read([], "index.json") == {}
    checked = files(bundle)
    checked.check(listed, "index.json")
    assert checked.file("kernel").path == folder / "kernel"
    assert checked.file("second").read() == b"more"
    with pytest.raises(KeyError):
        files(bundle).file("kernel")


@pytest.mark.parametrize("way", ["check", "read"])
@pytest.mark.parametrize("second", [True, False])
def test_files_that_are_not_those_listed(
    bundle: Bundle, folder: Path, way: str, second: bool
) -> None:
    (folder / "first").write_bytes(b"1")
    head = [entry(b"1", "first")] if second else []

    def message(listed: FileEntry) -> str:
        give = files(bundle)
        action = give.check if way == "check" else give.read
        return refused(lambda: action([*head, listed], "index.json"))

    path = folder / "kernel"
    assert message(entry(b"code")) == f"{path}: missing"
    path.write_bytes(b"codE")
    altered = f"{path}: altered (its SHA-256 is not the one in index.json)"
    assert message(entry(b"code")) == altered
    for content in (b"cod", b"codes"):
        path.write_bytes(content)
        assert message(entry(b"code")) == f"{path}: {len(content)} bytes, index.json says 4"
    path.unlink()
    path.symlink_to("first")
    assert message(entry(b"1")) == f"{path}: cannot be read (a symbolic link)"


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", "../x", "a\nb", "\x1b", "a/", "a\x00"])
@pytest.mark.parametrize("way", ["check", "read"])
def test_names_that_are_not_plain(bundle: Bundle, way: str, name: str) -> None:
    give = files(bundle)
    action = give.check if way == "check" else give.read
    expected = f"index.json lists {name!r}, which is not a plain file name"
    assert refused(lambda: action([entry(b"", name)], "index.json")) == expected


def test_a_folder_that_is_not_there_has_no_files(bundle: Bundle) -> None:
    other = SealedFiles(bundle, "other", AGAIN)
    assert "index.json lists 'kernel'" in refused(
        lambda: other.read([entry(b"code")], "index.json")
    )
