"""The container files of examples/: linted, and naming only what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from support.paths import BIN, ROOT

EXAMPLES = ROOT / "examples"
FILES = sorted([*EXAMPLES.glob("Dockerfile.*"), *EXAMPLES.glob("Containerfile")])
LINTER = shutil.which("hadolint", path=str(BIN)) or shutil.which("hadolint")


def test_there_is_one_for_each_kind_of_device() -> None:
    assert {"Dockerfile.cpu", "Dockerfile.cuda"} <= {path.name for path in FILES}


@pytest.mark.skipif(LINTER is None, reason="make lint installs hadolint")
def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [str(LINTER), *map(str, FILES)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_container_installs_extras_that_exist_and_runs_as_nobody_special(path: Path) -> None:
    text = path.read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (extras,) = re.findall(r'pip install --no-cache-dir "/src\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert (len({"cpu", "gpu"} & set(extras.split(",")))) == 1
    assert ("gpu" in extras.split(",")) == path.name.endswith(".cuda")
    (image,) = re.findall(r"^FROM (\S+)$", text, re.M)
    assert not image.endswith(":latest")
    assert ":" in image
    (user,) = re.findall(r"^USER (\d+)$", text, re.M)
    assert int(user) > 0
    assert text.index("pip install") < text.index("\nUSER ")
    (entry,) = re.findall(r'^ENTRYPOINT \["pulse-edge"', text, re.M)
    assert entry


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_its_first_lines_say_how_it_is_built(path: Path) -> None:
    assert f"-f examples/{path.name} ." in path.read_text("utf-8")


def test_what_is_built_or_private_is_in_no_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {".git", ".venv*", "build", "dist"} <= set(ignored)
    needed = {"pulse_edge", "export", "pyproject.toml", "README.md", "LICENSE"}
    assert not needed & set(ignored)
