"""`pulse-edge serve --slots`: how many requests decode at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("uvicorn", reason="serving needs pulse-edge[server]")

from pulse_edge.cli import cli
from pulse_edge.errors import EngineError
from pulse_edge.serve import server

from support.fixture_types import Bundles


@pytest.fixture
def served_with(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Models and settings that would be served."""
    calls: list[Any] = []

    def run_server(model: Any, config: Any, listener: Any, *_: Any) -> None:
        listener.close()
        calls.append((len(model.engine.cursors), config.slots))

    monkeypatch.setattr(server, "run_server", run_server)
    return calls


def serve(*arguments: Any) -> Any:
    words = ["serve", "--port", "0", "--threads", "1", *arguments]
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.parametrize(
    ("arguments", "slots"), [((), 1), (("--slots", 1), 1), (("--slots", 3), 3)]
)
def test_the_option(
    bundle: Path, served_with: list[Any], arguments: tuple[Any, ...], slots: int
) -> None:
    done = serve("--model", bundle, *arguments)
    assert done.exit_code == 0, done.output
    assert served_with == [(slots, slots)]


def test_a_line_of_the_file(bundle: Path, served_with: list[Any], tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text("slots = 2\n")
    done = serve("--model", bundle, "--config", tmp_path / "serve.toml")
    assert done.exit_code == 0, done.output
    assert served_with == [(2, 2)]


@pytest.mark.parametrize("slots", ["0", "65", "-3", "many", "1.5"])
def test_slots_that_cannot_be(bundle: Path, served_with: list[Any], slots: str) -> None:
    done = serve("--model", bundle, "--slots", slots)
    assert getattr(done.exception, "exit_code", done.exit_code) == 2
    assert "slots" in f"{done.exception} {done.output}"
    assert served_with == []


def test_a_bundle_for_another_device_says_so(bundles: Bundles, served_with: list[Any]) -> None:
    done = serve("--model", bundles("fp16", None, "cuda"), "--device", "cpu", "--slots", 2)
    assert isinstance(done.exception, EngineError)
    assert "2 slots, but engine onnxruntime has one" in str(done.exception)


@pytest.mark.parametrize(("arguments", "kept"), [((), 1 << 30), (("--kept-mib", 3), 3 << 20)])
def test_memory_of_kept_pages(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], kept: int
) -> None:
    limits: list[int] = []

    def run_server(model: Any, _config: Any, listener: Any, *_: Any) -> None:
        listener.close()
        limits.append(model.runner.lanes.kept.budget)

    monkeypatch.setattr(server, "run_server", run_server)
    serve("--model", bundle, *arguments)
    assert limits == [kept]
