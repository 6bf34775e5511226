"""The line that shows how far a stage is, on a terminal and with a clock of the test's own."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import main, status
from pulse_edge.cli.status import Status
from pulse_edge.engines.onnxruntime import OnnxRuntimeEngine
from pulse_edge.rates import Rates, Work

CLEARED = "\r\033[K"


class Terminal(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        """What stands in the last line."""
        return self.getvalue().rpartition(CLEARED)[2]


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Where the line goes. pytest sets `sys.stderr` anew for each phase of a test."""
    terminal = Terminal()
    monkeypatch.setattr(status, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setattr(status, "rewrite_line", lambda text: terminal.write(CLEARED + text))
    return terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(status, "TICK_SECONDS", 3600.0)  # the tests draw themselves
    return Clock()


@pytest.fixture
def line(terminal: Terminal, clock: Clock) -> Iterator[Status]:
    with Status(clock) as line:
        yield line
    assert terminal.line == "", "nothing is left behind"


def test_a_stage_is_shown_once_it_has_taken_its_time(
    terminal: Terminal, clock: Clock, line: Status
) -> None:
    line("vision", 0, 5)
    clock.now += Status.PATIENCE / 2
    line.draw()
    assert terminal.getvalue() == ""
    clock.now += Status.PATIENCE
    line.draw()
    assert terminal.line.startswith("vision     [")


@pytest.mark.parametrize("name", ["vision", "prefill", "loading"])
@pytest.mark.parametrize("expected", [None, 8.0])
def test_a_bar_never_stands_still(
    terminal: Terminal, clock: Clock, line: Status, name: str, expected: float | None
) -> None:
    """A call that reports nothing for seconds."""
    line.expect(lambda stage, total: expected if (stage, total) == (name, 5) else None)
    line(name, 0, 5)
    seen = []
    for _ in range(12):
        clock.now += 0.5
        line.draw()
        seen.append(terminal.line)
    assert len(set(seen)) == 12
    assert not any("  0%" in each for each in seen)
    assert ("left" in seen[-1]) == (expected is not None)


def test_the_seconds_that_are_left_are_those_of_this_machine(
    terminal: Terminal, clock: Clock, line: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_EDGE_STATE", str(tmp_path))
    rates = Rates({"bundle": "a"})
    for tokens in (500, 1000, 1500):
        rates.add_prefill(Work(5, tokens), 20.0, tokens / 50)
    line.expect(rates.stage)
    line("vision", 0, 5)
    clock.now += 5
    line.draw()
    assert terminal.line.endswith(" 25%  15 s left")
    line("vision", 5, 5)
    assert terminal.line.endswith("100%")
    line("prefill", 0, 2000)
    clock.now += 10
    line.draw()
    assert terminal.line.endswith(" 25%  30 s left")
    line("prefill", 512, 2000)
    assert terminal.line.startswith("prefill    [#######")
    assert terminal.line.endswith("s left")


def test_another_stage_starts_from_nothing(terminal: Terminal, clock: Clock, line: Status) -> None:
    line("vision", 0, 4)
    clock.now += 1
    line("vision", 2, 4)
    assert " 50%" in terminal.line
    line("vision", 2, 4)
    line("vision", 0, 4)  # of another page
    clock.now += 1
    line("vision", 1, 4)
    assert " 25%" in terminal.line
    line("prefill", 0, 100)
    clock.now += 1
    line("prefill", 10, 100)
    assert terminal.line.startswith("prefill    [###   ")


def test_a_line_that_was_cleared_comes_back_with_the_next_report(
    terminal: Terminal, clock: Clock, line: Status
) -> None:
    line("prefill", 0, 10)
    clock.now += 1
    line.draw()
    line.clear()
    assert terminal.line == ""
    before = terminal.getvalue()
    clock.now += 5
    line.draw()
    line.clear()
    assert terminal.getvalue() == before, "it does not come back by itself, into an answer"
    line("prefill", 0, 10)
    clock.now += 1
    line.draw()
    assert terminal.line.startswith("prefill")


def test_nothing_is_written_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)  # in the test's own phase
    clock = Clock()
    threads = threading.active_count()
    with Status(clock) as line:
        for amount in (0, 1, 4):
            line("vision", amount, 5)
            clock.now += 10
            line.draw()
        line.clear()
        assert threading.active_count() == threads
    assert stream.getvalue() == ""


def test_it_moves_by_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "TICK_SECONDS", 0.005)
    monkeypatch.setattr(Status, "PATIENCE", 0.0)
    end = time.monotonic() + 60
    with Status() as line:
        line.expect(lambda _stage, _total: 1.0)
        line("vision", 0, 5)
        while terminal.getvalue().count(CLEARED) < 20 and time.monotonic() < end:
            time.sleep(0.005)
    assert terminal.getvalue().count(CLEARED) >= 20
    assert terminal.line == ""


def test_without_a_thread_the_reports_move_it(
    terminal: Terminal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    with Status(clock) as line:
        line("prefill", 0, 10)
        clock.now += 1
        line("prefill", 5, 10)
        assert " 50%" in terminal.line


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "--max-new-tokens", "2"),
        ("ask", "--max-new-tokens", "2", "--json"),
        ("chat", "--max-new-tokens", "2"),
        ("panel",),
    ],
    ids=" ".join,
)
def test_commands_tell_of_every_view_and_leave_no_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    encode = OnnxRuntimeEngine.encode

    def slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return encode(*arguments, **options)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(OnnxRuntimeEngine, "encode", slowly)
    monkeypatch.setattr(Status, "PATIENCE", 0.0)
    monkeypatch.setattr(status, "TICK_SECONDS", 0.01)
    monkeypatch.setenv("PULSE_EDGE_STATE", "off")  # nothing is known of this machine
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is the rhythm?\n"))
    command, *options = words
    with pytest.raises(SystemExit) as end:
        main([command, str(SAMPLE_PAGE), "--threads", "1", *options])
    assert end.value.code == 0
    assert capsys.readouterr().out
    lines = [part.strip() for part in terminal.getvalue().split(CLEARED)]
    views = [line for line in lines if line.startswith("vision")]
    for share in ("20%", "40%", "60%", "80%"):
        assert any(share in line for line in views), share
    assert not any(line.endswith("] 0%") for line in views)
    assert any(line.startswith("prefill") for line in lines)
    assert not [line for line in terminal.line.splitlines() if "[#" in line], "the bar is cleared"
