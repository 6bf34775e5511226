"""The commit of a clone, read without writing into it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pulse_edge.system import commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-m", "one")
    return tmp_path


def head(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout[:12]


def test_clean_and_changed(clone: Path) -> None:
    (clone / "untracked").touch()
    assert commit_of(clone) == head(clone)
    (clone / "file").write_text("b")
    assert commit_of(clone) == f"{head(clone)}-dirty"


def test_it_writes_nothing(clone: Path) -> None:
    (clone / "file").touch()  # git would like to refresh its index
    before = (clone / ".git" / "index").stat().st_mtime_ns
    (clone / ".git" / "index.lock").touch()  # held by another git
    assert commit_of(clone) == head(clone)
    assert (clone / ".git" / "index").stat().st_mtime_ns == before


def test_no_clone(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
