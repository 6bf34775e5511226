"""Standard streams that are closed, full, or left by their reader."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.command import SECONDS, command, shell
from support.paths import PROGRAM, ROOT

PAGE = ROOT / "pulse_edge" / "assets" / "sample.png"
BUNDLE = PAGE.parent / "pulse-nano"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full")

# One command line of each kind of output.
COMMANDS: dict[str, tuple[object, ...]] = {
    "help": ("--help",),
    "help of a command": ("ask", "--help"),
    "version": ("--version",),
    "info": ("info",),
    "info as JSON": ("info", "--json"),
    "verify": ("verify", BUNDLE),
    "verify as JSON": ("verify", BUNDLE, "--json"),
    "ask": ("ask", PAGE, "--max-new-tokens", 3),
    "ask at once": ("ask", PAGE, "--max-new-tokens", 3, "--no-stream"),
    "ask as JSON": ("ask", PAGE, "--max-new-tokens", 3, "--json"),
    "fit": ("fit", "--device", "t4"),
    "devices": ("fit", "--list"),
}


def refused(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert done.returncode == 11, done.stderr
    assert done.stdout == ""
    message = f"standard output cannot be written to ({why}); write to another place"
    if "--json" in done.args:
        error = {"code": 11, "type": "OutputError", "message": message}
        assert json.loads(done.stderr) == {"error": error}
    else:
        assert done.stderr == f"error: {message}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_stdout_is_said(name: str) -> None:
    refused(shell('"$@" >&-', *COMMANDS[name]), "Bad file descriptor")


@needs_full
@pytest.mark.parametrize("name", ["help", "version", "info as JSON", "ask", "ask at once"])
def test_a_full_disk_behind_stdout_is_said(name: str) -> None:
    refused(shell('"$@" >/dev/full', *COMMANDS[name]), "No space left on device")


@pytest.mark.parametrize("name", ["help", "version", "info", "info as JSON", "ask", "ask as JSON"])
def test_a_reader_that_has_left_is_not_worth_a_line(name: str) -> None:
    """The code is SIGPIPE's, as of programs that do not handle it."""
    read, write = os.pipe()
    os.close(read)
    done = command(*COMMANDS[name], capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("name", ["help", "info", "ask"])
def test_a_closed_stderr_loses_nothing_else(name: str) -> None:
    whole = command(*COMMANDS[name])
    done = shell('"$@" 2>&-', *COMMANDS[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == whole.stdout.splitlines()[0]
    assert shell('"$@" 2>&-', "info", "none").returncode == 4


@needs_full
def test_a_full_disk_behind_stderr_changes_no_code() -> None:
    assert shell('"$@" 2>/dev/full', "info", "none").returncode == 4
    assert shell('"$@" 2>/dev/full', "info").returncode == 0


def test_all_three_closed() -> None:
    assert shell('"$@" <&- >&- 2>&-', "info").returncode == 11
    assert shell('"$@" <&- >&- 2>&-', "info", "none").returncode == 4


def test_a_closed_stdin_is_at_its_end() -> None:
    done = shell('"$@" <&-', "chat", PAGE)
    assert (done.returncode, done.stdout) == (0, "")
    answer = shell('"$@" <&-', *COMMANDS["ask as JSON"])
    assert json.loads(answer.stdout)["usage"]["new_tokens"] == 3


def test_what_libraries_print_goes_into_no_file_that_took_the_streams_number(
    checkpoint: Path, tmp_path: Path
) -> None:
    """An export with all streams closed makes the same bundle."""
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    assert shell('"$@" <&- >&- 2>&-', "export", checkpoint, tmp_path / "out").returncode == 11
    assert command("verify", tmp_path / "out").returncode == 0
    assert command("export", checkpoint, tmp_path / "other").returncode == 0
    seals = [command("info", tmp_path / n).stdout.splitlines()[1] for n in ("out", "other")]
    assert seals[0] == seals[1]


def test_a_chat_whose_stdout_is_left_ends() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [str(PROGRAM), "chat", str(PAGE), "--max-new-tokens", "3"],
        input="What is the rate?\n" * 3, stdout=write, stderr=subprocess.PIPE, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
