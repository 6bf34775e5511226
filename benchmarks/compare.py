"""Runs peers and ours alternately, on the same geometry, threads and prompts; one JSON line and a
table a run.

    python -m benchmarks.compare work --threads 2    # four layers and the head, at 7B's full width
    python -m benchmarks.compare work --threads 2 --layers 32 --one-at-a-time
    python -m benchmarks.compare work --run ours:int4:128,llama.cpp:q4_0 --repetitions 3

WORK keeps the checkpoint, each peer's virtual environment and converted models between runs; the
first run with a peer installs and converts, which takes minutes. A peer that cannot is skipped,
with the reason.

For each case (`pp512`: prefill of 512 tokens; `tg16 @ d3000`: 16 single steps after 3,000;
`vision5`: five views through the tower, of the peers that have one) every peer runs once, then
every peer again, each time beginning with another one. Ratios are medians of the ratios within
these rounds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks import synthetic
from benchmarks.peers.worker import PEERS, PeerError, Worker, python_of
from pulse_edge import system
from pulse_edge.cli import numbers
from pulse_edge.engines.table import ENGINES
from pulse_edge.measure import baseline, figures, tables

KIND, SCHEMA = "compare", 1  # of a record
RESULTS = Path(__file__).parent / "results"
DEFAULT = "ours,llama.cpp,openvino,genai,optimum"
CONVERT_LIMIT, START_LIMIT = 3600.0, 600.0  # seconds


@dataclass(frozen=True)
class Case:
    """`tokens` of prefill into an empty cache, or so many steps at a depth; or so many views
    through the tower.
    """

    kind: str  # "pp", "tg" or "vision"
    tokens: int
    depth: int = 0

    @property
    def name(self) -> str:
        if self.kind == "vision":
            return f"vision{self.tokens}"
        return figures.point_name(self.kind, self.tokens, self.depth)

    def seconds(self, worker: Worker, limit: float) -> float | None:
        """None: the peer has no tower."""
        if self.kind == "vision":
            return worker.number_or_none("vision", "seconds", limit, views=self.tokens)
        if self.kind == "pp":
            return worker.number("prefill", "seconds", limit, tokens=self.tokens)
        return worker.number("decode", "seconds", limit, tokens=self.tokens, depth=self.depth)


@dataclass
class Entry:
    """A peer with a variant, and what it has shown so far.

    `reason`: why it is left out of the rest.
    """

    peer: str
    variant: str
    python: Path = Path()
    path: Path = Path()
    engine: dict[str, Any] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)  # seconds
    peak: int = 0  # bytes
    device_memory: int | None = None  # bytes of a GPU
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by case
    reason: str | None = None

    @property
    def name(self) -> str:
        return f"{self.peer} {self.variant}"


@dataclass(frozen=True)
class Settings:
    """Seconds: `limit` is what one command may take, `start_limit` what loading may."""

    threads: int
    context: int
    vocab: int
    repetitions: int
    warmup: int
    limit: float
    one_at_a_time: bool
    cpu_time: bool = False
    start_limit: float = START_LIMIT


def parse(text: str) -> list[Entry]:
    """`peer` (all its variants) or `peer:variant`, separated by commas.

    Raises `click.BadParameter`.
    """
    entries = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        peer, _, variant = item.partition(":")
        if peer not in PEERS:
            raise click.BadParameter(f"{peer!r} is not one of {', '.join(PEERS)}")
        entries += [Entry(peer, v) for v in ([variant] if variant else PEERS[peer].variants)]
    if not entries:
        raise click.BadParameter("there is nothing to run")
    if len({e.name for e in entries}) < len(entries):
        raise click.BadParameter("something is in it twice")
    return entries


def cases(
    prompts: Iterable[int], depths: Iterable[int], steps: int, views: Iterable[int] = ()
) -> list[Case]:
    language = [*(Case("pp", n) for n in prompts), *(Case("tg", steps, d) for d in depths)]
    return [*language, *(Case("vision", n) for n in views)]


def converted_path(entry: Entry, work: Path, checkpoint: Path) -> Path:
    """Where an entry's converted model is, or will be. Engines over one bundle share it."""
    parts = [part for part in entry.variant.split(":") if part not in ENGINES]
    return work / entry.peer / checkpoint.name / "-".join(parts)


def prepare(entry: Entry, work: Path, checkpoint: Path, installed: bool = False) -> None:
    """Install, but for what is installed, and convert what is not there yet; a failure becomes the
    entry's reason.
    """
    try:
        entry.python = python_of(entry.peer, work, installed)
        entry.path = converted_path(entry, work, checkpoint)
        if entry.path.exists():
            return
        folder = entry.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        part = entry.path.with_name(entry.path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        _say(f"{entry.name}: converting")
        with Worker(entry.peer, entry.python, folder / f"{entry.path.name}-convert.log") as worker:
            worker(
                "convert",
                CONVERT_LIMIT,
                checkpoint=str(checkpoint),
                out=str(part),
                variant=entry.variant,
            )
        part.rename(entry.path)
    except PeerError as error:
        entry.reason = str(error)


def measure(
    entries: list[Entry],
    wanted: list[Case],
    settings: Settings,
    after_case: Callable[[Case], object] = lambda _: None,
) -> None:
    """Fill the entries. What fails gets a reason, keeps its samples and is left out from there on.

    Args:
        entries: peers that were prepared; those with a reason are left out.
        wanted: cases, run in this order.
        settings: rounds and limits.
        after_case: called when the rounds of a case are through; with `one_at_a_time`, where rounds
            are the outer loop, for each case after each round that counts.
    """
    if settings.one_at_a_time:
        for number in range(settings.warmup + settings.repetitions):
            for entry in rotated(entries, number):
                with ExitStack() as stack:
                    worker = _open(entry, settings, stack)
                    for case in wanted:
                        _once(entry, worker, case, settings, keep=number >= settings.warmup)
            if number >= settings.warmup:
                for case in wanted:
                    after_case(case)
        return
    with ExitStack() as stack:
        workers = {entry.name: _open(entry, settings, stack) for entry in entries}
        for case in wanted:
            for number in range(settings.warmup + settings.repetitions):
                _say(f"{case.name}: round {number + 1} of {settings.warmup + settings.repetitions}")
                for entry in rotated(entries, number):
                    _once(
                        entry, workers[entry.name], case, settings, keep=number >= settings.warmup
                    )
            after_case(case)


def rotated(entries: list[Entry], number: int) -> list[Entry]:
    """Those that still run, beginning with another one each round."""
    running = [e for e in entries if e.reason is None]
    at = number % len(running) if running else 0
    return running[at:] + running[:at]


def _open(entry: Entry, settings: Settings, stack: ExitStack) -> Worker | None:
    if entry.reason is not None:
        return None
    log = entry.path.with_name(entry.variant.replace(":", "-") + ".log")
    worker = stack.enter_context(Worker(entry.peer, entry.python, log))
    try:
        answer = worker(
            "load",
            settings.start_limit,
            path=str(entry.path),
            variant=entry.variant,
            threads=settings.threads,
            context=settings.context,
            vocab=settings.vocab,
            cpu_time=settings.cpu_time,
        )
        entry.load.append(float(answer["seconds"]))
        entry.engine = answer["engine"]
    except PeerError as error:
        entry.reason = str(error)
        worker.close()
    return worker


def _once(entry: Entry, worker: Worker | None, case: Case, settings: Settings, keep: bool) -> None:
    if worker is None or entry.reason is not None:
        return
    try:
        seconds = case.seconds(worker, settings.limit)
        entry.peak = max(entry.peak, int(worker.number("memory", "peak", settings.limit)))
        if (
            not keep or entry.device_memory is None
        ):  # a case's warm-up has what it takes; asking takes 0.1 s
            entry.device_memory = system.device_memory(worker.pid) or entry.device_memory
    except PeerError as error:
        entry.reason = f"{case.name}: {error}"
        worker.close()
        return
    if keep and seconds is not None:
        entry.seconds.setdefault(case.name, []).append(seconds)


def record(
    entries: list[Entry], wanted: list[Case], sizes: synthetic.Sizes, settings: Settings
) -> dict[str, Any]:
    """JSON-ready; rates in tokens/s, of the tower in views/s."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": system.describe(),
        "sizes": dataclasses.asdict(sizes),
        "settings": dataclasses.asdict(settings),
        "cases": [dataclasses.asdict(case) | {"name": case.name} for case in wanted],
        "entries": [_entry(e, wanted) for e in entries if e.seconds],
        "skipped": {e.name: e.reason for e in entries if e.reason is not None},
    }


def _entry(entry: Entry, wanted: list[Case]) -> dict[str, Any]:
    rates = {
        c.name: [c.tokens / s for s in entry.seconds[c.name]]
        for c in wanted
        if c.name in entry.seconds
    }
    return {
        "name": entry.name, "peer": entry.peer, "variant": entry.variant, "engine": entry.engine,
        "load": entry.load, "peak_memory": entry.peak, "device_memory": entry.device_memory,
        "figures": {
            name: {
                "samples": [float(f"{r:.6g}") for r in found],
                "p50": statistics.median(found), "min": min(found), "max": max(found),
            }
            for name, found in rates.items()
        },
    }  # fmt: skip


def ratio(ours: Mapping[str, Any], peer: Mapping[str, Any], case: str) -> float | None:
    """Median over rounds of ours / peer; None where either has not run the case to its end."""
    pair = [e["figures"].get(case, {"samples": []})["samples"] for e in (ours, peer)]
    if not pair[0] or len(pair[0]) != len(pair[1]):
        return None
    return float(statistics.median(a / b for a, b in zip(*pair, strict=True)))


def speed_table(run: Mapping[str, Any]) -> list[list[str]]:
    """tokens/s: median (min-max), then memory and load."""
    names = [case["name"] for case in run["cases"]]
    gpu = any(e.get("device_memory") for e in run["entries"])
    rows = [
        [
            "tokens/s (vision: views/s): median (min-max)",
            *names,
            "peak memory",
            *["GPU memory"] * gpu,
            "load",
        ]
    ]
    for entry in run["entries"]:
        cells = []
        for name in names:
            f = entry["figures"].get(name)
            cells.append(f"{f['p50']:.4g} ({f['min']:.4g}-{f['max']:.4g})" if f else "-")
        load = tables.number(statistics.median(entry["load"]), "s")
        memory = [tables.number(entry["peak_memory"], "bytes")]
        if gpu:
            memory.append(
                tables.number(entry["device_memory"], "bytes")
                if entry.get("device_memory")
                else "-"
            )
        rows.append([entry["name"], *cells, *memory, load])
    return rows


def ratio_table(run: Mapping[str, Any]) -> list[list[str]]:
    """Each of ours against each peer."""
    names = [case["name"] for case in run["cases"]]
    rows = [["ours / peer", *names]]
    for ours in (e for e in run["entries"] if e["peer"] == "ours"):
        for peer in (e for e in run["entries"] if e["peer"] != "ours"):
            found = [ratio(ours, peer, name) for name in names]
            rows.append(
                [
                    f"{ours['variant']} / {peer['name']}",
                    *("-" if r is None else f"{r:.2f}" for r in found),
                ]
            )
    return rows


def title(run: Mapping[str, Any]) -> str:
    """What ran where."""
    sizes, settings = run["sizes"], run["settings"]
    clock = ", seconds of the processor" if settings["cpu_time"] else ""
    return (
        f"{sizes['layers']} layers of width {sizes['hidden']} and the head, random weights; "
        f"{settings['threads']} threads{clock}, {settings['repetitions']} repetitions; "
        f"{run['machine']['name']}, {run['time']}, commit "
        f"{run['commit'] or 'not known'}"
    )


def text(run: Mapping[str, Any]) -> str:
    """For people: what ran, both tables, what was skipped."""
    parts = [
        title(run),
        tables.table(speed_table(run)) if run["entries"] else "nothing was measured",
    ]
    ratios = ratio_table(run)
    parts += [tables.table(ratios)] if len(ratios) > 1 else []
    parts += (
        ["\n".join(f"skipped {name}: {why}" for name, why in run["skipped"].items())]
        if run["skipped"]
        else []
    )
    return "\n\n".join(parts)


def commit() -> str | None:
    return system.commit_of(Path(__file__).parents[1])


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def checkpoint_path(work: Path, sizes: synthetic.Sizes) -> Path:
    """Where the synthetic checkpoint of these sizes is, or will be."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(sizes)).encode()).hexdigest()[:8]
    return work / f"{sizes.layers}x{sizes.hidden}-{digest}"


def checkpoint_of(work: Path, sizes: synthetic.Sizes) -> Path:
    """The synthetic checkpoint of these sizes, written where it is not there yet."""
    path = checkpoint_path(work, sizes)
    if not (path / "config.json").exists():  # written last
        _say(f"writing {path}")
        shutil.rmtree(path, ignore_errors=True)
        synthetic.write(path, sizes)
    return path


@click.command(context_settings={"show_default": True})
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--run", "wanted", default=DEFAULT, help="peer or peer:variant, separated by commas.")
@click.option("--threads", default=0, help="Of every peer; 0: the physical cores.")
@click.option("-r", "--repetitions", type=click.IntRange(1), default=5)
@click.option(
    "--warmup", type=click.IntRange(0), default=1, help="Rounds before those, thrown away."
)
@click.option("--prompt-lengths", callback=numbers, default="128,512,2933")
@click.option("--depths", callback=numbers, default="0,3000")
@click.option("-n", "--steps", type=click.IntRange(1), default=16, help="Tokens of a decode run.")
@click.option("--views", callback=numbers, default="5", help="Of a run of the vision tower.")
@click.option(
    "--one-at-a-time",
    is_flag=True,
    help="Load a peer anew each round: for models that do not fit together.",
)
@click.option(
    "--cpu-time",
    is_flag=True,
    help="With --threads 1, on a machine with other work: seconds of the processor.",
)
@click.option(
    "--installed", is_flag=True, help="This Python has what every peer needs: make no environments."
)
@click.option("--prepare-only", is_flag=True, help="Install and convert, measure nothing.")
@click.option("--limit", default=600.0, help="Seconds that one run of a case may take.")
@click.option(
    "--append",
    "out",
    type=click.Path(path_type=Path),
    help="[default: benchmarks/results/compare.jsonl]",
)
@synthetic.size_options(layers=4)
def main(
    work: Path,
    wanted: str,
    threads: int,
    repetitions: int,
    warmup: int,
    prompt_lengths: tuple[int, ...],
    depths: tuple[int, ...],
    steps: int,
    views: tuple[int, ...],
    one_at_a_time: bool,
    cpu_time: bool,
    installed: bool,
    prepare_only: bool,
    limit: float,
    out: Path | None,
    **sizes: int,
) -> None:
    """Compare ours with its peers, the recommended bundle first.

    WORK keeps environments and models. The slice has --layers of PULSE-7B's 32 decoder layers, at
    full width.
    """
    entries, shape = parse(wanted), synthetic.Sizes(**sizes)
    points = cases(prompt_lengths, depths, steps, views)
    longest = max((c.tokens + c.depth for c in points), default=0)
    if cpu_time and threads != 1:
        raise click.BadParameter(
            "--cpu-time adds up the seconds of all threads, so it goes with --threads 1"
        )
    if not points:
        raise click.BadParameter("there is no case to run")
    if longest > shape.context:
        raise click.BadParameter(
            f"the longest case takes {longest} tokens, the context is {shape.context}"
        )
    out = out or RESULTS / "compare.jsonl"
    if not prepare_only:
        out.parent.mkdir(exist_ok=True)
        baseline.append(out)
    work = work.resolve()
    checkpoint = checkpoint_of(work, shape)
    for entry in entries:
        prepare(entry, work, checkpoint, installed)
        _say(f"{entry.name}: {(entry.reason and f'skipped: {entry.reason}') or 'ready'}")
    if prepare_only:
        return
    settings = Settings(
        threads or system.physical_cores(),
        shape.context,
        shape.vocab,
        repetitions,
        warmup,
        limit,
        one_at_a_time,
        cpu_time,
    )
    measure(entries, points, settings)
    run = record(entries, points, shape, settings)
    click.echo(text(run))
    if not run["entries"]:
        sys.exit(1)
    baseline.append(out, run)


if __name__ == "__main__":
    main()
