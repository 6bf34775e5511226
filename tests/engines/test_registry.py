"""Which engine opens a bundle: the table of engines, and engines of other packages."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pulse_edge.engines.onnxruntime as built_in
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import choose_engine, open_engine
from pulse_edge.engines.table import (
    BUILT_IN,
    DEVICES,
    ENGINES,
    GROUP,
    EngineRow,
    engine_names,
    find_engine,
    list_engines,
)
from pulse_edge.errors import EngineError, ParameterError

# --- the table -----------------------------------------------------------------------------------


def test_the_built_in_engines() -> None:
    assert ENGINES == ("auto", "native", "onnxruntime", "openvino", "tensorrt")
    assert engine_names()[: len(ENGINES)] == ENGINES
    assert list_engines()[: len(BUILT_IN)] == BUILT_IN
    for row in BUILT_IN:
        assert find_engine(row.name) is row
        assert {device for _, device in row.runs} <= set(DEVICES)
        assert callable(__import__(row.module, fromlist=["open_engine"]).open_engine)


@pytest.mark.parametrize(
    ("target", "device", "engine", "chosen"),
    [
        ("cpu", "auto", "auto", ("onnxruntime", "cpu")),
        ("cpu", "cpu", "onnxruntime", ("onnxruntime", "cpu")),
        ("cpu", "auto", "openvino", ("openvino", "cpu")),
        ("cuda", "auto", "auto", ("onnxruntime", "cuda")),
        ("cuda", "cpu", "auto", ("onnxruntime", "cpu")),
        ("cuda", "auto", "native", ("native", "cuda")),
        ("standard", "auto", "auto", ("tensorrt", "cuda")),
        ("standard", "cuda", "auto", ("tensorrt", "cuda")),
        ("standard", "cpu", "auto", ("onnxruntime", "cpu")),
        ("standard", "auto", "onnxruntime", ("onnxruntime", "cpu")),
        ("standard", "auto", "tensorrt", ("tensorrt", "cuda")),
    ],
)
def test_what_runs_a_target(
    bundle: Path,
    target: str,
    device: str,
    engine: str,
    chosen: tuple[str, str],
) -> None:
    row, on = choose_engine(exported_for(target, bundle), EngineOptions(device, engine=engine))
    assert (row.name, on) == chosen


@pytest.mark.parametrize(
    ("target", "device", "engine", "message"),
    [
        ("cpu", "cuda", "auto", "does not run on cuda; .*--target cuda, or use --device cpu$"),
        ("cpu", "auto", "tensorrt", "which engine tensorrt does not run; use --engine auto$"),
        ("cpu", "cuda", "openvino", "openvino does not run on cuda; use --device cpu$"),
        ("cuda", "auto", "openvino", "which engine openvino does not run; use --engine auto$"),
        ("standard", "cpu", "openvino", "which engine openvino does not run; use --engine auto$"),
        ("standard", "cpu", "tensorrt", "tensorrt does not run on cpu; use --device cuda$"),
        (
            "tpu",
            "auto",
            "auto",
            "which no engine runs in this .* --target cpu or cuda or standard$",
        ),
    ],
)
def test_what_nothing_runs(
    bundle: Path,
    target: str,
    device: str,
    engine: str,
    message: str,
) -> None:
    with pytest.raises(EngineError, match=f"was exported for {target}.*{message}"):
        choose_engine(exported_for(target, bundle), EngineOptions(device, engine=engine))


def exported_for(target: Any, path: Path) -> Bundle:
    opened = open_bundle(path)
    return replace(opened, manifest=replace(opened.manifest, target=target))


def test_unknown_values() -> None:
    with pytest.raises(EngineError, match=r"^device 'npu' is not one of auto, cpu, cuda$"):
        EngineOptions("npu")
    with pytest.raises(ParameterError, match=r"^engine 'x' is not one of auto, native, onnx"):
        EngineOptions(engine="x")


# --- engines of other packages -------------------------------------------------------------------

# What entry points name: a good row, one of another name, one whose module is missing.
OTHER = EngineRow("other", built_in.__name__, (("cpu", "cpu"),))
MISNAMED = EngineRow("another", built_in.__name__, (("cpu", "cpu"),))
MISSING = EngineRow("missing", "no_such_module_here", (("cpu", "cpu"),))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Packages with entry points: `points` by name."""
    world = SimpleNamespace(points={}, lookups=0)

    def entry_points(group: str) -> list[EntryPoint]:
        assert group == GROUP == "pulse_edge.engines"
        world.lookups += 1
        return [EntryPoint(name, value, group) for name, value in world.points.items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return world


def test_an_engine_of_another_package(bundle: Path, installed: SimpleNamespace) -> None:
    installed.points = {"other": f"{__name__}:OTHER", "onnxruntime": f"{__name__}:MISSING"}
    opened = open_bundle(bundle)
    for name in ("auto", "onnxruntime"):
        open_engine(opened, EngineOptions(threads=1, engine=name))
    assert installed.lookups == 0, "a name in the table needs no other packages"
    assert engine_names() == (*ENGINES, "other")
    assert find_engine("other").name == list_engines()[-1].name == "other"
    engine = open_engine(opened, EngineOptions(threads=1, engine="other"))
    assert engine.describe()["device"] == "cpu"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_here:ROW", "'bad' cannot be loaded .*ModuleNotFoundError.*uninstall"),
        (f"{__name__}:NO_SUCH_ROW", "'bad' cannot be loaded .*AttributeError"),
        (f"{__name__}:MISNAMED", f"'bad': {__name__}:MISNAMED is not an EngineRow of that name"),
        (f"{__name__}:exported_for", f"'bad': {__name__}:exported_for is not an EngineRow"),
    ],
)
def test_a_broken_package(
    bundle: Path,
    installed: SimpleNamespace,
    value: str,
    message: str,
) -> None:
    installed.points = {"bad": value}
    assert engine_names() == (*ENGINES, "bad")
    for use in (
        lambda: open_engine(open_bundle(bundle), EngineOptions(engine="bad")),
        list_engines,
    ):
        with pytest.raises(EngineError, match=f"engine {message}"):
            use()
    open_engine(open_bundle(bundle), EngineOptions(threads=1))  # which others do not disturb


def test_an_engine_whose_module_is_missing(bundle: Path, installed: SimpleNamespace) -> None:
    installed.points = {"missing": f"{__name__}:MISSING"}
    with pytest.raises(EngineError, match=r"engine 'missing' cannot be loaded .*no_such_module"):
        open_engine(open_bundle(bundle), EngineOptions(engine="missing"))
