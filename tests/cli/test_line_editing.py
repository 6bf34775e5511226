"""Line editing: what Tab completes, and where a history may be."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from pulse_edge.cli.line_editing import line_editing
from pulse_edge.errors import PulseEdgeError

COMMANDS = ("/help", "/image", "/reset", "/save", "/quit")
readline = pytest.importorskip("readline", reason="this Python has no line editing")


@pytest.mark.parametrize(
    ("line", "word", "completions"),
    [
        ("/", "/", [f"{name} " for name in COMMANDS]),
        ("/i", "/i", ["/image "]),
        ("  /re", "/re", ["/reset "]),
        ("/x", "/x", []),
        ("", "", []),
        ("What", "What", []),
        ("What is pag", "pag", []),  # a question is no file
        ("/image {}/pa", "{}/pa", ["{}/page.png", "{}/pages/"]),
        ("/save {}/page", "{}/page", ["{}/page.png", "{}/pages/"]),
        ("/image {}/[", "{}/[", ["{}/[a].png"]),
        ("/image {}/none", "{}/none", []),
    ],
)
def test_tab_completes_commands_and_their_files(
    line: str, word: str, completions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("page.png", "[a].png", "other.png"):
        (tmp_path / name).touch()
    (tmp_path / "pages").mkdir()
    with line_editing(COMMANDS, None):
        complete = readline.get_completer()
        monkeypatch.setattr(readline, "get_line_buffer", lambda: line.format(tmp_path))
        found = [complete(word.format(tmp_path), n) for n in range(len(completions) + 1)]
    assert found == [*(text.format(tmp_path) for text in completions), None]


def test_a_history_is_for_its_owner_alone_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history"
    for question in ("first?", "second?"):
        with line_editing(COMMANDS, str(path)):
            readline.add_history(question)
    assert path.read_text().splitlines() == ["first?", "second?"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with line_editing(COMMANDS, None):  # a later chat in this process sees nothing of it
        assert readline.get_current_history_length() == 0


def test_a_history_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with line_editing(COMMANDS, str(path)):
        for number in range(1010):
            readline.add_history(f"question {number}")
    lines = path.read_text().splitlines()
    assert (len(lines), lines[-1]) == (1000, "question 1009")


@pytest.mark.parametrize("name", [".", "none/history"])
def test_a_history_that_cannot_be_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(PulseEdgeError, match="cannot keep a history"),
        line_editing(COMMANDS, str(tmp_path / name)),
    ):
        raise AssertionError("the chat began")


def test_without_readline_lines_are_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "readline", None)
    with line_editing(COMMANDS, None):
        pass
    with (
        pytest.raises(PulseEdgeError, match="leave out --history"),
        line_editing(COMMANDS, str(tmp_path / "history")),
    ):
        raise AssertionError("the chat began")
    assert list(tmp_path.iterdir()) == []
