"""What an installation gets: packages of the extras, types, schemas, and a word on old Pythons."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.assets import SCHEMAS

from support.command import command, environment_with
from support.paths import DOCS, PROGRAM, ROOT

requirements = pytest.importorskip("packaging.requirements", reason="pulse-edge[sbom] brings it")

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def brought(extra: str, machine: str) -> dict[str, Any]:
    """Package -> its requirement, as pip installs an extra on a machine with Linux."""
    rows = [requirements.Requirement(row) for row in EXTRAS[extra]]
    there = {"platform_machine": machine, "sys_platform": "linux"}
    return {row.name: row for row in rows if row.marker is None or row.marker.evaluate(there)}


@pytest.mark.parametrize(
    ("extra", "package", "machines"),
    [
        ("cpu", "onnxruntime", ("x86_64", "aarch64")),
        ("gpu", "onnxruntime-gpu", ("x86_64", "aarch64")),
        ("tensorrt", "tensorrt", ("x86_64",)),
        ("tensorrt", "cuda-bindings", ("x86_64", "aarch64")),
        ("optimum", "optimum", ("x86_64", "aarch64")),
        ("optimum", "optimum-onnx", ("x86_64", "aarch64")),
    ],
)
def test_an_extra_brings_the_package_of_its_name(
    extra: str, package: str, machines: tuple[str, ...]
) -> None:
    """On a Jetson, which is aarch64, TensorRT is JetPack's."""
    for machine in ("x86_64", "aarch64"):
        assert (package in brought(extra, machine)) == (machine in machines)


@pytest.mark.parametrize(
    ("extra", "package", "old", "new"),
    [
        ("gpu", "onnxruntime-gpu", "1.26.0", "1.27.0"),
        ("tensorrt", "tensorrt", "10.14.1.48", "10.15.1.29"),
    ],
)
def test_an_extra_brings_no_older_version(extra: str, package: str, old: str, new: str) -> None:
    specifier = brought(extra, "x86_64")[package].specifier
    assert not specifier.contains(old)
    assert specifier.contains(new)


def test_one_engine_an_extra() -> None:
    """Two packages of ONNX Runtime overwrite each other's files."""
    assert "onnxruntime" not in brought("gpu", "x86_64")
    assert "onnxruntime-gpu" not in brought("cpu", "x86_64")
    runtime = {requirements.Requirement(row).name for row in PROJECT["project"]["dependencies"]}
    assert not runtime & {"onnxruntime", "onnxruntime-gpu", "torch", "transformers", "onnx"}


def test_the_metadata_says_what_the_project_is() -> None:
    project = PROJECT["project"]
    classifiers = project["classifiers"]
    versions = [row.rpartition(" ")[2] for row in classifiers if re.search(r":: 3\.\d+$", row)]
    least = project["requires-python"].removeprefix(">=")
    assert versions[0] == least == "3.11"
    assert versions == sorted(versions, key=lambda version: int(version.partition(".")[2]))
    assert len(classifiers) == len(set(classifiers))
    assert "Typing :: Typed" in classifiers
    assert all(url.startswith("https://") for url in project["urls"].values())
    assert project["urls"]


def test_the_wheel_holds_every_file_that_is_no_module() -> None:
    """Among them the types' markers, the schemas, the embedded bundle and the server's page."""
    globs = PROJECT["tool"]["setuptools"]["package-data"]
    for package, folder in (("pulse_edge", ROOT), ("pulse_export", ROOT / "export")):
        root = folder / package
        files = [path for path in root.rglob("*") if path.is_file()]
        for path in files:
            name = path.relative_to(root).as_posix()
            if path.suffix not in (".py", ".pyc"):
                assert any(fnmatch(name, glob) for glob in globs[package]), name
        assert (root / "py.typed").is_file()


@pytest.mark.parametrize(
    "name", sorted(path.name.removesuffix(".schema.json") for path in DOCS.glob("*.schema.json"))
)
def test_a_schema_is_in_the_package_and_in_the_documents(name: str) -> None:
    packaged = SCHEMAS / f"{name}.schema.json"
    assert json.loads(packaged.read_text("utf-8"))["$schema"]
    assert (DOCS / packaged.name).read_text("utf-8") == packaged.read_text("utf-8")


@pytest.mark.parametrize("name", ["ask", "panel"])
def test_help_cites_schemas_that_are_in_the_package(name: str) -> None:
    text = command(name, "--help").stdout
    cited = re.findall(r"[\w/.]+\.schema\.json", re.sub(r"\n +", "", text))
    assert cited
    for path in cited:
        assert (ROOT / path).is_file()
        assert path.startswith("pulse_edge/")


def run_module(*arguments: str, env: dict[str, str] | None = None) -> Any:
    words = [sys.executable, "-m", "pulse_edge", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_the_package_runs_as_a_module() -> None:
    assert run_module("--version").stdout == command("--version").stdout
    done = run_module("info", "none")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: no bundle at none")
    usage = run_module("ask", "--nope").stderr
    assert usage == command("ask", "--nope").stderr


OLD = "import sys\nsys.version_info = (3, 10, 4, 'final', 0)"


def test_an_old_python_is_told_at_once(tmp_path: Path) -> None:
    env = environment_with(tmp_path, OLD)
    done = run_module("--version", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: pulse-edge needs Python 3\.11 .* this is Python 3\.10; .*\n",
                        done.stderr)  # fmt: skip
    script = "try:\n import pulse_edge\nexcept ImportError as error:\n print(error)"
    said = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("pulse-edge needs Python 3.11 or newer")


@pytest.mark.parametrize("name", ["__init__", "__main__", "errors"])
def test_an_old_python_can_read_that_far(name: str) -> None:
    source = (ROOT / "pulse_edge" / f"{name}.py").read_text("utf-8")
    ast.parse(source, feature_version=(3, 7))


def test_make_tells_an_old_python_before_it_installs(tmp_path: Path) -> None:
    old = tmp_path / "old"
    body = f"{OLD.replace(chr(10), '; ')}; exec(sys.argv[2])".replace("'", '"')
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{body}' \"$@\"\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/pip"],
        cwd=ROOT, env=os.environ | {"MAKEFLAGS": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"error: pulse-edge needs Python 3.11 or newer, and {old} is Python 3.10" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_installed_command_is_the_module() -> None:
    assert PROJECT["project"]["scripts"] == {"pulse-edge": "pulse_edge.cli:main"}
    assert PROGRAM.exists()


def test_the_changelog_is_of_the_form_that_is_promised() -> None:
    """docs/compatibility.md says which: a section a version, and six kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (.+)$", text, re.M)
    kinds = re.findall(r"^### (.+)$", text, re.M)
    assert versions[0] == "Unreleased"
    released = [version.partition(" ")[0] for version in versions[1:]]
    assert released[0] == PROJECT["project"]["version"]
    order = [tuple(map(int, version.split("."))) for version in released]
    assert order == sorted(order, reverse=True)
    promised = (DOCS / "compatibility.md").read_text("utf-8")
    legal = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    assert all(kind in promised for kind in legal)
    assert set(kinds) <= set(legal)


def test_what_is_promised_exists() -> None:
    promised = (DOCS / "compatibility.md").read_text("utf-8")
    for name in ("pulse_edge", "pulse_export"):
        assert f"`{name}.__all__`" in promised
        assert import_module(name).__all__
    snippet = re.findall(r"^```python\n(.*?)^```$", promised, re.M | re.S)[0]
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True)
    assert json.loads(done.stdout)["$schema"], done.stderr
