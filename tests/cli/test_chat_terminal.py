"""`pulse-edge chat` on a terminal: nothing but the user ends it, and an answer can be stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.assets import EMBEDDED, SAMPLE_PAGE
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import MANIFEST, NOTICE
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cli import cli

from support.command import environment_with
from support.pseudo_terminal import CTRL_D, UP, PseudoTerminal, pseudo_terminal

PROMPT = "> "
END = "research use only]"
QUESTION = "What is the rhythm?"
ANSWER = "sinus rhythm"
pytest.importorskip("readline", reason="this Python has no line editing")


def ask(terminal: PseudoTerminal, question: str = QUESTION) -> str:
    terminal.type(f"{question}\r")
    said = terminal.until(END)
    terminal.until(PROMPT)
    return said


def test_nothing_but_the_user_ends_a_chat(tmp_path: Path) -> None:
    """Every mistake in one conversation, which then goes on where it was."""
    (tmp_path / "no page.png").write_text("hello")
    mistakes: dict[str | bytes, str] = {
        "\r": "",
        "   \r": "",
        b"What is \xff?\r": "its character 9 is byte 0xff",
        b"\xc0\xaf\r": "its character 1 is byte 0xc0",
        "/nothing\r": "no command /nothing; there are /help, /image",
        "/image\r": "/image needs the name of a file",
        "/reset now\r": "/reset takes nothing after it",
        f"/image {tmp_path}/none.png\r": "cannot be read",
        f"/image {tmp_path}/no page.png\r": "not an image",
        "/save\r": "/save needs the name of a file",
        f"/save {tmp_path}\r": "exists",
        f"/save {tmp_path}/none/x.txt\r": "cannot be written",
    }
    with pseudo_terminal("chat", SAMPLE_PAGE) as terminal:
        terminal.until(PROMPT)
        assert ANSWER in ask(terminal)
        terminal.interrupt(PROMPT)
        terminal.type("half a question")
        terminal.until("half a question")
        terminal.interrupt(PROMPT)
        for keys, message in mistakes.items():
            terminal.type(keys)
            shown = terminal.until(PROMPT)
            assert message in shown
            assert ("error: " in shown) == bool(message), shown
        terminal.type(f"/save {tmp_path}/kept.json\r")
        terminal.until("was saved")
        terminal.until(PROMPT)
        terminal.type("/quit\r")
        assert terminal.wait() == 0
    saved = json.loads((tmp_path / "kept.json").read_text())
    assert [turn["question"] for turn in saved["turns"]] == [QUESTION]
    assert "Traceback" not in terminal.shown


def test_a_full_context_is_said_and_a_reset_makes_room() -> None:
    with pseudo_terminal("chat", SAMPLE_PAGE, "--context", 766) as terminal:
        terminal.until(PROMPT)
        first = ask(terminal)
        terminal.type(f"{QUESTION}\r")
        assert "error: " in terminal.until("/reset begins anew")
        terminal.until(PROMPT)
        terminal.type("/reset\r")
        terminal.until("begins anew")
        terminal.until(PROMPT)
        again = ask(terminal)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert "The rhythm is" in first
    assert "The rhythm is" in again


# Stops after the first piece of an answer, until Ctrl-C or for ever.
HALTING = """
    import threading
    import pulse_edge.cli.answers as answers

    show = answers.show_text
    halts = [True]

    def show_piece(text, end="\\n", err=False):
        halt = end == "" and text.strip() and halts[0]
        if halt:  # before anything is shown: Ctrl-C may come as soon as it is
            halts[0] = False
        show(text, end, err)
        if halt:
            threading.Event().wait()

    answers.show_text = show_piece
"""


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_was_shown(tmp_path: Path) -> None:
    env = environment_with(tmp_path, HALTING)
    with pseudo_terminal("chat", SAMPLE_PAGE, env=env) as terminal:
        terminal.until(PROMPT)
        terminal.type(f"{QUESTION}\r")
        terminal.until("The")
        terminal.interrupt("[stopped]")
        terminal.until(PROMPT)
        ask(terminal, "What is the heart rate?")
        terminal.type(f"/save {tmp_path}/c.json\r")
        terminal.until("was saved")
        terminal.until(PROMPT)
        terminal.type(f"/save {tmp_path}/c.txt\r")
        terminal.until("was saved")
        terminal.until(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    first, second = json.loads((tmp_path / "c.json").read_text())["turns"]
    assert first["interrupted"]
    assert not second["interrupted"]
    said = first["text"]
    assert said.startswith("The")
    assert f"ASSISTANT: {said}</s>USER: What is the heart rate?" in second["provenance"]["prompt"]
    text = (tmp_path / "c.txt").read_text()
    assert text.startswith(NOTICE)
    assert f"> {QUESTION}\n{said} [stopped]\n" in text


def test_one_footer_an_answer_bars_that_clear_and_an_arrow_that_recalls(tmp_path: Path) -> None:
    """In memory: no file keeps what was asked."""
    (tmp_path / "home").mkdir()
    env = os.environ | {"HOME": str(tmp_path / "home")}
    with pseudo_terminal("chat", SAMPLE_PAGE, env=env) as terminal:
        terminal.until(PROMPT)
        ask(terminal)
        assert QUESTION in ask(terminal, UP)
        terminal.type("/he\t\r")
        terminal.until("/quit")
        terminal.until(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert list((tmp_path / "home").rglob("*")) == []
    assert terminal.shown.count(NOTICE) == 1
    assert terminal.shown.count(END) == 2
    # A bar is written over the line, and the line is emptied before anything else is on it.
    for bar in re.finditer(r"\[[# ]{30}\] +\d+%", terminal.raw):
        assert terminal.raw.startswith("\r\x1b[K", bar.end()), terminal.raw[bar.start() :]


def test_a_history_is_kept_where_the_user_asks(tmp_path: Path) -> None:
    history = tmp_path / "history"
    history.write_text("Is the axis normal?\n")
    with pseudo_terminal("chat", SAMPLE_PAGE, "--history", history) as terminal:
        terminal.until(PROMPT)
        terminal.type(UP)
        terminal.until("Is the axis normal?")
        terminal.interrupt(PROMPT)
        terminal.type("/quit\r")
        assert terminal.wait() == 0
    assert history.read_text().splitlines() == ["Is the axis normal?", "/quit"]


@pytest.mark.parametrize(("turns", "warns"), [("first", True), ("several", False), (None, False)])
def test_a_model_of_first_turns_only_is_told(
    turns: str | None, warns: bool, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in EMBEDDED.iterdir():
        if file.name != MANIFEST and file.is_file():
            shutil.copyfile(file, bundle / file.name)  # a link needs an owner
    manifest = replace(open_bundle(EMBEDDED).manifest, turns=turns).sealed()
    (bundle / MANIFEST).write_bytes(dumps(manifest))
    words = ["chat", str(SAMPLE_PAGE), "-m", str(bundle)]
    done = CliRunner().invoke(cli, words, input="", catch_exceptions=False)
    assert done.exit_code == 0
    assert ("trained on first questions only" in done.stderr) == warns
    said = dict(describe_bundle(open_bundle(bundle))).get("trained on", "")
    assert ("first questions only" in said) == warns
