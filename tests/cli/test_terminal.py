"""What is printed cannot steer a terminal, wherever it comes from."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cli import cli
from pulse_edge.cli.terminal import one_line, printable, show, show_error, show_json, show_text
from pulse_edge.text.detokenizer import TextStream

from support.command import command
from support.paths import ROOT

# Character -> how it is shown. Each kind of character that steers a terminal or hides.
STEERING = {
    "\x00": r"\x00",
    "\a": r"\x07",
    "\b": r"\x08",
    "\v": r"\x0b",
    "\r": r"\r",
    "\x0e": r"\x0e",
    "\x1b": r"\x1b",
    "\x7f": r"\x7f",
    "\x85": r"\x85",
    "\x9b": r"\x9b",
    "\xad": r"\xad",
    "\u061c": r"\u061c",
    "\u200b": r"\u200b",
    "\u200f": r"\u200f",
    "\u2028": r"\u2028",
    "\u2029": r"\u2029",
    "\u202e": r"\u202e",
    "\u2066": r"\u2066",
    "\u2069": r"\u2069",
    "\ufeff": r"\ufeff",
    "\ue000": r"\ue000",
    "\udcff": r"\udcff",
    "\U000e0041": r"\U000e0041",
}
HOSTILE = "".join(c for c in STEERING if c not in "\0\udcff")  # what a file's name may hold
PLAIN = "ECG 75 bpm, Ä é 心电图 ♥ QTc\u00a0410\u202fms\u3000ok"


@pytest.mark.parametrize("character", STEERING)
def test_a_character_that_steers_is_shown_as_an_escape(character: str) -> None:
    shown = STEERING[character]
    assert printable(f"a{character}[2Jb") == f"a{shown}[2Jb"
    assert printable(character, keep="\n\t") == shown
    assert one_line(f"x{character}y").isprintable()


def test_what_people_read_is_left_alone() -> None:
    assert printable(PLAIN) == PLAIN
    assert printable("a\n\tb") == r"a\n\tb"
    assert printable("a\n\tb", keep="\n\t") == "a\n\tb"
    assert one_line("one\n  two\r\nthree\n") == "one two three"


def test_a_sequence_cannot_be_split_over_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    for piece in ("\x1b", "[", "2", "J", "\ud83d", "\ude00"):
        show_text(piece, end="")
    assert capsys.readouterr().out == r"\x1b[2J\ud83d\ude00"


def test_every_way_to_print_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    show(f"a{HOSTILE}\nb")
    show(f"a{HOSTILE}\nb", dim=True)
    show_text(HOSTILE)
    show_json({HOSTILE: HOSTILE})
    show(HOSTILE, err=True)
    show_text(HOSTILE, err=True)
    show_error(f"a\n{HOSTILE}")
    captured = capsys.readouterr()
    for text in captured:
        assert text.replace("\n", "").isprintable(), ascii(text)
    assert captured.out.count("\n") == 4
    assert json.loads(captured.out.splitlines()[3]) == {HOSTILE: HOSTILE}


def test_a_stream_that_takes_nothing_on_stderr_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    show_error("lost")


def clean(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.fixture(scope="module")
def hostile(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose folder and manifest hold all of it, with a seal that is right."""
    home = tmp_path_factory.mktemp("hostile")
    path = Path(shutil.copytree(bundle, home / f"b{HOSTILE}\n"))
    manifest = open_bundle(path).manifest
    checkpoint = replace(manifest.checkpoint, name=f"n{HOSTILE}\nseal forged")
    (path / MANIFEST).write_bytes(dumps(replace(manifest, checkpoint=checkpoint).sealed()))
    return path


@pytest.mark.parametrize(
    "words",
    [
        "info {bundle}",
        "info {bundle} --json",
        "info {none}",
        "verify {bundle}",
        "verify {bundle} --json",
        "verify {bundle} --against {none}",
        "ask {page} -m {bundle} --max-new-tokens 2",
        "ask {page} -m {bundle} --max-new-tokens 2 --no-stream",
        "ask {page} -m {bundle} --max-new-tokens 2 --json",
        "ask {none} -m {bundle}",
        "ask {page} -m {none}",
        "ask {page} --engine {none}",
        "chat {none} -m {bundle}",
        "draw {none} {none}.png",
        "draw {page} {none}",
        "export {none} {none}",
        "build {bundle}",
        "build {none}",
        "fit --model {bundle} --device t4",
        "fit --model {none}",
        "fit --device {none}",
        "eval {none}",
        "bench {none}",
        "bench --compare {none}",
        "bench --prompt-lengths {none}",
        "sign {none} --key {none}",
        "audit verify {none}",
        "{none}",
        "info --{none}",
        "ask {page} --top-k {none}",
    ],
)
def test_every_command_escapes_names(words: str, hostile: Path, tmp_path: Path) -> None:
    """Names of files, fields of manifests, and what was typed."""
    page = ROOT / "pulse_edge" / "assets" / "sample.png"
    values = {"bundle": str(hostile), "page": str(page), "none": str(tmp_path / f"x{HOSTILE}\n")}
    arguments = [word.format(**values) for word in words.split()]
    done = CliRunner().invoke(cli, arguments)
    if isinstance(done.exception, Exception):
        assert clean(one_line(str(done.exception)))
    elif done.exit_code != 2:  # of click's own errors, which `main` prints; see below
        assert clean(done.stdout), ascii(done.stdout)
        assert clean(done.stderr), ascii(done.stderr)
    assert done.stdout.count("seal forged") == done.stdout.count(r"\nseal forged")


def test_the_process_escapes_them_too(hostile: Path, tmp_path: Path) -> None:
    for words in (("info", hostile), ("info", tmp_path / HOSTILE), (HOSTILE,), ("--" + HOSTILE,)):
        done = command(*words)
        assert clean(done.stdout), ascii(done.stdout)
        assert clean(done.stderr), ascii(done.stderr)
        assert done.stderr.count("\n") == (1 if done.returncode else 0), done.stderr


def test_a_tensors_name_is_escaped(tmp_path: Path) -> None:
    """From an untrusted checkpoint into the error of an export."""
    np = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    from support import tiny

    path = tiny.make_checkpoint(tmp_path / "checkpoint")
    weights = next(path.glob("*.safetensors"))
    tensors = safetensors.load_file(weights)
    tensors["model.\x1b]0;owned\x07\x1b[2J\u202ex\n"] = np.zeros(1, np.float32)
    safetensors.save_file(tensors, weights)
    done = command("export", path, tmp_path / "out")
    assert done.returncode == 7
    assert r"\x1b]0;owned\x07\x1b[2J\u202ex" in done.stderr
    assert clean(done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
def test_an_answer_is_escaped(way: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer whose pieces hold escape sequences, split over two of them."""
    pieces = ["\x1b", "]0;owned\x07", "\u202e", "two\n", "lines\t\r", "\ud83d", "\ude00"]
    turns: Iterator[str] = iter(pieces)
    monkeypatch.setattr(TextStream, "push", lambda *_: next(turns, ""))
    page = ROOT / "pulse_edge" / "assets" / "sample.png"
    words = ["ask", page, "-m", bundle, "--max-new-tokens", 7, way]
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    shown = r"\x1b]0;owned\x07\u202etwo" "\nlines\t" r"\r\ud83d\ude00"
    assert done.stdout.startswith(shown), ascii(done.stdout)


PRINTING = {"print", "echo", "secho", "echo_via_pager", "pprint"}


def prints(path: Path) -> Iterator[str]:
    """Where a file prints by itself."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            written = called.endswith(("stdout.write", "stderr.write", "stdout.buffer.write"))
            if called.split(".")[-1] in PRINTING or written:
                yield f"{path.name}:{node.lineno}: {called}"


def test_one_module_prints() -> None:
    """No other of the command, nor of the export stage that it runs."""
    folders = (ROOT / "pulse_edge" / "cli", ROOT / "export" / "pulse_export")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    found = {p.name: list(prints(p)) for p in files}
    assert len(found.pop("terminal.py")) == 2
    assert [place for places in found.values() for place in places] == []
