"""The log: silent by default, by `logging` for programs, by --log on a terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli import cli
from pulse_edge.log import LOGGER, NAME

from support.process import run

QUESTION = "Is anything said about this question?"


@pytest.fixture
def restored() -> Iterator[None]:
    handlers, level = LOGGER.handlers[:], LOGGER.level
    yield
    LOGGER.handlers = handlers
    LOGGER.setLevel(level)


def test_a_program_hears_nothing_that_it_did_not_ask_for(bundle: Path) -> None:
    done = run(
        """
        import sys, pulse_edge
        from pulse_edge.log import LOGGER
        LOGGER.warning("a fallback")
        pulse_edge.load(sys.argv[1], threads=1).ask(None, "Why?", max_new_tokens=1)
        """,
        bundle,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_hears_of_a_load_by_logging(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, NAME):
        model = pulse_edge.load(bundle, threads=1)
        model.ask(None, QUESTION, max_new_tokens=1)
    lines = [record.getMessage() for record in caplog.records]
    assert "engine onnxruntime on cpu for a bundle for cpu" in lines
    assert any(
        line.startswith(f"loaded {bundle} (seal {model.bundle.digest}) in") for line in lines
    )
    assert not any(QUESTION in line for line in lines)


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", True), ("info", True), ("warning", False), (None, False)]
)
def test_the_command_shows_it_where_asked(
    level: str | None, shown: bool, bundle: Path, restored: None
) -> None:
    chosen = [] if level is None else ["--log", level]
    words = ["ask", str(SAMPLE_PAGE), "-m", str(bundle), "--max-new-tokens", "1"]
    done = CliRunner().invoke(cli, [*chosen, *words, "-q", QUESTION], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stderr.startswith("info: engine onnxruntime on cpu") == shown
    assert bool(done.stderr) == shown
    assert QUESTION not in done.stderr


def test_what_is_shown_cannot_steer_a_terminal(restored: None) -> None:
    words = ["--log", "info", "info", "none"]
    CliRunner().invoke(cli, words)
    with CliRunner().isolation() as streams:
        LOGGER.info("%s", "\x1b[2J\nforged")
        shown = streams[1].getvalue()
    assert shown == b"info: \\x1b[2J\\nforged\n"
