"""One table of exit codes: of the errors, of --help and of the documents."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from pulse_edge.cli.shortage import EXIT_CODE
from pulse_edge.cli.signals import FIRST, WORDS
from pulse_edge.errors import EXIT_CODES, PulseEdgeError

from support.command import command
from support.paths import DOCS, ROOT


def family(error: type[PulseEdgeError]) -> Iterator[type[PulseEdgeError]]:
    yield error
    for heir in error.__subclasses__():
        yield from family(heir)


def test_every_error_has_a_code_of_the_table() -> None:
    of_signals = {FIRST + getattr(signal, name) for name in WORDS}
    of_errors = {error.exit_code for error in family(PulseEdgeError)}
    assert of_errors | of_signals | {0, EXIT_CODE} == set(EXIT_CODES)


def test_the_documents_have_the_table() -> None:
    page = (DOCS / "exit-codes.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES
    assert "docs/exit-codes.md" in (ROOT / "README.md").read_text("utf-8")


def test_help_has_the_table() -> None:
    text = " ".join(command("--help").stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text


def test_an_unknown_option_is_one_line_with_the_next_step() -> None:
    done = command("ask", "page.png", "--nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: No such option.*--nope.*; see pulse-edge ask --help\n", done.stderr
    )
    done = command("nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: No such command.*; see pulse-edge --help\n", done.stderr)
