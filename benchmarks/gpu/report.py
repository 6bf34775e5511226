"""The table at the end of an acceptance run, from OUT/results.jsonl alone.

python -m benchmarks.gpu.report OUT
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu import layout
from benchmarks.gpu.items import SKIPPED
from pulse_edge.measure import tables as figures

WIDTH = 100  # of the last column
Line = layout.Line


@dataclass(frozen=True)
class Bar:
    """A figure that was promised. `better`: whether more or less of it is."""

    name: str
    item: str
    figure: Callable[[list[Line]], float | None]
    limit: float
    better: str  # ">=" or "<="
    unit: str
    miss: str = "missed"


def fastest_step(results: list[Line]) -> float | None:
    """Milliseconds of all int4 products of a step of one row, with the best kernels."""
    rows = [line["values"] for line in results if line["result"] == "gemv step"]
    return min((float(row["ms"]) for row in rows if "ms" in row and row["rows"] == 1), default=None)


def stage(name: str) -> Callable[[list[Line]], float | None]:
    """Milliseconds of a stage."""

    def find(results: list[Line]) -> float | None:
        rows = [line["values"] for line in results if line["result"] == "stage"]
        return next((float(row["ms"]) for row in reversed(rows) if row["stage"] == name), None)

    return find


def prefill_ratio(ours: str) -> Callable[[list[Line]], float | None]:
    """Of the longest prompt, against transformers as it is."""

    def find(results: list[Line]) -> float | None:
        ratios = {
            int(match[1]): float(line["values"]["ratio"])
            for line in results
            if line["result"] == "ratio"
            and line["values"]["ours"] == f"ours {ours}"
            and line["values"]["peer"] == "transformers fp16"
            and (match := re.fullmatch(r"pp(\d+)", line["values"]["case"]))
        }
        return ratios[max(ratios)] if ratios else None

    return find


GEMV_MISS = "missed: up to 1.8 ms improve and measure again, above that stop"
VIEWS = "views to first token"
FP16, INT4 = layout.VARIANTS["fp16"], layout.VARIANTS["int4"]
BARS = (
    Bar("page prefill in fp16 / transformers", "compare", prefill_ratio(FP16), 1.3, ">=", "x"),
    Bar("page prefill in int4 / transformers", "compare", prefill_ratio(INT4), 1.1, ">=", "x"),
    Bar("views to first token in int4", "stages-int4", stage(VIEWS), 100, "<=", "ms"),
    Bar("int4 products of a step, own", "gemv", fastest_step, 1.5, "<=", "ms", GEMV_MISS),
)


def text(path: Path) -> str:
    """What ran where, a line for each item, and the bars."""
    lines = list(layout.read(path))
    machines = [line for line in lines if line["kind"] == "machine"]
    ends = {line["item"]: line for line in lines if line["kind"] == "item"}
    if not machines or not ends:
        return f"{path} has no results"
    results = {name: _latest(lines, name) for name in ends}
    order = [name for line in machines for name in line["machine"].get("items", [])]
    names = sorted(ends, key=lambda name: order.index(name) if name in order else len(order))
    rows = [["item", "status", "s", "what it shows"]]
    for name in names:
        cells = [*_cells(name, results[name]), *_reason(ends[name])]
        for number, cell in enumerate(_wrapped(cells)):
            first = [name, ends[name]["status"], f"{ends[name]['seconds']:.1f}"]
            rows.append([*(["", "", ""] if number else first), cell])
    dry_run = bool(machines[-1]["machine"].get("dry_run"))
    bars = [["bar", "limit", "found", ""]]
    bars += [_bar(bar, results.get(bar.item, []), dry_run) for bar in BARS]
    return "\n\n".join(
        (
            title(machines[-1]),
            figures.table(rows, left=(0, 1, 3)),
            figures.table(bars, left=(0, 3)),
            _sum(ends),
        )
    )


def title(line: Line) -> str:
    """The card and the versions."""
    what = line["machine"]
    card = what.get("card") or {}
    parts = [
        card.get("name") or "no NVIDIA GPU",
        f"driver {card.get('driver_version', 'not known')}",
        f"CUDA {what.get('cuda') or 'not known'}",
        *(f"{name} {number}" for name, number in what.get("versions", {}).items()),
        f"commit {what.get('commit') or 'not known'}",
        line["time"],
    ]
    notice = "DRY RUN, a tiny model on the CPU: its figures mean nothing\n"
    return (notice if what.get("dry_run") else "") + ", ".join(parts)


def _latest(lines: list[Line], item: str) -> list[Line]:
    """The results of an item in the last run that brought any."""
    found = [line for line in lines if line["kind"] == "result" and line["item"] == item]
    return [line for line in found if line["run"] == found[-1]["run"]]


def _sum(ends: Mapping[str, Line]) -> str:
    counts: dict[str, int] = {}
    for line in ends.values():
        counts[line["status"]] = counts.get(line["status"], 0) + 1
    seconds = sum(line["seconds"] for line in ends.values())
    shown = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{shown}; {seconds:.0f} s in all items"


def _bar(bar: Bar, results: list[Line], dry_run: bool) -> list[str]:
    found = bar.figure(results)
    limit = f"{bar.better} {bar.limit:g} {bar.unit}"
    if found is None:
        return [bar.name, limit, "-", "not measured"]
    if dry_run:
        return [bar.name, limit, f"{found:.3g} {bar.unit}", "means nothing"]
    met = found >= bar.limit if bar.better == ">=" else found <= bar.limit
    return [bar.name, limit, f"{found:.3g} {bar.unit}", "met" if met else bar.miss]


def _reason(end: Line) -> list[str]:
    return [end["reason"]] if end.get("reason") else []


def _wrapped(cells: list[str]) -> Iterator[str]:
    """Cells joined to lines of at most WIDTH, a long one cut to two; at least one line."""
    line = ""
    for part in (part for cell in cells for part in textwrap.wrap(cell, WIDTH)[:2]):
        if line and len(line) + 2 + len(part) > WIDTH:
            yield line
            line = ""
        line += f"; {part}" if line else part
    yield line


def _cells(item: str, results: list[Line]) -> Iterator[str]:
    """What an item showed, in a few words; never fails, whatever the results hold."""
    try:
        yield from _by_kind(results)
    except Exception as error:  # a result of an older version, for one
        yield f"cannot be shown ({type(error).__name__}: {error})"


def _by_kind(results: list[Line]) -> Iterator[str]:
    results = [line for line in results if line["result"] != SKIPPED]  # its reason is shown
    kinds = {line["result"] for line in results}
    values = {k: [line["values"] for line in results if line["result"] == k] for k in kinds}
    if "product" in kinds:
        yield from (f"{v['name']} after {v['seconds']:.0f} s" for v in values["product"])
    elif "tests" in kinds:
        counts = values["tests"][-1]
        yield f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        yield from (f["name"].rpartition("::")[2] for f in counts["failures"])
        yield from (f"skipped: {reason}" for reason in counts["skip_reasons"][:2])
    elif "figure" in kinds or "left out" in kinds:
        yield from _compared(values)
    elif "stage" in kinds:
        yield from _staged(values)
    elif "gemv step" in kinds:
        yield from _products(values)
    elif "option" in kinds:
        yield from _swept(values)
    else:
        yield from _plain(results)


def _compared(values: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Rates of ours, then ratios; the latest of each."""
    rates = {(v["entry"], v["case"]): v for v in values.get("figure", [])}
    for entry in dict.fromkeys(entry for entry, _ in rates):
        shown = [f"{case} {v['p50']:.4g}" for (name, case), v in rates.items() if name == entry]
        yield f"{entry}: {', '.join(shown)}"
    ratios = {(v["ours"], v["peer"], v["case"]): v["ratio"] for v in values.get("ratio", [])}
    for pair in dict.fromkeys(key[:2] for key in ratios):
        shown = [f"{key[2]} {ratio:.2f}" for key, ratio in ratios.items() if key[:2] == pair]
        yield f"{pair[0]} / {pair[1]}: {', '.join(shown)}"
    yield from (f"left out {v['entry']}: {v['reason']}" for v in values.get("left out", []))


def _staged(values: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Milliseconds of the stages of a page, of steps and of prompts in pieces."""
    yield "ms: " + ", ".join(f"{v['stage']} {v['ms']:.4g}" for v in values["stage"])
    for v in values.get("answer", []):
        outside = f"{v['outside_engine_ms']:.3g} of it outside the engine"
        yield f"a token {v['tpot_ms']:.4g} ms, {outside}"
    steps = [v for v in values.get("step of rows", []) if v["way"] == "choose"]
    for depth in dict.fromkeys(v["depth"] for v in steps):
        shown = [f"{v['rows']}: {v['ms']:.4g}" for v in steps if v["depth"] == depth]
        yield f"ms of a step of rows after {depth}: {', '.join(shown)}"
    pieces = [f"{v['chunk']}: {v['ms']:.4g}" for v in values.get("prefill by", [])]
    if pieces:
        yield f"ms of the prompt in pieces of {', '.join(pieces)}"


def _products(values: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The best step by its number of rows, and what a copy reaches."""
    steps = [v for v in values["gemv step"] if "ms" in v]
    for rows in dict.fromkeys(v["rows"] for v in steps):
        best = min((v for v in steps if v["rows"] == rows), key=lambda v: float(v["ms"]))
        kind = f"{best['variant']}{', early' if best['early'] else ''}"
        yield f"a step of {rows}: {best['ms']:.4g} ms, {best['gb_per_s']:.4g} GB/s ({kind})"
    yield from (f"copy {v['gb_per_s']:.4g} GB/s" for v in values.get("copy", []) if "gb_per_s" in v)
    failed = sum("failed" in v for kind in values.values() for v in kind)
    if failed:
        yield f"{failed} variants failed"


def _swept(values: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Milliseconds by option: of a page's prefill, and of steps."""
    for name in dict.fromkeys(v["option"] for v in values["option"]):
        rows = [v for v in values["option"] if v["option"] == name]
        cases = [v["case"] + (f" @ {v['depth']}" if "depth" in v else "") for v in rows]
        shown = [f"{case} {v['ms']:.4g}" for case, v in zip(cases, rows, strict=True)]
        yield f"{name}: {', '.join(shown)} ms"
    for v in values.get("option failed", []):
        yield f"{v['option']}: failed: {v['reason']}"


def _plain(results: list[Line]) -> Iterator[str]:
    """Of an item without a form of its own: its summary, else its last results."""
    summaries = [line for line in results if line["result"] == "summary"]
    for line in summaries or results[-4:]:
        scalars = {k: v for k, v in line["values"].items() if isinstance(v, int | float | str)}
        shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in scalars.items()]
        yield f"{line['result']}: {', '.join(shown[:6])}"


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(out: Path) -> None:
    """The table of the run in OUT."""
    click.echo(text(out / "results.jsonl"))


if __name__ == "__main__":
    main()
