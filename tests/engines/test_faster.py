"""Which CPU engine `auto` takes: the first one, unless another was measured to be faster here."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pulse_edge import state
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines import faster
from pulse_edge.engines.faster import (
    fastest_engine,
    measured_speeds,
    remember_speeds,
    rival_engines,
)
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import choose_engine

SLOW, FAST = {"onnxruntime": 2.0, "openvino": 3.0}, {"onnxruntime": 3.0, "openvino": 2.0}


@pytest.fixture
def opened(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle, where both engines are installed."""
    monkeypatch.setattr(faster, "RIVALS", {"onnxruntime": "onnxruntime", "openvino": "numpy"})
    return open_bundle(bundle)


def chosen(opened: Bundle, **options: Any) -> str:
    return choose_engine(opened, EngineOptions(**options))[0].name


@pytest.mark.parametrize(
    ("speeds", "engine"),
    [
        ({}, "onnxruntime"),
        (SLOW, "onnxruntime"),
        (FAST, "openvino"),
        ({"onnxruntime": 3.0, "openvino": 2.9}, "onnxruntime"),
        ({"onnxruntime": 3.0, "openvino": 2.8}, "openvino"),
        ({"openvino": 2.0}, "onnxruntime"),
        ({"onnxruntime": 3.0}, "onnxruntime"),
    ],
)
def test_another_engine_must_be_ahead(speeds: dict[str, float], engine: str) -> None:
    assert fastest_engine(speeds) == engine


def test_auto_takes_what_was_measured(opened: Bundle) -> None:
    assert chosen(opened) == "onnxruntime"
    remember_speeds(opened, FAST)
    assert measured_speeds(opened) == FAST
    assert chosen(opened) == chosen(opened, device="cpu") == "openvino"
    assert chosen(opened, engine="onnxruntime") == "onnxruntime"
    assert chosen(opened, slots=2) == "onnxruntime", "the faster one has one slot"
    remember_speeds(opened, SLOW)
    assert chosen(opened) == "onnxruntime"


def test_of_another_bundle_nothing_is_known(opened: Bundle) -> None:
    remember_speeds(opened, FAST)
    other = replace(opened, manifest=replace(opened.manifest, seal="0" * 64))
    assert measured_speeds(other) == {}
    assert chosen(other) == "onnxruntime"


@pytest.mark.parametrize("what", ["processor", "version"])
def test_another_machine_measures_anew(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    remember_speeds(opened, FAST)
    if what == "processor":
        monkeypatch.setattr(faster, "processor", lambda: {"cpu": "another"})
    else:
        monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.1")
    assert measured_speeds(opened) == {}


def test_an_engine_that_was_uninstalled(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_speeds(opened, FAST)
    rivals = {"onnxruntime": "onnxruntime", "openvino": "no_such_package_here"}
    monkeypatch.setattr(faster, "RIVALS", rivals)
    assert rival_engines() == ("onnxruntime",)
    assert measured_speeds(opened) == {}
    assert chosen(opened) == "onnxruntime"


@pytest.mark.parametrize("value", [0, -1.0, True, None, [1.0]])
def test_a_record_that_is_no_time(opened: Bundle, value: Any) -> None:
    """Whatever wrote it."""
    remember_speeds(opened, {"onnxruntime": 3.0, "openvino": value})
    assert measured_speeds(opened) == {"onnxruntime": 3.0}
    assert chosen(opened) == "onnxruntime"


def test_it_is_kept_in_the_state_folder(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "state"))
    remember_speeds(opened, FAST)
    state.forget()
    assert chosen(opened) == "openvino"
    (record,) = (tmp_path / "state" / "engines").iterdir()
    record.write_text("damaged")
    assert chosen(opened) == "onnxruntime"
