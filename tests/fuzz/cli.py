"""Command lines made of the options that there are, with odd values.

Whatever is typed, a command ends with a documented exit code, one line for a mistake, no traceback
and no character that a terminal obeys.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from pulse_edge import errors
from pulse_edge.cli import cli, main
from pulse_export.pipeline import export

from fuzz.campaign import ESCAPE, GROWTH, HANG, MEMORY, Counts, Finding
from fuzz.children import Ended, in_child
from fuzz.dicom_files import Form, dicom_file
from fuzz.worker import peak_memory
from support import tiny

NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e9",
    "9" * 20,
    "abc",
    "",
    "0x10",
)
WORDS = ("", " ", "What is the rate?", "\x1b[31mred", "é\u202e", "a\nb", "-", "--", "x" * 3000)
PATHS = (
    *("page.png", "text.png", "empty.png", "cut.png", "missing.png", "recording.dcm", "folder"),
    *(
        "bundle",
        "broken",
        "checkpoint",
        "out",
        "folder/out",
        "no/such/out",
        "",
        ".",
        "-",
        "é\x1b[2J",
    ),
)
# Commands that take seconds when they are right: here they get no bundle that there is.
SLOW = {"bench", "eval", "build", "serve"}
CODES = {0, 2, *(kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code"))}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PROCESSOR = 2.0  # seconds of a command, but of an export that succeeds: it may calibrate
PATIENCE = 20.0  # seconds after which it is ended


class CommandLines:
    """The campaign. Each command runs in a child, in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._sources = folder / "sources"
        self._place = folder / "place"
        self._sources.mkdir()
        make_files(self._sources)
        self._before = peak_memory()

    def case(self, number: int, rng: random.Random) -> Counts:
        arguments = command_line(rng)
        shutil.copytree(self._sources, self._place, symlinks=True)
        try:
            ended = in_child(lambda: main(arguments), self._place, PATIENCE, silent=False)
        finally:
            shutil.rmtree(self._place, ignore_errors=True)
        problem = self._problem(ended, arguments[0])
        if problem is not None:
            kind, text = problem
            raise Finding(kind, f"{' '.join(map(repr, arguments))}: {text}")
        return {f"exit {ended.code}": 1}

    def _problem(self, ended: Ended, command: str) -> tuple[str, str] | None:
        """(kind, text) of what is wrong with how a command ended."""
        works = ended.code == 0 and command == "export"
        if ended.killed or ended.processor > (PATIENCE if works else PROCESSOR):
            return HANG, f"{ended.processor:.1f} s of the processor"
        if ended.memory > self._before + GROWTH:
            return MEMORY, f"{ended.memory >> 20} MB"
        if "Traceback" in ended.err or ended.code not in CODES:
            return ESCAPE, f"exit {ended.code}, {ended.err[-600:]}"
        control = CONTROL.search(ended.out) or CONTROL.search(ended.err)
        if control:
            return ESCAPE, f"prints {control.group()!r}"
        lines = ended.err.splitlines()
        if ended.code not in (0, 2) and (len(lines) != 1 or not lines[0].startswith("error: ")):
            return ESCAPE, f"exit {ended.code} with {len(lines)} lines: {ended.err[-300:]!r}"
        if ended.code == 2 and not lines:
            return ESCAPE, "exit 2 without a word"
        return None


def make_files(folder: Path) -> None:
    """What the paths of command lines name."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "page.png")
    (folder / "cut.png").write_bytes((folder / "page.png").read_bytes()[:-300])
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "recording.dcm").write_bytes(dicom_file(Form()))
    (folder / "folder").mkdir()
    checkpoint = tiny.make_checkpoint(folder / "checkpoint", layers=1, vision_layers=2, context=256)
    export(checkpoint, folder / "bundle", precision="fp32")
    shutil.copytree(folder / "bundle", folder / "broken")
    (folder / "broken" / "embeddings.bin").write_bytes(b"0")


def command_line(rng: random.Random) -> list[str]:
    """A command with some of its options, legal or not."""
    commands: dict[str, Any] = dict(cli.commands)
    name = rng.choice([*commands, "--version", "--help", "nonsense"])
    arguments = [name]
    command = commands.get(name)
    while isinstance(command, click.Group):
        name = rng.choice([*command.commands, "nonsense"])
        arguments.append(name)
        command = command.commands.get(name)
    if command is None:
        return arguments
    words = [word for parameter in command.params for word in _words(parameter, rng, name)]
    if name == "fit" and "--device" not in words:
        words += ["--device", "l4"]  # and not this machine, which takes seconds to measure
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice(("--nonsense", "-x", "more", "--")))
    return arguments + words


def _words(parameter: Any, rng: random.Random, command: str) -> Iterator[str]:
    if isinstance(parameter, click.Argument):
        if rng.random() < 0.95 or command in SLOW:
            yield _path(parameter, rng, command)
        return
    needed = command in SLOW and "bundle" in str(parameter.name)
    if rng.random() < (0.95 if parameter.required else 0.2) or needed:
        yield rng.choice([*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag and rng.random() < 0.98:
            yield _value(parameter, rng, command)


def _value(parameter: Any, rng: random.Random, command: str) -> str:
    kind = parameter.type
    if isinstance(kind, click.Choice) and rng.random() < 0.8:
        return str(rng.choice(list(kind.choices)))
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return rng.choice(NUMBERS)
    if command == "fit" and parameter.name == "device":
        return rng.choice(("l4", "h100", "gameboy", ""))
    if isinstance(kind, click.Path) or parameter.name in ("model", "bundle", "checkpoint"):
        return _path(parameter, rng, command)
    return rng.choice((*WORDS, *NUMBERS))


def _path(parameter: Any, rng: random.Random, command: str) -> str:
    likely = {"image": "page.png", "page": "page.png", "bundle": "bundle", "model": "bundle",
              "checkpoint": "checkpoint", "recording": "recording.dcm", "out": "out"}  # fmt: skip
    if command in SLOW:
        return rng.choice(("missing.png", "folder", "broken", "", "text.png"))
    if rng.random() < 0.6 and parameter.name in likely:
        return likely[parameter.name]
    return rng.choice(PATHS)
