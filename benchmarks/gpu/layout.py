"""What a run's folder holds, and the models that the items share.

OUT/results.jsonl has one line for each thing that became known, of three kinds:

    {"kind": "machine", "run": …, "time": …, "machine": {card, driver, versions, commit}}
    {"kind": "result", "run": …, "time": …, "item": …, "result": …, "values": {…}}
    {"kind": "item", "run": …, "time": …, "item": …, "status": …, "seconds": …, "reason": …}

`run` ties a line to its machine line: each `--resume` begins another run. OUT/logs/ITEM.log has all
that an item printed. Models are kept in a folder of their own, WORK, which may be deleted later.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.synthetic import Sizes

ROOT = Path(__file__).parents[2]
Status = Literal["done", "failed", "timed out", "skipped"]
Line = dict[str, Any]

PULSE_7B = Sizes()
TINY = Sizes(
    layers=2,
    hidden=256,
    heads=2,
    ffn=512,
    vision_layers=2,
    vision_width=128,
    vision_heads=2,
    vision_mlp=256,
)
# Variants of the peer `ours`, by the name that the items use.
VARIANTS = {"int4": "int4:128:cuda", "fp16": "fp16:cuda"}
TINY_VARIANTS = {"int4": "int4:128", "fp16": "fp32"}


@dataclass(frozen=True)
class Layout:
    """Where and how a run works.

    Attributes:
        patience: factor of all time limits.
        products: paths of what `prepare` made, by name, filled as they come.
    """

    out: Path
    work: Path
    dry_run: bool = False
    patience: float = 1.0
    products: dict[str, Path] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.out / "results.jsonl"

    @property
    def logs(self) -> Path:
        return self.out / "logs"

    @property
    def variants(self) -> dict[str, str]:
        return variants(self.dry_run)


def sizes(dry_run: bool) -> Sizes:
    """Of the synthetic checkpoint."""
    return TINY if dry_run else PULSE_7B


def variants(dry_run: bool) -> dict[str, str]:
    """int4 and fp16 as variants of the peer `ours`: for the CPU in a dry run."""
    return TINY_VARIANTS if dry_run else VARIANTS


class Recorder:
    """Appends lines to results.jsonl, each on the disk at once. Safe for several threads."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def machine(self, machine: dict[str, Any]) -> None:
        self._append({"kind": "machine"}, {"machine": machine})

    def result(self, item: str, name: str, values: dict[str, Any]) -> None:
        self._append({"kind": "result"}, {"item": item, "result": name, "values": values})

    def item(self, item: str, status: Status, seconds: float, **more: Any) -> None:
        fields = {"item": item, "status": status, "seconds": round(seconds, 2)}
        self._append({"kind": "item"}, fields | {k: v for k, v in more.items() if v is not None})

    def _append(self, kind: dict[str, str], fields: dict[str, Any]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps(kind | {"run": self._run, "time": now} | fields) + "\n"
        try:
            with self._lock, self._path.open("ab+") as file:
                if file.tell() and not _ends_with_newline(file.fileno(), file.tell()):
                    text = "\n" + text  # a line that a crash cut short stays a line of its own
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # a full disk: the run goes on, and its terminal has the line
            click.echo(f"{self._path}: {error}; not written: {text.strip()}", err=True)


def _ends_with_newline(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def read(path: Path) -> Iterator[Line]:
    """The lines of a results.jsonl, without those that a crash cut short."""
    if not path.exists():
        return
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "kind" in line:
            yield line


def statuses(path: Path) -> dict[str, Line]:
    """The last item line of each item."""
    return {line["item"]: line for line in read(path) if line["kind"] == "item"}
