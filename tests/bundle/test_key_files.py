"""Files of keys: their sizes and number, their permissions, and when they are on the disk."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from pulse_edge.bundle.keys import (
    check_installed,
    key_id,
    make_key,
    private_key,
    public_path,
    trusted_keys,
)
from pulse_edge.errors import ParameterError, PulseEdgeError, TrustError

pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")


def never() -> str:
    raise AssertionError("asked for a passphrase")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "cart.pem"
    make_key(path)
    return path


@pytest.fixture
def public(private: Path) -> Path:
    return public_path(private)


def padded(path: Path, size: int) -> None:
    """Make a file longer by text that no reader of PEM looks at."""
    content = path.read_bytes()
    path.write_bytes(content + b"\n" * (size - len(content)))


def test_the_largest_key_file(private: Path, public: Path) -> None:
    """It has 65,536 bytes."""
    for path in (private, public):
        padded(path, 65_536)
    assert list(trusted_keys(public)) == [key_id(private_key(private, never).public_key())]
    for path in (private, public):
        padded(path, 65_537)
    with pytest.raises(ParameterError, match=r"cart\.pem: over 65,536 bytes"):
        private_key(private, never)
    with pytest.raises(TrustError, match=r"cart\.pub\.pem: over 65,536 bytes"):
        trusted_keys(public)


def test_the_most_keys(public: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    for number in range(1000):
        os.link(public, folder / f"{number}.pem")
    assert len(trusted_keys(folder)) == 1
    os.link(public, folder / "more.pem")
    with pytest.raises(TrustError, match="trusted: 1,001 keys, over 1,000"):
        trusted_keys(folder)


@pytest.mark.parametrize("name", ["a.pem", "A.PEM", ".pem", "a.pub.Pem"])
def test_names_of_trusted_keys(public: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "pem").write_bytes(b"no key")
    (folder / "a.pemXX").write_bytes(b"no key")
    (folder / name).write_bytes(public.read_bytes())
    assert list(trusted_keys(folder)) == list(trusted_keys(public))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_of_a_key_pair(tmp_path: Path) -> None:
    path = tmp_path / "cart.pem"
    before = os.umask(0)
    try:
        make_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_path(path).stat().st_mode) == 0o644


def test_keys_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes of a file are written before the disk is told to keep them."""
    sizes: dict[str, int] = {}
    sync = os.fsync

    def watched(number: int) -> None:
        status = os.fstat(number)
        sizes[str(status.st_ino)] = status.st_size
        sync(number)

    monkeypatch.setattr(os, "fsync", watched)
    make_key(tmp_path / "cart.pem")
    written = [file.stat() for file in tmp_path.iterdir()]
    assert len(written) == 2
    assert {str(status.st_ino): status.st_size for status in written} == sizes


def test_no_file_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "cart.pem"
    path.symlink_to("nowhere")
    with pytest.raises(ParameterError, match=r"cart\.pem: exists already; name another file"):
        make_key(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_passphrase_is_asked_for_if_the_key_needs_one(tmp_path: Path) -> None:
    make_key(tmp_path / "open.pem", "")
    asked: list[str] = []

    def answer() -> str:
        asked.append("")
        return "sesame"

    private_key(tmp_path / "open.pem", answer)
    assert asked == []
    make_key(tmp_path / "locked.pem", "sesame")
    private_key(tmp_path / "locked.pem", answer)
    assert asked == [""]


def test_every_reader_says_what_to_install(
    private: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_installed(TrustError)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(PulseEdgeError, match=r"^cryptography is not installed; pip install "):
        private_key(private, never)
    with pytest.raises(TrustError, match=r"^cryptography is not installed; pip install "):
        trusted_keys(public)
    with pytest.raises(ParameterError, match=r"^cryptography is not installed; pip install "):
        check_installed(ParameterError)
