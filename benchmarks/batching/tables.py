"""Records of batched steps as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def title(record: dict[str, Any]) -> str:
    """What was measured, and where."""
    return (
        f"{record['bundle']} {record['precision']}, {record['layers']} layers of width "
        f"{record['hidden']}, cache {record['kv_cache']}, {record['threads']} threads, "
        f"{record['machine']['name']}, load {record['machine']['load_average']}"
    )


def rows_of(record: dict[str, Any]) -> list[list[str]]:
    """Batch sizes and depths: milliseconds and gains, at the fastest and at the median."""
    whole = f"{record['whole_layers']} layers, ms"
    rows = [["depth", "batch", "step min / median, ms", "gain", whole, "gain"]]
    for p in record["points"]:
        rows.append(
            [
                f"{p['depth']:,}",
                str(p["batch"]),
                f"{1e3 * p['step_min']:.2f} / {1e3 * p['step_median']:.2f}",
                f"{p['step_gain_min']:.2f} / {p['step_gain_median']:.2f}",
                f"{1e3 * p['whole_min']:.1f} / {1e3 * p['whole_median']:.1f}",
                f"{p['whole_gain_min']:.2f} / {p['whole_gain_median']:.2f}",
            ]
        )
    return rows


def report_tables(records: Iterable[dict[str, Any]]) -> list[list[list[str]]]:
    """A table for the last record of each bundle, machine and number of threads."""
    last = {title(r | {"machine": r["machine"] | {"load_average": 0}}): r for r in records}
    return [[[title(record)], *rows_of(record)] for record in last.values()]
