"""The accuracy gate as a command, on the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.assets import EMBEDDED
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import BundleError
from pulse_edge.evaluate.run import evaluate_bundles
from pulse_edge.evaluate.task import Ask

from support.command import SECONDS, ended, environment_with, started
from support.paths import PROGRAM


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in (PROGRAM, *arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_eval_scores_a_bundle(workers: str) -> None:
    """A handful of pages; the trained model must be far from chance (one in seven) on
    the rhythm.
    """
    done = run("eval", "--pages", "12", "--workers", workers, "--json")
    report = json.loads(done.stdout)
    assert report["pages"] == 12
    (scores,) = report["scores"].values()
    assert scores["rhythm, macro recall"]["value"] > 0.5
    assert 0 <= scores["mean of the tasks"]["value"] <= 1
    (counts,) = report["confusion"].values()
    assert np.sum(counts["rhythm"]) == 12


def test_eval_refuses_two_bundles_of_one_name(tmp_path: Path) -> None:
    done = run("eval", str(EMBEDDED), str(tmp_path / EMBEDDED.name))
    assert done.returncode == 2
    assert "different names" in done.stderr


# -- ends


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes that a command has started, of which `eval` has its workers and their tracker."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def evaluation(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A long `eval` whose two workers have started."""
    if not Path("/proc/self/task").exists():
        pytest.skip("the system does not list a process's children")
    process = started(
        *("eval", "--pages", "1000", "--workers", "2"), env=environment_with(tmp_path, "")
    )
    deadline = time.monotonic() + SECONDS
    workers: list[int] = []
    while len(workers) < 2 and process.poll() is None and time.monotonic() < deadline:
        workers = [pid for pid in workers_of(process) if is_worker(pid)]
        time.sleep(0.01)
    yield process, workers
    process.kill()
    process.communicate()


def end_soon(pids: list[int]) -> bool:
    deadline = time.monotonic() + SECONDS
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(running, pids))


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("SIGINT", 130, "interrupted\n"),
        ("SIGTERM", 143, "terminated\n"),
        ("SIGHUP", 129, "hung up\n"),
        ("SIGKILL", -9, ""),
    ],
)
def test_the_workers_end_with_the_command(
    evaluation: tuple[subprocess.Popen[str], list[int]], name: str, code: int, word: str
) -> None:
    """Also where nobody can tell them that it was killed."""
    process, workers = evaluation
    assert len(workers) == 2
    result, err = ended(process, getattr(signal, name))
    assert result == code
    assert err == word or name == "SIGKILL"  # Python's own tracker has words for that
    assert end_soon(workers)


def test_ctrl_c_of_a_terminal_reaches_all_processes_and_is_one_line(
    evaluation: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, workers = evaluation
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert end_soon(workers)


def test_a_worker_that_is_killed_ends_the_command(
    evaluation: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, workers = evaluation
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (6, "")
    assert err.startswith("error: a worker process was killed")
    assert err.count("\n") == 1
    assert end_soon(workers)


class Asking:
    """A task of four questions, whose score is the answers."""

    name = "asking"
    max_new_tokens = 2

    def cases(self) -> list[int]:
        return [0, 1, 2, 3]

    def ask(self, case: int, models: list[Ask]) -> list[str]:
        return [model(None, "What is the rate?") for model in models]

    def score(self, replies: Iterator[list[str]]) -> list[list[str]]:
        return [list(answers) for answers in zip(*replies, strict=True)]


def test_a_bundle_that_went_away_meanwhile_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was there when the command looked, and is not when a worker does."""
    task: Any = Asking()
    path = str(tmp_path / "gone")
    with pytest.raises(BundleError, match=r"no bundle at .*gone"):
        evaluate_bundles(task, [path], 1, EngineOptions(), lambda *_: None)
    assert capfd.readouterr().err == ""
