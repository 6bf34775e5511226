"""With --json an error is JSON as well: one line on stderr, nothing on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import main
from pulse_edge.cli.failure import show_failure, wants_json

from support.command import command, environment_with, shell


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ask page.png --json", True),
        ("--json", True),
        ("verify --json bundle", True),
        ("bench -o json", True),
        ("bench -ojson", True),
        ("bench --output json", True),
        ("bench --output=json", True),
        ("bench -o jsonl x", True),
        ("", False),
        ("ask page.png", False),
        ("ask json", False),
        ("bench -o csv json", False),
        ("bench --output=csv", False),
        ("bench json -o", False),
        ("ask -- --json", False),
        ("ask --jsonx", False),
        ("ask --js", False),
    ],
)
def test_json_is_wanted_where_an_option_asks_for_it(words: str, wanted: bool) -> None:
    assert wants_json(words.split()) is wanted


@pytest.mark.parametrize("message", ["plain", "two\nlines", 'a "quote"', "\x1b[2J\u202e", "é心"])
def test_any_message_is_one_line_of_json(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(message, 4, "BundleError", as_json=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.strip().isascii()
    error = json.loads(captured.err)["error"]
    assert (error["code"], error["type"]) == (4, "BundleError")
    assert error["message"].isprintable()


# Command line -> exit code, type of the error, and a part of its message.
MISTAKES: dict[str, tuple[int, str, str]] = {
    "ask {none} --json": (3, "ImageError", "cannot be read"),
    "ask {text} --json": (3, "ImageError", "not an image"),
    "ask {page} -m {none} --json": (4, "BundleError", "no bundle at"),
    "ask {page} --json --device gpu": (2, "UnknownDeviceError", "'gpu' is not one of auto"),
    "ask {page} --json --top-p 3": (2, "ParameterError", "top_p is 3.0"),
    "ask {page} --json --context 100": (5, "ContextError", "the context 100"),
    "ask {page} --json --nope": (2, "CommandLineError", "see pulse-edge ask --help"),
    "ask --json": (2, "CommandLineError", "Missing argument"),
    "info {none} --json": (4, "BundleError", "no bundle at"),
    "verify {none} --json": (4, "BundleError", "no bundle at"),
    "panel {none} --json": (3, "ImageError", "cannot be read"),
    "fit --device none --json": (2, "ParameterError", "'none' is not one of"),
    "eval {none} --json": (4, "BundleError", "no bundle at"),
    "bench {none} --json": (4, "BundleError", "no bundle at"),
    "bench {none} -o json": (4, "BundleError", "no bundle at"),
    "export {none} {none}2 --json": (7, "CheckpointError", "no checkpoint at"),
    "nope --json": (2, "CommandLineError", "No such command"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_with_json(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("hello")
    places = {"none": tmp_path / "none", "text": tmp_path / "text.png", "page": SAMPLE_PAGE}
    with pytest.raises(SystemExit) as ended:
        main([word.format(**places) for word in line.split()])
    captured = capsys.readouterr()
    code, kind, message = MISTAKES[line]
    assert (ended.value.code, captured.out) == (code, ""), captured.err
    assert captured.err.count("\n") == 1, captured.err
    error = json.loads(captured.err)["error"]
    assert (error["code"], error["type"]) == (code, kind)
    assert message in error["message"]


def test_a_full_or_closed_stdout_with_json() -> None:
    for line in ('"$@" >&-', '"$@" >/dev/full'):
        if "full" in line and not Path("/dev/full").exists():
            continue
        done = shell(line, "info", "--json")
        error = json.loads(done.stderr)["error"]
        assert (done.returncode, error["code"], error["type"]) == (11, 11, "OutputError")
        assert done.stderr.count("\n") == 1


def test_a_mistake_of_ours_with_json_ends_with_json(tmp_path: Path) -> None:
    script = """
        import pulse_edge.cli.info as info

        def broken(*_, **__):
            raise ZeroDivisionError("ours")

        info.open_bundle = broken
    """
    env = environment_with(tmp_path, script)
    done = command("info", "--json", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["type"]) == (1, "ZeroDivisionError")
    assert "Traceback" in done.stderr  # nobody can report it otherwise
    plain = command("info", env=env)
    assert plain.stderr.splitlines()[-1] == "ZeroDivisionError: ours"


@pytest.mark.parametrize(("form", "wanted"), [("json", True), ("text", False)])
def test_a_child_of_a_command_shows_errors_as_its_parent_does(
    form: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_PULSE_EDGE_ERRORS", form)
    assert wants_json(["bench", "--json"]) is wanted
    assert wants_json(["bench"]) is wanted
