"""A benchmark's figures: their statistics, their comparison with a baseline, their tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ParameterError, PulseEdgeError, RegressionError

Record = Mapping[str, Any]
SCHEMA_VERSION = 2  # of a record, docs/bench.schema.json
Unit = Literal["s", "tokens/s", "bytes"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one thing. `gate`: whether a comparison with a baseline may fail on it.

    p90 and p99 look to the bad side: 90 % and 99 % of the samples are as good or better, linearly interpolated between
    samples (so with few of them p99 is close to the worst).
    """

    what: str
    unit: Unit
    better: Better
    gate: bool
    samples: tuple[float, ...]
    p50: float
    p90: float
    p99: float


def figure(what: str, unit: Unit, better: Better, gate: bool, samples: Iterable[float]) -> Figure:
    """The statistics of `samples`, at least one."""
    kept = tuple(float(f"{s:.6g}") for s in samples)  # a clock says no more, and records stay small
    ranks = (50, 90, 99) if better == "lower" else (50, 10, 1)
    p50, p90, p99 = (float(p) for p in np.percentile(kept, ranks))
    return Figure(what, unit, better, gate, kept, p50, p90, p99)


@dataclass(frozen=True)
class Point:
    """One point of a sweep, with what a run of it needs at least; rates are at the median run.

    kind: "pp" (prefill of `tokens` from an empty cache) or "tg" (`tokens` single steps after `depth` cached positions).
    flop: multiplications and additions, attention over the positions that are attended to.
    read: bytes; the decoder graph's weights once for each pass, and the cache's positions before it.
    Shares are of the measured peaks, None where there is no peak or the caches could hold what is read.
    """

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    flop: int
    read: int
    flop_per_s: float
    gemm_share: float | None
    read_per_s: float
    read_share: float | None

    @property
    def name(self) -> str:
        return point_name(self.kind, self.tokens, self.depth)


def point_name(kind: str, tokens: int, depth: int) -> str:
    """As llama-bench has it."""
    return f"pp{tokens}" if kind == "pp" else f"tg{tokens} @ d{depth}"


# Where two records differ in one of these, their figures are of different things.
IDENTITY = (
    ("machine", "name"), ("machine", "usable_cores"), ("provenance", "engine", "device"),
    ("provenance", "engine", "threads"), ("provenance", "checkpoint", "name"), ("provenance", "precision", "name"),
    ("provenance", "image", "sha256"), ("tokens", "prompt"), ("tokens", "new"),
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A figure's medians before and after. `worse`: by what fraction; negative is an improvement."""

    name: str
    unit: Unit
    before: float
    after: float
    worse: float


class Baseline:
    """A record to compare with, and by how much a median may be worse. Raises `ParameterError` for a wrong one."""

    def __init__(self, path: str | Path, fail_over: str) -> None:
        self.path, self.record = path, read_record(path)
        try:
            self.tolerance = float(fail_over.removesuffix("%")) / 100
        except ValueError:
            self.tolerance = -1
        if not 0 <= self.tolerance < 100:
            raise ParameterError(f"fail-over is {fail_over!r}, but must be a percentage like 10%")

    def changes(self, record: Record) -> list[Change]:
        """Medians of the figures that both have and that may fail a comparison, worst first."""
        changes = []
        for name, now in record["figures"].items():
            before = self.record["figures"].get(name)
            if not now["gate"] or before is None or before["unit"] != now["unit"] or not before["p50"] > 0:
                continue
            ratio = now["p50"] / before["p50"]
            worse = ratio - 1 if now["better"] == "lower" else 1 - ratio
            changes.append(Change(name, now["unit"], before["p50"], now["p50"], worse))
        return sorted(changes, key=lambda change: -change.worse)

    def table(self, record: Record) -> str:
        """Every change, and what makes the two records hard to compare."""
        rows = [("median", "baseline", "now", "change", "")]
        for c in self.changes(record):
            verdict = "REGRESSED" if c.worse > self.tolerance else "better" if c.worse < 0 else ""
            rows.append(
                (c.name, number(c.before, c.unit), number(c.after, c.unit), f"{c.after / c.before - 1:+.1%}", verdict)
            )
        pairs = ((" ".join(path), _at(self.record, path), _at(record, path)) for path in IDENTITY)
        notes = [f"not the same {what}: the baseline has {a!r}, this run {b!r}" for what, a, b in pairs if a != b]
        return "\n".join([table(rows, left=(0, 4)), *notes])

    def check(self, record: Record) -> None:
        """Raises `RegressionError` for what is worse than tolerated; `ParameterError` where nothing was compared."""
        changes = self.changes(record)
        if not changes:
            raise ParameterError(f"{self.path} has no figure in common with this run; make it with the same options")
        worse = [c.name for c in changes if c.worse > self.tolerance]
        if worse:
            raise RegressionError(
                f"{len(worse)} of {len(changes)} medians are worse than in {self.path} by over "
                f"{100 * self.tolerance:g} %: {', '.join(worse)}"
            )


def read_record(path: str | Path) -> dict[str, Any]:
    """A record that `--json` printed, or the last one of a file that `--append` wrote. Raises `ParameterError`."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    for candidate in (text, *text.splitlines()[-1:]):
        with suppress(ValueError):
            record = json.loads(candidate)
            if isinstance(record, dict) and record.get("schema") == SCHEMA_VERSION:
                return record
    raise ParameterError(f"{path}: not a result of 'pulse-edge bench' (schema {SCHEMA_VERSION}); make one with --json")


def append(path: str | Path, record: Record | None = None) -> None:
    """One more line of JSON; without a record only find out whether there can be one. Raises `PulseEdgeError`."""
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n" if record else "")
    except OSError as error:
        raise PulseEdgeError(f"{path}: cannot be written ({error.strerror})") from None


def _at(record: Any, path: Sequence[str]) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " us")),
    "bytes": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")),
    "tokens/s": ((1, "/s"),),
}


def number(value: float, unit: str) -> str:
    """With its unit, to three digits or more."""
    scale, name = next((s for s in SCALES[unit] if abs(value) >= s[0]), SCALES[unit][-1])
    value /= scale
    return f"{value:,.0f}{name}" if abs(value) >= 100 else f"{value:.3g}{name}"


def tables(record: Record) -> str:
    """A record for people: what ran, the figures of a request, the sweeps."""
    figures, sweeps = record["figures"], {Point(**p).name: p for p in record["sweeps"]}
    stages = [("", "p50", "p90", "p99", "n", "")]
    for name, f in figures.items():
        if name not in sweeps:
            values = (number(f[p], f["unit"]) for p in ("p50", "p90", "p99"))
            stages.append((name, *values, str(len(f["samples"])), f["what"]))
    speed = 1 / figures["tpot"]["p50"]
    parts = ["\n".join(headline(record)), table(stages, left=(0, 5)), f"1 / median TPOT: {number(speed, 'tokens/s')}"]
    if sweeps:
        parts.append(table([SWEEP_HEADER, *(_sweep_row(name, figures[name], p) for name, p in sweeps.items())]))
        parts.append("\n".join(footnotes(record)))
    return "\n\n".join(parts)


SWEEP_HEADER = ("tokens", "p50", "p90", "GFLOP/s", "of GEMM peak", "read/token", "GB/s", "of read peak")


def _sweep_row(name: str, f: Record, point: Record) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    return (
        name,
        number(f["p50"], f["unit"]),
        number(f["p90"], f["unit"]),
        f"{point['flop_per_s'] / 1e9:.3g}",
        share(point["gemm_share"]),
        number(point["read"] / point["tokens"], "bytes"),
        f"{point['read_per_s'] / 1e9:.3g}",
        share(point["read_share"]),
    )


def headline(record: Record) -> Iterator[str]:
    """What ran on what."""
    made, machine, tokens = record["provenance"], record["machine"], record["tokens"]
    engine, precision = made["engine"], made["precision"]
    yield (
        f"{made['checkpoint']['name']} {precision['name']}, bundle {made['bundle'][:12]}; {engine['engine']} "
        f"{engine['engine_version']} on {engine['device']}, threads {engine['threads'] or 'chosen by the engine'}, "
        f"context {engine['context']}; {record['time']}, commit {record['commit'] or 'not known'}"
    )
    yield (
        f"weights {precision['decoder']}, head {precision['head']}, vision {precision['vision']}, activations "
        f"{precision['activations']}, cache {precision['kv_cache']}"
    )
    named = {
        "cores": machine["cores"], "usable": machine["usable_cores"], "simd": " ".join(machine["simd"]),
        "load average at the start": machine["load_average"], "governor": machine["governor"],
        "clock MHz": machine["clock_now"], "power mode": machine["power_mode"], "gpu": machine["gpu"],
    }  # fmt: skip
    yield ", ".join([f"{machine['name']}", *(f"{k} {v}" for k, v in named.items() if v not in (None, ""))])
    yield (
        f"prompt {tokens['prompt']} tokens, {tokens['image']} of the image; {tokens['new']} new tokens, greedy, end of "
        f"sequence ignored; the second question reused {tokens['reused']}"
    )


def footnotes(record: Record) -> Iterator[str]:
    """What the sweep's columns are measured against."""
    peaks = record["peaks"]
    yield "pp: prefill from an empty cache; tg: single steps at a depth; engine alone, random embeddings, no sampling."
    yield "read/token: decoder and head weights once a pass, plus the cache before it; no share where caches hold it."
    if peaks:
        gemm = "; ".join(f"{k} {v / 1e9:.3g} GFLOP/s ({peaks['gemm_library'][k]})" for k, v in peaks["gemm"].items())
        yield (
            f"read peak {peaks['read'] / 1e9:.3g} GB/s: numpy over {number(peaks['read_buffer'], 'bytes')}, best pass. "
            f"GEMM peaks, {peaks['gemm_size']} x {peaks['gemm_size']}: {gemm}. All with {peaks['threads']} threads. "
            f"Shares of the GEMM peak are of {record['gemm_type']}'s, which is what this precision multiplies; "
            "attention is counted with it, though it runs in fp32."
        )
    else:
        yield "No peaks: they are measured on CPUs only, in a process of their own."
    for reason in record["skipped"]:
        yield f"skipped {reason}"


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns padded to their widest cell; those in `left` are words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
