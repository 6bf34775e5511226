"""The records in results/*.jsonl, by kind and by what may be compared over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks import (
    accuracy,
    batching,
    compare,
    engines,
    predictions,
    recipe_cost,
    recipes,
    serve,
    speculation,
)
from pulse_edge.measure.figures import OLDER_SCHEMAS, SCHEMA_VERSION
from pulse_edge.measure.machine import machine_class

Record = dict[str, Any]
Series = dict[str, list[Record]]
BENCH = "bench"
SCHEMAS: dict[str, tuple[int | None, ...]] = {
    BENCH: (SCHEMA_VERSION, *OLDER_SCHEMAS),
    compare.KIND: (compare.SCHEMA,),
    predictions.KIND: (predictions.SCHEMA,),
    engines.KIND: (None,),
    accuracy.KIND: (accuracy.SCHEMA,),
    recipes.KIND: (recipes.SCHEMA,),
    recipes.MODEL_KIND: (recipes.SCHEMA,),
    recipe_cost.KIND: (recipe_cost.SCHEMA,),
    speculation.KIND: (speculation.SCHEMA,),
    batching.KIND: (batching.SCHEMA,),
    batching.REQUESTS_KIND: (batching.SCHEMA,),
    serve.KIND: (serve.SCHEMA,),  # not shown: each is of one server and one load
}


def read_results(folder: Path) -> dict[str, Series]:
    """Records of `pulse-edge bench`: by machine class, then by series, oldest first.

    Raises `click.ClickException` for a line that is not a record.
    """
    machines: dict[str, Series] = {}
    for record in read_kind(folder, BENCH):
        series = machines.setdefault(machine_of(record), {})
        series.setdefault(series_name(record), []).append(record)
    return machines


def read_kind(folder: Path, kind: str) -> list[Record]:
    """Records of one kind, oldest first; raises as `read_results`."""
    found = [r for r in _records(folder) if r.get("kind", BENCH) == kind]
    return sorted(found, key=lambda record: str(record["time"]))


def _records(folder: Path) -> Iterator[Record]:
    for file in sorted(folder.glob("*.jsonl")):
        for line_number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise click.ClickException(f"{file}:{line_number}: not JSON ({error})") from None
            kind = record.get("kind", BENCH) if isinstance(record, dict) else None
            if kind not in SCHEMAS or record.get("schema") not in SCHEMAS[kind]:
                raise click.ClickException(
                    f"{file}:{line_number}: not a record of schema {SCHEMA_VERSION}"
                )
            yield record


def machine_of(record: Record) -> str:
    """The class of the machine that a benchmark or comparison ran on.

    Old records do not tell the processor's model: their SIMD features tell its generations apart.
    """
    if "provenance" in record:
        device = record["provenance"]["engine"]["device"]
    else:
        devices = {entry["engine"].get("device") for entry in record["entries"]}
        device = "cuda" if "cuda" in devices else "cpu"
    return machine_class(record["machine"], device)


def series_name(record: Record) -> str:
    """What may be compared over time on one machine."""
    provenance = record["provenance"]
    engine = provenance["engine"]
    quick = ", quick" if record["settings"]["quick"] else ""
    return (
        f"{provenance['checkpoint']['name']} {provenance['precision']['name']}, "
        f"{engine['device']}, threads {engine['threads'] or 'auto'}{quick}"
    )
