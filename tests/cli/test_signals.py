"""Ctrl-C, SIGTERM and SIGHUP, at every stage of every command: one line, and the signal's code."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.command import SECONDS, command, environment_with, started
from support.fixture_types import Bundles
from support.paths import PROGRAM, ROOT

PAGE = ROOT / "pulse_edge" / "assets" / "sample.png"
ENDS = {"SIGINT": (130, "interrupted"), "SIGTERM": (143, "terminated"), "SIGHUP": (129, "hung up")}

# Sends a signal when a module is about to be imported.
AT_IMPORT = """
    import os, sys

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == {module!r}:
                {before}
                os.kill(os.getpid(), signal.{signal})

    sys.meta_path.insert(0, Finder())
"""
# Sends a signal when a function is called for the n-th time.
AT_CALL = """
    import os
    import {module} as module

    owner = module{owner}
    original = owner.{function}
    calls = []

    def call(*args, **options):
        calls.append(1)
        if len(calls) == {count}:
            os.kill(os.getpid(), signal.{signal})
        return original(*args, **options)

    owner.{function} = call
"""


def at_import(folder: Path, module: str, name: str, before: str = "pass") -> dict[str, str]:
    return environment_with(folder, AT_IMPORT.format(module=module, signal=name, before=before))


def at_call(
    folder: Path, module: str, owner: str, function: str, name: str, count: int = 1
) -> dict[str, str]:
    values = {"module": module, "owner": owner, "function": function, "count": count}
    return environment_with(folder, AT_CALL.format(signal=name, **values))


def ends(name: str, done: subprocess.CompletedProcess[str]) -> None:
    code, word = ENDS[name]
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (code, [word]), done.stderr
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("SIGINT", "pulse_edge.cli.process"),
        ("SIGINT", "pulse_edge.cli.registry"),
        ("SIGINT", "click"),
        ("SIGTERM", "click"),
        ("SIGHUP", "click"),
        ("SIGINT", "numpy"),
        ("SIGINT", "pulse_edge.model"),
        ("SIGTERM", "pulse_edge.model"),
        ("SIGHUP", "onnxruntime"),
        ("SIGINT", "onnxruntime"),
    ],
)
def test_while_modules_are_imported(name: str, module: str, tmp_path: Path) -> None:
    done = command("ask", PAGE, env=at_import(tmp_path, module, name))
    ends(name, done)
    assert done.stdout == ""
    assert done.stderr == f"{ENDS[name][1]}\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("module", "owner", "function", "count"),
    [
        ("pulse_edge.decode.sequence", ".Sequence", "prefill", 1),
        ("pulse_edge.decode.loop", ".Verifier", "after", 3),
    ],
)
def test_while_a_question_is_answered(
    name: str, module: str, owner: str, function: str, count: int, tmp_path: Path
) -> None:
    env = at_call(tmp_path, module, owner, function, name, count)
    ends(name, command("ask", PAGE, "--no-stream", env=env))


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("verify", PAGE.parent / "pulse-nano"),
        ("eval", "--pages", "2"),
        ("bench", "--quick"),
        ("ask", PAGE),
        ("chat", PAGE),
    ],
)
def test_in_every_command_that_works_on_a_bundle(words: tuple[object, ...], tmp_path: Path) -> None:
    env = at_call(tmp_path, "pulse_edge.cli.status", ".Status", "__enter__", "SIGTERM")
    ends("SIGTERM", command(*words, env=env))


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (("draw", PAGE, "page.png"), "pulse_edge.ecg.drawing"),
        (("fit", "--list"), "pulse_edge.measure.forecast"),
        (("export", "checkpoint", "out"), "pulse_export.console"),
    ],
)
def test_in_the_other_commands(words: tuple[object, ...], module: str, tmp_path: Path) -> None:
    ends("SIGTERM", command(*words, env=at_import(tmp_path, module, "SIGTERM"), cwd=tmp_path))


def test_in_a_build(bundles: Bundles, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    bundle = bundles("int4", 32, target="standard")
    env = at_import(tmp_path, "pulse_export.plan.builder", "SIGTERM")
    ends("SIGTERM", command("build", bundle, env=env))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("SIGINT", "write_embeddings"),
        ("SIGHUP", "write_embeddings"),
        ("SIGTERM", "sha256_file"),
        ("SIGTERM", "publish_bundle"),
    ],
)
def test_an_export_leaves_nothing(
    name: str, function: str, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    (tmp_path / "home").mkdir()
    env = at_call(tmp_path, "pulse_export.pipeline", "", function, name)
    ends(name, command("export", checkpoint, tmp_path / "home" / "out", env=env))
    assert os.listdir(tmp_path / "home") == []


def test_a_second_signal_does_not_stop_the_clearing_away(checkpoint: Path, tmp_path: Path) -> None:
    """Two quick Ctrl-C, and a SIGTERM while the staging directory is removed."""
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    (tmp_path / "home").mkdir()
    script = """
        import os, shutil
        from pulse_export import pipeline

        remove = shutil.rmtree

        def slow_remove(*args, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            return remove(*args, **options)

        def twice(*args, **options):
            shutil.rmtree = slow_remove
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        pipeline.write_embeddings = twice
    """
    env = environment_with(tmp_path, script)
    done = command("export", checkpoint, tmp_path / "home" / "out", env=env)
    ends("SIGINT", done)
    assert done.stderr == "interrupted\n"
    assert os.listdir(tmp_path / "home") == []


def test_a_later_signal_ends_a_process_that_hangs(tmp_path: Path) -> None:
    """The first one is obeyed, but what it started to clear away never ends."""
    script = """
        import os, threading
        from pulse_edge.cli import signals
        from pulse_edge.cli.status import Status

        signals.GRACE = 0.0

        def hang(*_):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGHUP)
                threading.Event().wait()

        Status.__enter__ = hang
    """
    ends("SIGTERM", command("info", env=environment_with(tmp_path, script)))


def test_an_interrupt_that_python_drops_is_not_lost(tmp_path: Path) -> None:
    """One that comes in a finalizer, in which no exception leaves the function."""
    finalizer = "type('Late', (), {'__del__': lambda _: os.kill(os.getpid(), signal.SIGINT)})()"
    script = f"""
        import os
        from pulse_edge.cli import status

        def wait(*_):
            {finalizer}
            signal.sigtimedwait([], {SECONDS})
            raise AssertionError("the interrupt was lost")

        status.Status.__enter__ = wait
    """
    done = command("info", env=environment_with(tmp_path, script))
    ends("SIGINT", done)
    assert done.stderr == "interrupted\n"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` has SIGHUP, and a shell's background jobs SIGINT."""
    env = at_call(tmp_path, "pulse_edge.cli.status", ".Status", "__enter__", "SIGHUP")
    done = subprocess.run(
        ["bash", "-c", 'trap "" HUP; exec "$0" info', str(PROGRAM)],
        env=env, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_in_a_chat_stops_the_answer_and_the_next_one_ends_the_chat(tmp_path: Path) -> None:
    """While an answer is written, and again later, as often as somebody likes; then at a prompt."""
    script = """
        import os
        import pulse_edge.cli.answers as answers

        show, left = answers.show_text, [1, 1]

        def show_piece(text, end="\\n", err=False):
            show(text, end, err)
            if end == "" and left:
                left.pop()
                os.kill(os.getpid(), signal.SIGINT)

        answers.show_text = show_piece
    """
    env = environment_with(tmp_path, script)
    process = started("chat", PAGE, "--max-new-tokens", 200, env=env)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("What is the rhythm?\n" * 3)
    process.stdin.flush()
    lines: list[str] = []
    while not (lines and lines[-1].startswith("Research")):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    assert sum("[stopped]" in line for line in lines) == 2
    assert process.stderr is not None
    process.stdin.write("\n")
    process.stdin.flush()
    while "the question is empty" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # no answer is written any more
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
