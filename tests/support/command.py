"""The command in a process of its own, and hooks that stop it at a stage."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from support.paths import PROGRAM

SECONDS = 60  # that a command may take on a busy machine


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run `pulse-edge` to its end."""
    words = [str(a) for a in (PROGRAM, *arguments)]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": SECONDS}
    return subprocess.run(words, check=False, **settings | options)


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which "$@" is `pulse-edge` with these arguments."""
    words = ["bash", "-c", line, "bash", PROGRAM, *arguments]
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def environment_with(folder: Path, script: str) -> dict[str, str]:
    """Variables of a process that runs a script before anything else.

    SIGINT is as a terminal's processes have it: a shell's background jobs, and their children, have
    it ignored.
    """
    listen = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    (folder / "sitecustomize.py").write_text(listen + textwrap.dedent(script))
    return os.environ | {"PYTHONPATH": str(folder)}


def started(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `pulse-edge` with pipes, in a process group of its own."""
    return subprocess.Popen(
        [str(a) for a in (PROGRAM, *arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        process_group=0,
    )


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal. Returns the exit code and what stderr held."""
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    return process.returncode, err
