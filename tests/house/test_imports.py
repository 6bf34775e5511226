"""The runtime stays lean: what may be imported, when, and how long it takes."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_edge

PACKAGE = Path(pulse_edge.__file__).parent
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "optimum",
    "safetensors",
    "matplotlib",
    "pydicom",
    "rich",
    "fastapi",
    "scipy",
    "cryptography",
    "llguidance",
}
CLONE_ONLY = {"pulse_export", "pulse_nano", "benchmarks"}  # what a device does not install


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_imports_anything_heavy_at_its_top(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] + [alias.name for alias in node.names]
        for name in names:
            assert name.split(".")[0] not in HEAVY | CLONE_ONLY, f"{path.name} imports {name}"


def test_importing_everything_loads_nothing_heavy() -> None:
    names = [
        ".".join(("pulse_edge", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in MODULES
    ]
    names = [n.removesuffix(".__init__") for n in names]
    names.remove("pulse_edge.serve.ray_router")  # a subclass of Ray's, for Ray's processes
    loaded = json.loads(
        run(f"import sys, json\nimport {', '.join(names)}\nprint(json.dumps(list(sys.modules)))")
    )
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & (HEAVY | CLONE_ONLY | {"onnxruntime", "tensorrt", "tensorrt_rtx", "cuda"})


def test_answering_loads_nothing_heavy(bundle: Path) -> None:
    code = (
        "import sys, json, numpy, pulse_edge\n"
        f"model = pulse_edge.load({str(bundle)!r}, threads=1)\n"
        "model.ask(numpy.zeros((50, 60), 'uint8'), 'What is the rate?', max_new_tokens=2)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    roots = {name.split(".")[0] for name in json.loads(run(code))}
    assert "onnxruntime" in roots
    assert not roots & (HEAVY | CLONE_ONLY)


def test_the_runtime_answers_without_the_exporter(bundle: Path) -> None:
    """What a device installs: no import root but pulse_edge, none of the export's packages."""
    code = (
        "import sys, numpy\n"
        f"for name in {sorted(HEAVY | CLONE_ONLY)!r}: sys.modules[name] = None\n"  # import raises
        "import pulse_edge\n"
        f"model = pulse_edge.load({str(bundle)!r}, threads=1)\n"
        "chat = model.chat(numpy.zeros((50, 60), 'uint8'))\n"
        "chat.ask('What is the rate?', max_new_tokens=2)\n"
        "print(len(list(model.stream(None, 'What is the rate?', max_new_tokens=2))))\n"
        "from pulse_edge.cli import main\n"
        f"main(['info', {str(bundle)!r}])"
    )
    assert run(code)


def test_import_takes_under_150_ms() -> None:
    code = "import time; t = time.perf_counter(); import pulse_edge; print(time.perf_counter() - t)"
    assert statistics.median(float(run(code)) for _ in range(5)) < 0.150


def test_every_public_name_is_there() -> None:
    for name in pulse_edge.__all__:
        assert getattr(pulse_edge, name) is not None
    assert set(pulse_edge.__all__) <= set(dir(pulse_edge))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pulse_edge.nothing  # noqa: B018
