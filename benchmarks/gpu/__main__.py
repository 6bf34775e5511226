"""The acceptance run on an NVIDIA GPU: one command, one folder to send.

    python -m benchmarks.gpu OUT                         # everything, cut to nine minutes
    python -m benchmarks.gpu OUT --resume --minutes 20   # what is not done yet
    python -m benchmarks.gpu OUT --items gemv,tests      # parts of it
    python -m benchmarks.gpu OUT --dry-run               # all items on the CPU, with a tiny model

docs/gpu.md says what each item answers.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import signal
import sys
import threading
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from benchmarks import compare
from benchmarks.gpu import items, layout, report, runner
from benchmarks.gpu.items import Item
from benchmarks.gpu.layout import Layout, Recorder
from pulse_edge import system

PACKAGES = (
    *(
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "torch",
        "transformers",
        "triton",
        "cupy-cuda13x",
    ),
    *("cuda-bindings", "nvidia-cuda-nvrtc", "tensorrt", "tensorrt-rtx", "pytest"),
)
POSITIVE = click.FloatRange(0, min_open=True)
CARD = ("name", "driver_version", "memory.total", "compute_cap", "power.limit")


def describe(commit: str | None) -> dict[str, Any]:
    """What the run is on: the card, its driver, versions of what takes part."""
    query = f"--query-gpu={','.join(CARD)}"
    card = system.command_output("nvidia-smi", "-i", "0", query, "--format=csv,noheader")
    cells = [cell.strip() for cell in card.split(",")] if card else []
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", system.command_output("nvidia-smi") or "")
    return {
        "card": dict(zip(CARD, cells, strict=False)) or None,
        "cuda": cuda[1] if cuda else None,
        "host": system.describe(),
        "versions": {"python": platform.python_version()} | _versions(),
        "commit": commit or compare.commit(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def choose(text: str | None, done: set[str]) -> list[Item]:
    """The items to run, in the table's order.

    Args:
        text: names, separated by commas; None for all.
        done: items that are not run again, unless they make what another one needs.

    Raises:
        click.UsageError: there is no such item.
    """
    table = items.ITEMS
    known = [item.name for item in table]
    wanted = known if text is None else [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        wrong = ", ".join(unknown) or "nothing"
        raise click.UsageError(f"--items: {wrong}; there are {', '.join(known)}")
    chosen = {item.name for item in table if item.name in wanted and item.name not in done}
    if any(item.needs for item in table if item.name in chosen):
        chosen |= {item.name for item in table if item.background}
    return [item for item in table if item.name in chosen]


def ok(ends: dict[str, runner.End], dry_run: bool) -> bool:
    """Whether all went well. On a device, items may be left for later; a dry run gets to all."""
    allowed = {"itself"} if dry_run else {"itself", "time"}
    return all(end.status == "done" or end.cause in allowed for end in ends.values())


def _check_same(out: Path, card: dict[str, str] | None, dry_run: bool) -> None:
    """Refuse to mix GPUs, or a dry run and a real one, in a folder.

    Raises:
        click.UsageError: the folder has results of another kind.
    """
    for line in layout.read(Layout(out, out).results):
        if line["kind"] != "machine":
            continue
        before = line["machine"]
        if before.get("dry_run") != dry_run:
            kind = "a dry run" if before.get("dry_run") else "a real run"
            raise click.UsageError(f"{out} has results of {kind}; choose another folder")
        names = [(c or {}).get("name") for c in (before.get("card"), card)]
        if names[0] != names[1]:
            what = f"{out} has results of {names[0]}, and this is {names[1]}"
            raise click.UsageError(f"{what}; choose another folder")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@click.command(context_settings={"show_default": True})
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--minutes", type=POSITIVE, default=9.0, help="Of the whole run.")
@click.option("--patience", type=POSITIVE, default=1.0, help="Times the limits: slow devices.")
@click.option("--items", "wanted", help="Names, separated by commas.  [default: all]")
@click.option("--resume", is_flag=True, help="Go on in OUT: what is done there is not run again.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="On the CPU, with a tiny model and fake peers: is the run itself well?",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="For models, 35 GB.  [default: OUT-work]",
)
@click.option("--commit", help="Of this source, for the record, where it is not a git checkout.")
def main(
    out: Path,
    minutes: float,
    patience: float,
    wanted: str | None,
    resume: bool,
    dry_run: bool,
    work: Path | None,
    commit: str | None,
) -> None:
    """Answer what a GPU must answer, and write it to the folder OUT."""
    out = out.resolve()
    if out.exists() and any(out.iterdir()) and not resume:
        choices = "choose another folder, or go on in it with --resume"
        raise click.UsageError(f"{out} is not empty; {choices}")
    this = describe(commit)
    _check_same(out, this["card"], dry_run)
    plan = Layout(out, (work or out.with_name(out.name + "-work")).resolve(), dry_run, patience)
    before = layout.statuses(plan.results)
    chosen = choose(wanted, {name for name, line in before.items() if line["status"] == "done"})
    chosen = [dataclasses.replace(item, limit_s=patience * item.limit_s) for item in chosen]
    out.mkdir(parents=True, exist_ok=True)
    plan.work.mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    recorder = Recorder(plan.results, name)
    clock = runner.Clock(minutes)
    names = [item.name for item in chosen]
    recorder.machine(this | {"minutes": minutes, "dry_run": dry_run, "items": names})
    run = runner.Run(chosen, plan, recorder, clock, name, lambda line: click.echo(line, err=True))
    interrupted = False
    # Without this, items go on after a SIGTERM: they are in sessions of their own.
    main_thread = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, _interrupt) if main_thread else None
    try:
        run()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, former)
    click.echo(report.text(plan.results))
    if interrupted or not ok(run.ends, dry_run):
        sys.exit(1)


if __name__ == "__main__":
    main()
