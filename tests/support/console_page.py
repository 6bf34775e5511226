"""A page of the documents that shows commands with their output, and what they really print.

    PYTHONPATH=tests python -m support.console_page docs/first-ten-minutes.md

runs the commands of its `console` blocks in order and writes what they print into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.paths import BIN

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
SECONDS = 120  # that a command may take on a busy machine
PLACE = (r"\S+/assets/pulse-nano", "…/assets/pulse-nano")  # which is no part of a document
# What differs from run to run, or from machine to machine.
VARIES = (
    (r"\d+(\.\d+)? (s|ms) to first token", "… to first token"),
    (r", \d+ tokens/s", ", … tokens/s"),
    (r"; \d+\.\d+ s; preliminary", "; … s; preliminary"),
    (r"\b[0-9a-f]{64}\b", "…"),
    (r"\bbundle [0-9a-f]{12}\b", "bundle …"),
    (r"\bpanel (\S+) [0-9a-f]{12}\b", r"panel \1 …"),
    (r"\bonnxruntime \d+(\.\d+)+", "onnxruntime …"),
    (r"in \d+\.\d+ s", "in … s"),
    PLACE,
    (r"\(margin \d+\.\d\)", "(margin …)"),
    (r"version \d+\.\S+", "version …"),
)


@dataclass(frozen=True)
class Example:
    """A command of a page, and what the page says that it prints, stderr among it."""

    command: str
    output: str


def examples(text: str) -> Iterator[Example]:
    """The commands of a page, in order. A line that begins with "$ " is one."""
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield Example(command, output)


def run(command: str, folder: Path) -> str:
    """Run a command in a folder. Returns what a terminal would show."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def steady(output: str) -> str:
    """An output without what varies."""
    for pattern, instead in VARIES:
        output = re.sub(pattern, instead, output)
    return output


def rewritten(text: str, folder: Path) -> str:
    """The page with what its commands print in a folder."""

    def block(match: re.Match[str]) -> str:
        parts = []
        for example in examples(match.group(0)):
            output = re.sub(*PLACE, run(example.command, folder))
            parts.append(f"$ {example.command}\n{output}")
        return "```console\n" + "".join(parts) + "```"

    return BLOCK.sub(block, text)


def main() -> None:
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        page.write_text(rewritten(page.read_text("utf-8"), Path(folder)), "utf-8")


if __name__ == "__main__":
    main()
