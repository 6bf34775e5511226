"""Questions of `pulse-edge chat` that are none: said in one line, and asked again."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from pulse_edge.cli.questions import LONGEST, read_question
from pulse_edge.errors import ParameterError

from support.command import command
from support.paths import ROOT

PAGE = ROOT / "pulse_edge" / "assets" / "sample.png"
GOOD = b"What is the rhythm?\n"

# Kind of line -> the line, and what is said about it.
LINES = {
    "nothing": (b"\n", "the question is empty"),
    "spaces": (b"   \n", "the question is empty"),
    "tabs": (b"\t\t \n", "the question is empty"),
    "a carriage return": (b"\r\n", "the question is empty"),
    "wide spaces": ("\u3000\u00a0\n".encode(), "the question is empty"),
    "form feed": (b"\f\n", "the question is empty"),
    "byte 255": (b"What is \xff?\n", "its character 9 is byte 0xff"),
    "Latin-1": ("fr\u00e9quence?\n".encode("latin-1"), "its character 3 is byte 0xe9"),
    "UTF-16": ("rate?\n".encode("utf-16"), "its character 1 is byte 0xff"),
    "half a character": ("\u5fc3".encode()[:2] + b"\n", "its character 1 is byte 0xe5"),
    "overlong": (b"\xc0\xaf\n", "its character 1 is byte 0xc0"),
    "a surrogate": (b"\xed\xa0\x80\n", "its character 1 is byte 0xed"),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_that_is_no_question_is_said(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line, message = LINES[kind]
    raw = io.TextIOWrapper(io.BytesIO(line + GOOD), "utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", raw)
    with pytest.raises(ParameterError, match=re.escape(message)):
        read_question()
    question = read_question()
    assert question is not None
    assert question.lstrip("\0") == "What is the rhythm?"  # UTF-16 ends a line with a NUL more


@pytest.mark.parametrize("extra", [1, 2, 3, LONGEST, LONGEST + 1, 2 * LONGEST])
def test_a_line_without_end_takes_no_memory(extra: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * (LONGEST + extra) + "\n" + GOOD.decode()
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with pytest.raises(ParameterError, match="over 1,048,576 characters"):
        read_question()
    assert read_question() == "What is the rhythm?"
    assert read_question() is None


def test_a_last_line_may_lack_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("  What is the rhythm? "))
    assert read_question() == "What is the rhythm?"
    assert read_question() is None


def test_a_chat_goes_on_after_every_kind_of_line() -> None:
    """The answers are those of the chat without these lines."""
    bad = [line for kind, (line, _) in LINES.items() if kind != "UTF-16"]
    bad.append(b"rhythm " * 3000 + b"\n")
    bad.append(b"x" * (LONGEST + 1) + b"\n")
    lines = [GOOD, *bad, b"What is the heart rate?\n"]
    words = ("chat", PAGE, "--max-new-tokens", 8)
    done = command(*words, input=b"".join(lines), text=False)
    plain = command(*words, input=lines[0] + lines[-1], text=False)
    lines_of_stderr = done.stderr.decode().splitlines()[1:]
    errors = [line for line in lines_of_stderr if not line.startswith("note: ")]
    assert (done.returncode, plain.returncode) == (0, 0)
    assert len(errors) == len(bad)
    assert all(line.startswith("error: ") for line in errors)
    assert "context" in errors[-2]

    def answers(text: bytes) -> list[str]:
        return [
            x for x in text.decode().splitlines() if not x.startswith(("[", "Research", "page:"))
        ]

    assert answers(done.stdout) == answers(plain.stdout)
    assert len(answers(done.stdout)) == 2


@pytest.mark.parametrize("text", ["", "\n", "What is the rhythm?", "What is the rhythm?\n\n"])
def test_the_end_of_the_input_ends_a_chat_well(text: str) -> None:
    assert command("chat", PAGE, "--max-new-tokens", 3, input=text).returncode == 0


def test_what_is_wrong_from_the_start_ends_a_chat(tmp_path: Path) -> None:
    done = command("chat", tmp_path / "none.png", input=GOOD.decode())
    assert (done.returncode, done.stdout) == (3, "")
    done = command("chat", PAGE, "--max-new-tokens", 0, input=GOOD.decode())
    assert (done.returncode, done.stdout) == (2, "")
