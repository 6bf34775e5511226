"""What `load` chooses where nothing is said, and what it tells of itself."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pulse_edge
from pulse_edge import model as model_module
from pulse_edge import worker
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ParameterError
from pulse_edge.log import NAME

from support.paced import paced
from support.requests import LONG, Q1, page

GIB = 1_073_741_824


def test_what_is_not_said_is_left_to_the_engine(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads, the whole context, its own pieces, one slot."""
    options: list[EngineOptions] = []

    def opened(bundle: Any, chosen: EngineOptions) -> Engine:
        options.append(chosen)
        return open_engine(bundle, chosen)

    monkeypatch.setattr(model_module, "open_engine", opened)
    model = pulse_edge.load(bundle)
    assert options == [EngineOptions("auto", 0, None, None, "auto", 1)]
    assert len(model.runner.lanes.all) == 1


def test_pages_of_a_gibibyte_are_kept(bundle: Path) -> None:
    assert pulse_edge.load(bundle, threads=1).runner.lanes.kept.budget == GIB
    opened = open_bundle(bundle)
    made = pulse_edge.Model(opened, open_engine(opened, EngineOptions(threads=1)))
    assert made.runner.lanes.kept.budget == GIB
    assert pulse_edge.load(bundle, threads=1, kept_bytes=7).runner.lanes.kept.budget == 7


@pytest.mark.parametrize(
    ("options", "how"), [({}, "checksum"), ({"check_hashes": False}, "unchecked")]
)
def test_files_are_hashed(bundle: Path, options: dict[str, Any], how: str) -> None:
    model = pulse_edge.load(bundle, threads=1, **options)
    assert model.ask(None, Q1, max_new_tokens=1).provenance["verified"]["how"] == how


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_what_may_become_of_transparent_pixels(bundle: Path, alpha: Any) -> None:
    pulse_edge.load(bundle, threads=1, alpha=alpha)
    with pytest.raises(ParameterError, match=f"{alpha}"):
        pulse_edge.load(bundle, threads=1, alpha=alpha + "r")


def test_a_load_tells_that_the_engine_is_opened(bundle: Path) -> None:
    told: list[tuple[str, int, int]] = []
    pulse_edge.load(bundle, threads=1, progress=lambda *step: told.append(step))
    assert told.count(("loading", 0, 1)) == 1
    assert {stage for stage, _, _ in told[: told.index(("loading", 0, 1))]} == {"checking"}


def test_a_load_tells_its_seconds(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moments = iter([100.0, 102.5])
    clock = SimpleNamespace(perf_counter=lambda: next(moments))
    monkeypatch.setattr(model_module, "time", clock)
    with caplog.at_level(logging.INFO, NAME):
        model = pulse_edge.load(bundle, threads=1)
    line = f"loaded {bundle} (seal {model.bundle.digest}) in 2.50 s"
    assert line in [record.getMessage() for record in caplog.records]


def test_a_closed_model_drops_what_it_has_computed(bundle: Path) -> None:
    model = pulse_edge.load(bundle, threads=1)
    model.ask(page(), Q1, max_new_tokens=2)
    assert model.runner.sequence.keys
    model.close()
    assert model.runner.sequence.keys == []


def test_what_a_hanging_engine_uses_is_not_dropped(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` does not wait for it for ever, and another thread must not touch its memory."""
    monkeypatch.setattr(worker, "EXIT_SECONDS", 0.05)
    model = pulse_edge.load(bundle, threads=1)
    forgotten: list[str] = []
    monkeypatch.setattr(model.runner, "forget", lambda: forgotten.append("all"))
    with paced(model) as pace:
        pace.hold()
        stream = model.stream(None, Q1, max_new_tokens=LONG)
        next(stream)
        model.close()
        assert model.worker.thread.is_alive()
        assert forgotten == []
        pace.go()
        model.worker.thread.join(60)
    model.close()
    assert forgotten == ["all"]
