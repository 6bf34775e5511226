"""Records of `pulse-edge bench` in llama-bench's output formats: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from pulse_edge.measure.figures import Point, Record
from pulse_edge.measure.machine import machine_class
from pulse_edge.measure.tables import interval_text, number

COLUMNS = (
    *("time", "commit", "machine", "checkpoint", "bundle", "precision", "engine", "device"),
    *("threads", "prompt_tokens", "new_tokens", "figure", "unit", "better", "n"),
    *("p50", "low", "high", "min", "max", "p90", "p99", "busy", "interrupted"),
)
# What the Markdown table shows of requests; the sweeps' points follow.
SHOWN = ("ttft_cold", "ttft_warm", "tpot", "itl", "e2e", "peak_memory", "device_memory")


def csv_text(records: Sequence[Record]) -> str:
    """A row for each figure of each record; in seconds, bytes and tokens/s."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerows(_record_rows(record))
    return out.getvalue()


def json_lines(records: Sequence[Record]) -> str:
    """A line for each record, as `--append` writes it."""
    return "".join(json.dumps(record) + "\n" for record in records)


def markdown_text(records: Sequence[Record]) -> str:
    """One table: a row for each figure, a column for each record; the machine below it."""
    titles = [_title(record) for record in records]
    lines = [_line(["median (95 % interval)", *titles]), _line(["---"] + ["---:"] * len(records))]
    for name in _names(records):
        lines.append(
            _line([name, *(_figure_cell(record["figures"].get(name)) for record in records)])
        )
    machines = dict.fromkeys(_machine(record) for record in records)
    return "\n".join([*lines, "", *machines]) + "\n"


def _record_rows(record: Record) -> Iterator[dict[str, object]]:
    provenance = record["provenance"]
    engine = provenance["engine"]
    common = {
        "time": record["time"],
        "commit": record["commit"],
        "machine": _machine(record),
        "checkpoint": provenance["checkpoint"]["name"],
        "bundle": provenance["bundle"],
        "precision": provenance["precision"]["name"],
        "engine": f"{engine['engine']} {engine['engine_version']}",
        "device": engine["device"],
        "threads": engine["threads"],
        "prompt_tokens": record["tokens"]["prompt"],
        "new_tokens": record["tokens"]["new"],
        "busy": record["contention"]["others"],
        "interrupted": record["interrupted"],
    }
    for name, f in record["figures"].items():
        samples = f["samples"]
        statistics = {key: f[key] for key in ("unit", "better", "p50", "low", "high", "p90", "p99")}
        extremes = {"figure": name, "n": len(samples), "min": min(samples), "max": max(samples)}
        yield common | statistics | extremes


def _names(records: Sequence[Record]) -> list[str]:
    points = (Point(**p).name for record in records for p in record["sweeps"])
    names = [name for name in SHOWN if any(name in record["figures"] for record in records)]
    return [*names, *dict.fromkeys(points)]


def _figure_cell(f: Record | None) -> str:
    if f is None:
        return "-"
    interval = interval_text(f)
    return number(f["p50"], f["unit"]) + ("" if interval == "-" else f" ({interval})")


def _title(record: Record) -> str:
    provenance = record["provenance"]
    threads = provenance["engine"]["threads"] or "auto"
    return (
        f"{provenance['checkpoint']['name']} {provenance['precision']['name']} "
        f"{provenance['bundle'][:8]}, {provenance['engine']['device']}, threads {threads}"
    )


def _machine(record: Record) -> str:
    return machine_class(record["machine"], record["provenance"]["engine"]["device"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
