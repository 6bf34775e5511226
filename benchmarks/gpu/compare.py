"""Peers against each other, through benchmarks/compare.py; a case is emitted after its rounds.

    python -m benchmarks.gpu.compare WORK --run ours:fp16:cuda,transformers:fp16 --record OUT.json

Nothing is installed, and ours are not exported here: `prepare` does that. The record, in the format
of benchmarks/results/compare.jsonl, is written again after each case.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from benchmarks import compare
from benchmarks.compare import Case, Entry, Settings
from benchmarks.gpu import layout
from benchmarks.gpu.emit import emit
from pulse_edge import system

# In order of value: time may run out. A page's prompt has about 2,933 tokens.
CASES = (Case("pp", 2933), Case("tg", 32), Case("tg", 32, 3000), Case("vision", 5), Case("pp", 512))
TINY_CASES = (Case("pp", 48), Case("tg", 2), Case("tg", 2, 32), Case("vision", 1))
DECODE_CASES = (Case("tg", 32), Case("tg", 32, 3000), Case("pp", 2933))
TINY_DECODE_CASES = (Case("tg", 2), Case("tg", 2, 32))
ROUNDS = 4
LIMIT_S, START_LIMIT_S = 90.0, 90.0  # of one command, which may compile; of loading
LOG_LINES = 20
TOGETHER_FROM = 48 << 30  # bytes of GPU memory: fp16 twice and int4, with their caches


class Progress:
    """Emits what is new: figures and ratios of a case, and peers that are left out."""

    def __init__(
        self,
        entries: list[Entry],
        points: list[Case],
        settings: Settings,
        dry_run: bool,
        out: Path,
    ) -> None:
        self._entries = entries
        self._points = points
        self._settings = settings
        self._sizes = layout.sizes(dry_run)
        self._out = out
        self._left_out: set[str] = set()

    def after_case(self, case: Case) -> None:
        record = self.write()
        measured = record["entries"]
        for entry in measured:
            figures = entry["figures"].get(case.name)
            if figures is not None:
                unit = "views/s" if case.kind == "vision" else "tokens/s"
                emit("figure", entry=entry["name"], case=case.name, unit=unit, **figures)
        for ours in (e for e in measured if e["peer"] == "ours"):
            for peer in (e for e in measured if e["peer"] != "ours"):
                ratio = compare.ratio(ours, peer, case.name)
                if ratio is not None:
                    emit(
                        "ratio",
                        ours=ours["name"],
                        peer=peer["name"],
                        case=case.name,
                        ratio=round(ratio, 4),
                    )
        self.left_out()

    def left_out(self) -> None:
        for entry in self._entries:
            if entry.reason is not None and entry.name not in self._left_out:
                self._left_out.add(entry.name)
                emit("left out", entry=entry.name, reason=entry.reason, log=_log_tail(entry))

    def write(self) -> dict[str, Any]:
        """The record so far, which replaces the one before as a whole."""
        record = compare.record(self._entries, self._points, self._sizes, self._settings)
        part = self._out.with_name(self._out.name + ".part")
        part.write_text(json.dumps(record) + "\n")
        part.replace(self._out)
        return record


def _log_tail(entry: Entry) -> list[str]:
    """The last lines that a peer printed; what is in WORK may not be kept."""
    variant = entry.variant.replace(":", "-")
    names = (f"{variant}.log", f"{entry.path.name}-convert.log")
    if not entry.path.name:
        return []
    logs = [log for log in map(entry.path.with_name, names) if log.exists()]
    return logs[0].read_text(errors="replace").splitlines()[-LOG_LINES:] if logs else []


def entries_of(text: str) -> tuple[list[Entry], dict[str, str]]:
    """The entries of a list, and those that this version does not know, with the reason."""
    entries: list[Entry] = []
    unknown: dict[str, str] = {}
    for item in text.split(","):
        try:
            entries += compare.parse(item)
        except click.BadParameter as error:
            unknown[item] = error.message
    return entries, unknown


def prepare(entries: list[Entry], work: Path, dry_run: bool) -> None:
    """Paths and Pythons of the entries; ours must be there already."""
    checkpoint = compare.checkpoint_path(work, layout.sizes(dry_run))
    if not (checkpoint / "config.json").exists():
        command = f"python -m benchmarks.gpu.prepare {work}"
        raise click.ClickException(f"{checkpoint} is not there; make it: {command}")
    for entry in entries:
        if entry.peer == "ours" and not compare.converted_path(entry, work, checkpoint).exists():
            entry.reason = "its export is not there"
        else:
            compare.prepare(entry, work, checkpoint, installed=True)


def together() -> bool:
    """Whether all peers fit on the GPU at once. If not, each round loads them anew."""
    query = ("-i", "0", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    text = system.command_output("nvidia-smi", *query)
    match = re.match(r"\d+", text or "")
    return match is None or int(match[0]) << 20 >= TOGETHER_FROM


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--run", "wanted", required=True, help="peer:variant, separated by commas.")
@click.option("--record", "out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--patience", default=1.0, help="Times the limits of commands.")
@click.option("--decode", is_flag=True, help="Decode first; no vision tower, no short prompt.")
@click.option("--dry-run", is_flag=True, help="A tiny model, few tokens, one round.")
def main(
    work: Path,
    wanted: str,
    out: Path,
    patience: float,
    decode: bool,
    dry_run: bool,
) -> None:
    """Compare peers over the models in WORK."""
    work = work.resolve()
    entries, unknown = entries_of(wanted)
    for name, reason in unknown.items():
        emit("left out", entry=name, reason=reason)
    table = {
        (False, False): CASES,
        (True, False): DECODE_CASES,
        (False, True): TINY_CASES,
        (True, True): TINY_DECODE_CASES,
    }
    points = list(table[decode, dry_run])
    sizes = layout.sizes(dry_run)
    settings = Settings(
        threads=system.physical_cores(),
        context=sizes.context,
        vocab=sizes.vocab,
        repetitions=1 if dry_run else ROUNDS,
        warmup=0 if dry_run else 1,
        limit=patience * LIMIT_S,
        one_at_a_time=not together(),
        start_limit=patience * START_LIMIT_S,
    )
    prepare(entries, work, dry_run)
    progress = Progress(entries, points, settings, dry_run, out)
    progress.left_out()
    compare.measure(entries, points, settings, progress.after_case)
    progress.left_out()
    for entry in progress.write()["entries"]:
        kept = ("engine", "load", "peak_memory", "device_memory")
        emit("engine", entry=entry["name"], **{key: entry[key] for key in kept})
    reasons = [f"{e.name}: {e.reason}" for e in entries if e.reason is not None]
    reasons += [f"{name}: {reason}" for name, reason in unknown.items()]
    if sum(entry.reason is None for entry in entries) < 2:
        raise click.ClickException("; ".join(reasons) or "there is nothing to compare with")


if __name__ == "__main__":
    main()
