"""Options that commands share: threads are capped, and illegal devices are wrong usage."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import cli, main
from pulse_edge.cli import options as shared
from pulse_edge.cli.options import capped_threads, engine_options
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError, ParameterError, UnknownDeviceError

CORES = 4


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "usable_cores", lambda: CORES)


def parsed(*words: str) -> tuple[Any, str]:
    """What a command with the options of engines receives, and what stderr holds."""
    received: list[EngineOptions] = []

    @click.command()
    @engine_options
    def command(options: EngineOptions) -> None:
        received.append(options)

    done = CliRunner().invoke(command, list(words))
    return (received[0] if received else done), done.stderr


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_threads_up_to_the_cores_are_taken_as_they_are(cores: None, number: int) -> None:
    options, err = parsed("--threads", str(number))
    assert (options.threads, err) == (number, "")


@pytest.mark.parametrize("number", [5, 64, 65, 999, 100_000, 1 << 40])
def test_more_threads_are_capped_with_a_warning(cores: None, number: int) -> None:
    options, err = parsed("--threads", str(number))
    assert options.threads == CORES
    warning = f"warning: {number} threads are more than the 4 logical cores; 4 will run\n"
    assert err == warning


@pytest.mark.parametrize("text", ["-1", "-999", "many", "1.5", ""])
def test_threads_that_are_none_are_wrong_usage(cores: None, text: str) -> None:
    done, err = parsed("--threads", text)
    assert done.exit_code == 2
    assert "--threads" in err


def test_one_core_is_one(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(shared, "usable_cores", lambda: 1)
    assert capped_threads(2) == 1
    assert "the one logical core; 1 will run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ask", "chat", "panel", "verify", "fit", "serve"])
def test_every_command_with_threads_caps_them(command: str) -> None:
    (option,) = [each for each in cli.commands[command].params if each.name == "threads"]
    assert isinstance(option.type, shared.CoreCount)


def ended(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code, captured.err


@pytest.mark.parametrize("name", ["gpu", "npu", "CPU", "cuda:0", "", " "])
@pytest.mark.parametrize("command", ["ask", "chat", "panel"])
def test_a_device_that_there_is_not_is_wrong_usage(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = ended(command, SAMPLE_PAGE, "--device", name, capsys=capsys)
    assert (code, err) == (2, f"error: device {name!r} is not one of auto, cpu, cuda\n")


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_also_where_bundles_are_measured(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ended(command, "--device", "gpu", capsys=capsys)
    assert code == 2
    assert "'gpu' is not one of auto, cpu, cuda" in err


def test_programs_that_catch_engine_errors_still_do() -> None:
    for kind in (UnknownDeviceError, EngineError, ParameterError, ValueError):
        with pytest.raises(kind, match="'gpu' is not one of auto, cpu, cuda"):
            EngineOptions(device="gpu")


def test_what_there_is_not_to_build_is_said_without_a_gpu(
    bundle: object, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = ended("build", bundle, capsys=capsys)
    assert code == 8
    assert err == (
        f"error: {bundle} was exported for a CPU and runs as it is; there is nothing to build\n"
    )
