"""Every byte that runs is a byte that was hashed, whatever happens to the directory meanwhile."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_edge.answer import Answer
from pulse_edge.bundle import opened as opened_module
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.opened import Folder, OpenedFile
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import BundleError, PulseEdgeError
from pulse_edge.model import Model, load

from support.fixture_types import Bundles

QUESTION = "What is the heart rate?"


def page() -> Image.Image:
    return Image.fromarray(
        np.arange(60 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 60, 3)
    )


def answered(model: Model) -> Answer:
    return model.ask(page(), QUESTION, max_new_tokens=12)


@pytest.fixture(params=["leased", "copied", "mapped"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file's bytes are kept: under a lease, as a copy, or mapped for want of memory."""
    if request.param != "leased":
        monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    if request.param == "mapped":
        monkeypatch.setattr(opened_module, "available_memory", lambda: 0)
    return str(request.param)


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles("int4", 32, "cpu"), tmp_path / "copy"))


# -- after a load, nothing that happens to the files changes an answer


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4", "w8a8"])
def test_files_that_are_overwritten_after_a_load(
    bundles: Bundles, tmp_path: Path, way: str, precision: str
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(bundles(precision, None, "cpu"), path)
    model = load(path, threads=1)
    before = answered(model)
    model.forget()
    for file in path.iterdir():
        with file.open("r+b") as content:
            content.write(os.urandom(file.stat().st_size))
    assert answered(model).token_ids == before.token_ids
    model.forget()
    for file in path.iterdir():
        os.truncate(file, 0)
    assert answered(model).token_ids == before.token_ids
    shutil.rmtree(path)
    model.forget()
    assert answered(model).token_ids == before.token_ids


def test_weights_that_a_session_reads_in_place_are_no_pages_of_the_file(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tensors count as large, so that those which ONNX Runtime does not pack show."""
    monkeypatch.setattr("pulse_edge.engines.onnxruntime_weights.SMALL", 0)
    monkeypatch.setattr("pulse_edge.engines.onnxruntime_weights.SCALES", "none")
    path = tmp_path / "copy"
    shutil.copytree(bundles("int8", None, "cpu"), path)
    model = load(path, threads=1)
    before = answered(model)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(path) not in maps.read_text()
    for file in path.iterdir():
        os.truncate(file, 0)
    model.forget()
    assert answered(model).token_ids == before.token_ids


# -- while a load runs


def test_a_writer_waits_until_the_files_are_read(copy: Path) -> None:
    """A lease keeps a truncation away, which would kill a process that has mapped the file."""
    file = OpenedFile(Folder(copy), "decoder.onnx.data")
    with file.steady():
        if not file.leased:
            pytest.skip("this file system or user gets no leases")
        writer = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.truncate({str(file.path)!r}, 1)"]
        )
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.3)
        assert os.fstat(file.number).st_size == file.size
        content = file.content()
        assert not content.private
        total = int(content.bytes.sum(dtype=np.int64))
    assert writer.wait(30) == 0
    assert total > 0
    assert os.fstat(file.number).st_size == 1


def overwrite(path: Path) -> None:
    with path.open("r+b") as content:
        content.write(b"x")


@pytest.mark.parametrize(
    "change",
    [lambda path: os.truncate(path, 10), overwrite, lambda path: os.utime(path, ns=(1, 1))],
    ids=["truncate", "overwrite", "touch"],
)
def test_a_change_without_a_lease_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(opened_module, "take_lease", lambda number: False)
    file = OpenedFile(Folder(copy), "decoder.onnx.data")

    def read() -> None:
        with file.steady():
            assert file.content().private
            change(file.path)

    with pytest.raises(BundleError, match="was changed while it was loaded"):
        read()


def test_a_file_that_changed_between_opening_a_bundle_and_its_engine(copy: Path) -> None:
    opened = open_bundle(copy)
    with (copy / "decoder.onnx.data").open("r+b") as content:
        content.write(b"x" * 100)
    with pytest.raises(BundleError, match="was changed while it was loaded"):
        open_engine(opened, EngineOptions(threads=1))


def exchange(first: Path, second: Path) -> None:
    """Let two names change places at once: renameat2(2), RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    if libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Exchange two names all the time, from another process's pace."""
    try:
        exchange(first, second)
        exchange(first, second)
    except (AttributeError, OSError) as error:
        pytest.skip(f"names cannot be exchanged here ({error})")
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(0.0005):
            exchange(first, second)

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        yield
    finally:
        stop.set()
        racer.join()


def test_loads_under_rename_races_run_what_they_name(
    bundles: Bundles, tmp_path: Path, way: str
) -> None:
    """Two bundles take turns under one name. An answer comes from the weights that it names."""
    paths = [tmp_path / "a", tmp_path / "b"]
    shutil.copytree(bundles("int8", None, "cpu"), paths[0])
    shutil.copytree(bundles("int4", 32, "cpu"), paths[1])
    expected = {}
    for path in paths:
        model = load(path, threads=1)
        expected[model.bundle.digest] = answered(model).token_ids
    assert len(set(expected.values())) == 2
    seen: set[str] = set()
    refused: list[str] = []
    with swapping(*paths):
        for _ in range(40):
            try:
                model = load(paths[0], threads=1)
            except PulseEdgeError as error:
                refused.append(str(error))
                continue
            answer = answered(model)
            assert answer.token_ids == expected[model.bundle.digest]
            seen.add(model.bundle.digest)
    assert seen
    assert all("load it again" in message for message in refused)


def test_files_that_are_renamed_within_a_bundle_as_it_loads(
    bundles: Bundles, tmp_path: Path
) -> None:
    """The weights of another bundle take the place of a file, again and again."""
    path = tmp_path / "a"
    shutil.copytree(bundles("int8", None, "cpu"), path)
    other = tmp_path / "other.data"
    content = bytearray((path / "decoder.onnx.data").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    other.write_bytes(content)
    model = load(path, threads=1)
    expected = answered(model).token_ids
    loads = 0
    with swapping(path / "decoder.onnx.data", other):
        for _ in range(40):
            try:
                model = load(path, threads=1)
            except PulseEdgeError:
                continue
            assert answered(model).token_ids == expected
            loads += 1
    assert loads


# -- what may lie in the directory


@pytest.mark.parametrize(
    "name", ["hidden.data", ".hidden", "README.md", "vision.onnx.data.bak", "\x1b[2J", "é"]
)
def test_an_unlisted_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"1")
    with pytest.raises(BundleError, match=f"{MANIFEST} does not list it; remove it"):
        open_bundle(copy)


def test_an_unlisted_folder_is_refused(copy: Path) -> None:
    (copy / "more").mkdir()
    with pytest.raises(BundleError, match="does not list it"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["plans", "signatures"])
def test_folders_that_devices_add_are_folders(copy: Path, name: str) -> None:
    (copy / name).mkdir()
    open_bundle(copy)
    (copy / name).rmdir()
    (copy / name).write_bytes(b"")
    with pytest.raises(BundleError, match="not a directory"):
        open_bundle(copy)
    (copy / name).unlink()
    (copy / name).symlink_to("/")
    with pytest.raises(BundleError, match="not a directory"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "name", [MANIFEST, "decoder.onnx", "decoder.onnx.data", "embeddings.bin", "tokenizer.model"]
)
def test_a_symbolic_link_is_refused_wherever_it_leads(
    copy: Path, tmp_path: Path, name: str
) -> None:
    """Also where it leads to the very bytes: another process may let it lead elsewhere."""
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match=r"not a regular file|a symbolic link"):
        open_bundle(copy)


def test_a_link_to_a_bundle_is_a_bundle(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(copy)
    assert open_bundle(tmp_path / "current").digest == open_bundle(copy).digest


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("absent"),
        lambda path: path.symlink_to(path),
    ],
    ids=["pipe", "directory", "device", "nowhere", "itself"],
)
@pytest.mark.parametrize("name", [MANIFEST, "embeddings.bin", "vision.onnx"])
def test_what_is_no_file_is_refused_at_once(
    copy: Path, name: str, make: Callable[[Path], None]
) -> None:
    (copy / name).unlink()
    make(copy / name)
    with pytest.raises(BundleError) as refused:
        open_bundle(copy)
    assert name in str(refused.value)
