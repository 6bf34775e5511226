"""A benchmark without a package that it needs says so in one line, with the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.failures import in_one_line
from pulse_edge.errors import BundleError

from support.paths import ROOT

# Benchmark -> a module that it needs, and what brings it.
NEEDS = {
    "accuracy": ("ml_dtypes", "pulse-edge[export]"),
    "batching": ("onnx", "pulse-edge[export]"),
    "sbom": ("cyclonedx", "pulse-edge[sbom]"),
    "serve": ("httpx", "httpx"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_one_line(name: str, tmp_path: Path) -> None:
    module, package = NEEDS[name]
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{module!r}] = None")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {module} is not installed; pip install '{package}'\n"


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("onnx.helper", "pulse-edge[export]"),
        ("safetensors", "pulse-edge[export]"),
        ("tensorrt", "pulse-edge[tensorrt]"),
        ("optimum.onnxruntime", "pulse-edge[optimum]"),
        ("onnxruntime", "pulse-edge[cpu]"),
        ("llama_cpp", "llama-cpp-python"),
        ("torch", "torch"),
    ],
)
def test_the_command_brings_the_module(name: str, package: str) -> None:
    root = name.partition(".")[0]
    assert in_one_line(missing(name)) == f"{root} is not installed; pip install '{package}'"


def test_a_refusal_is_its_message_and_a_mistake_of_ours_keeps_its_traceback() -> None:
    assert in_one_line(BundleError("no bundle\nthere")) == "no bundle there"
    for error in (missing("benchmarks.none"), missing("pulse_edge.none"), ValueError("x")):
        assert in_one_line(error) is None
