"""Compiled kernels in a bundle: written, read, and refused when they are not what was written."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.cubins import (
    NO_SHAPES,
    LaunchShape,
    Shapes,
    compiled_for,
    cubin_folder,
    read_cubins,
    read_shapes,
    write_cubins,
)
from pulse_edge.errors import EngineError

from support.hand_bundle import write_bundle
from support.manifests import reseal

KERNELS = {"a" * 64: b"first", "b" * 64: b"second"}
SHAPES = Shapes("a card", (LaunchShape("q", False, 4, 2, 1, 3, 5, 7),))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "bundle"))


def written(bundle: Bundle, capability: int = 87, shapes: Shapes = SHAPES) -> Path:
    return write_cubins(bundle, capability, "a compiler 1.2", KERNELS, shapes)


def test_kernels_come_back(bundle: Bundle) -> None:
    assert read_cubins(bundle, 87) == {}
    assert read_shapes(bundle, 87) == NO_SHAPES == Shapes("", ())
    assert compiled_for(bundle) == []
    root = written(bundle)
    assert root == cubin_folder(bundle, 87) == bundle.path / "plans" / "native-sm87"
    assert read_cubins(bundle, 87) == KERNELS
    assert read_shapes(bundle, 87) == SHAPES
    assert read_cubins(bundle, 89) == {}
    written(bundle, 120, NO_SHAPES)
    assert read_shapes(bundle, 120) == NO_SHAPES
    assert compiled_for(bundle) == ["native-sm120", "native-sm87"]
    assert open_bundle(bundle.path) == bundle


def test_what_is_written(bundle: Bundle) -> None:
    """Other versions of the program read it."""
    root = written(bundle)
    assert sorted(os.listdir(root)) == ["a" * 64 + ".cubin", "b" * 64 + ".cubin", "cubins.json"]
    assert os.listdir(root.parent) == ["native-sm87"]
    index = json.loads((root / "cubins.json").read_bytes())
    assert {key: index[key] for key in ("schema_version", "bundle", "capability", "compiler")} == {
        "schema_version": 2,
        "bundle": bundle.digest,
        "capability": 87,
        "compiler": "a compiler 1.2",
    }
    assert [(file["path"], file["size"]) for file in index["files"]] == [
        ("a" * 64 + ".cubin", 5),
        ("b" * 64 + ".cubin", 6),
    ]
    assert reseal(index) == (root / "cubins.json").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_other_users_may_read_kernels(bundle: Bundle) -> None:
    assert stat.S_IMODE(written(bundle).stat().st_mode) == 0o755


@pytest.mark.parametrize("index", [True, False])
def test_kernels_replace_those_before(bundle: Bundle, index: bool) -> None:
    root = written(bundle)
    (root / "left.cubin").touch()
    if not index:
        (root / "cubins.json").unlink()
    write_cubins(bundle, 87, "a compiler 1.3", {"c" * 64: b"third"})
    assert read_cubins(bundle, 87) == {"c" * 64: b"third"}
    assert sorted(os.listdir(root)) == ["c" * 64 + ".cubin", "cubins.json"]
    assert os.listdir(root.parent) == ["native-sm87"]


def test_a_build_that_is_interrupted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder has no index while it is removed, and what was staged goes."""
    root = written(bundle)

    def stopped(path: Path, **options: Any) -> None:
        if path != root:
            remove(path, **options)
            return
        assert "cubins.json" not in os.listdir(root)
        raise KeyboardInterrupt

    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(bundle)
    assert os.listdir(root.parent) == ["native-sm87"]
    assert read_cubins(bundle, 87) == {}
    assert compiled_for(bundle) == []


def test_a_folder_that_is_being_written_is_none(bundle: Bundle) -> None:
    (bundle.path / "plans" / ".native-sm87-x").mkdir(parents=True)
    (bundle.path / "plans" / ".native-sm87-x" / "cubins.json").touch()
    assert compiled_for(bundle) == []


def edited(root: Path, **fields: Any) -> None:
    """Change the index and seal it anew, as a forger would."""
    data = json.loads((root / "cubins.json").read_bytes()) | fields
    (root / "cubins.json").write_bytes(reseal(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: edited(root, capability=89), "its kernels were compiled for 89"),
        (
            lambda root: edited(root, bundle="0123456789abcdef" * 4),
            "its kernels were compiled for another bundle (0123456789abcdef…)",
        ),
        (lambda root: edited(root, schema_version=1), "schema version 1, this pulse-edge reads 2"),
        (lambda root: edited(root, schema_version=3), "schema version 3, this pulse-edge reads 2"),
        (lambda root: edited(root, more=1), "unknown field 'more'"),
        (lambda root: (root / "cubins.json").write_bytes(b"{"), "not valid JSON"),
    ],
)
def test_an_index_that_does_not_fit(
    bundle: Bundle, damage: Callable[[Path], object], message: str
) -> None:
    root = written(bundle)
    damage(root)
    for read in (read_cubins, read_shapes):
        with pytest.raises(EngineError) as caught:
            read(bundle, 87)
        text = str(caught.value)
        assert message in text
        assert text.startswith(str(root))
        assert "more" in message or f"build them again: pulse-edge build {bundle.path}" in text


@pytest.mark.parametrize("content", [b"First", b"firs", b"firsts", None])
def test_a_kernel_that_is_another(bundle: Bundle, content: bytes | None) -> None:
    path = written(bundle) / ("a" * 64 + ".cubin")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"a\.cubin: .*; build them again: pulse-edge build"):
        read_cubins(bundle, 87)
    assert read_shapes(bundle, 87) == SHAPES
