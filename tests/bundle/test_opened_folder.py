"""Directories that are opened once, also on systems that cannot, and with the smallest number."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pulse_edge.bundle import opened as opened_module
from pulse_edge.bundle.opened import Folder
from pulse_edge.errors import BundleError

from support.paths import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with two files, a link and a directory."""
    path = tmp_path / "place"
    path.mkdir()
    for name in ("b", "a"):
        (path / name).write_bytes(name.encode())
    (path / "link").symlink_to("a")
    (path / "inner").mkdir()
    return path


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is on a system whose `open` knows no directories and no links."""
    for name in ("O_DIRECTORY", "O_NOFOLLOW"):
        monkeypatch.delattr(os, name)
    spec = importlib.util.spec_from_file_location("opened_elsewhere", opened_module.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_folder(place: Path) -> None:
    folder = Folder(place)
    assert folder.path == place
    assert folder.number >= 0
    assert os.path.samestat(os.fstat(folder.number), os.stat(place))
    assert folder.names() == ["a", "b", "inner", "link"]
    assert stat.S_ISLNK(folder.status("link").st_mode)
    assert folder.status("a").st_size == 1
    number = folder.descriptor("b")
    assert os.read(number, 9) == b"b"
    os.close(number)
    with pytest.raises(OSError, match="symbolic links"):
        folder.descriptor("link")
    with pytest.raises(FileNotFoundError):
        folder.status("absent")


def test_a_system_that_opens_no_directories(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = elsewhere(monkeypatch)
    folder = module.Folder(place)
    assert folder.number < 0
    assert folder.names() == ["a", "b", "inner", "link"]
    assert stat.S_ISLNK(folder.status("link").st_mode)
    assert folder.status("a").st_size == 1
    assert module.OpenedFile(folder, "b").read() == b"b"
    with pytest.raises(OSError, match="a symbolic link"):
        folder.descriptor("link")
    with pytest.raises(BundleError, match=r"link: cannot be read \(a symbolic link\)"):
        module.OpenedFile(folder, "link")
    inner = module.Folder(place / "inner", folder)
    assert (inner.number, inner.names()) == (-1, [])
    assert (folder.pinned, inner.pinned) == (place, place / "inner")
    assert folder.is_where_it_was() is True
    for other in (place / "a", place / "absent"):
        with pytest.raises(NotADirectoryError):
            module.Folder(other)


@pytest.mark.parametrize("name", ["a", "absent"])
def test_what_is_no_directory(place: Path, name: str) -> None:
    folder = Folder(place)
    for parent in (None, folder):
        with pytest.raises(OSError, match=r"Not a directory|No such file"):
            Folder(place / name, parent)


def test_a_folder_in_a_folder_is_not_looked_up_again(place: Path) -> None:
    folder = Folder(place)
    place.rename(place.with_name("moved"))
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "trap").touch()
    assert Folder(place / "inner", folder).names() == []
    assert Folder(place / "inner").names() == ["trap"]


def test_a_link_within_a_folder_is_no_folder(place: Path) -> None:
    (place / "to").symlink_to("inner")
    with pytest.raises(NotADirectoryError):
        Folder(place / "to", Folder(place))
    assert Folder(place / "to").names() == []


def replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.mkdir()


@pytest.mark.parametrize(
    "change", [replaced, lambda path: path.rename(path.with_name("moved"))], ids=["other", "away"]
)
def test_where_a_folders_name_leads(place: Path, change: Callable[[Path], object]) -> None:
    folder = Folder(place)
    assert folder.is_where_it_was() is True
    change(place)
    assert folder.is_where_it_was() is False
    assert folder.names() == ["a", "b", "inner", "link"]


def test_a_path_for_libraries(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(place)
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    replaced(place)
    assert (folder.pinned / "a").read_bytes() == b"a"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda self: False)  # as where nothing is mounted at /proc
        path = folder.pinned
    assert path == place


LOWEST = """
import os, sys
from pathlib import Path
from pulse_edge.bundle.opened import Folder
place = Path(sys.argv[1])
for lowest in (0, 1):
    os.close(lowest)
    folder = Folder(place)
    assert folder.number == lowest, folder.number
    moved = place.with_name(f"moved{lowest}")
    place.rename(moved)
    assert folder.names() == ["a", "b", "inner", "link"]
    assert folder.status("a").st_size == 1
    number = folder.descriptor("a")
    assert os.read(number, 9) == b"a"
    assert Folder(place / "inner", folder).names() == []
    assert folder.is_where_it_was() is False
    assert folder.pinned == Path(f"/proc/self/fd/{lowest}") or not Path("/proc").exists()
    moved.rename(place)
    kept = globals().setdefault("kept", []) + [folder, number]
    globals()["kept"] = kept
"""


def test_a_process_without_standard_streams(place: Path) -> None:
    """A service may start without them; its first folder then has the number 0, or 1."""
    done = subprocess.run(
        [sys.executable, "-c", LOWEST, str(place)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
