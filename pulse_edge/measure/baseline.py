"""A record of `pulse-edge bench` compared with an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError, PulseEdgeError, RegressionError
from pulse_edge.measure.figures import SCHEMA_VERSION, Record, Unit
from pulse_edge.measure.tables import number, table

# Paths into a record. Two records that differ in one of these measured different things.
IDENTITY = (
    ("machine", "name"),
    ("machine", "usable_cores"),
    ("provenance", "engine", "device"),
    ("provenance", "engine", "threads"),
    ("provenance", "checkpoint", "name"),
    ("provenance", "precision", "name"),
    ("provenance", "image", "sha256"),
    ("tokens", "prompt"),
    ("tokens", "new"),
)


@dataclass(frozen=True)
class Change:
    """A figure's medians before and after.

    `worse`: the fraction by which it got worse (0.1 = 10 %); negative is an improvement.
    """

    name: str
    unit: Unit
    before: float
    after: float
    worse: float


class Baseline:
    """A record to compare with, and by how much a median may be worse."""

    def __init__(self, path: str | Path, fail_over: str) -> None:
        """Read the record.

        Args:
            path: of a record, or of a file of them, whose last one counts.
            fail_over: a percentage like "10%" or "10".

        Raises:
            ParameterError: the file holds no record, or `fail_over` is no percentage.
        """
        self.path = path
        self.record = read_record(path)
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
            if not now["gate"] or before is None:
                continue
            if before["unit"] != now["unit"] or not before["p50"] > 0:
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
            change = f"{c.after / c.before - 1:+.1%}"
            rows.append(
                (c.name, number(c.before, c.unit), number(c.after, c.unit), change, verdict)
            )
        notes = []
        for path in IDENTITY:
            before, now = _at(self.record, path), _at(record, path)
            if before != now:
                notes.append(
                    f"not the same {' '.join(path)}: the baseline has {before!r}, this run {now!r}"
                )
        return "\n".join([table(rows, left=(0, 4)), *notes])

    def check(self, record: Record) -> None:
        """Fail if a median is worse than tolerated.

        Raises:
            RegressionError: it is, and these are the figures.
            ParameterError: the two records have no figure in common.
        """
        changes = self.changes(record)
        if not changes:
            raise ParameterError(
                f"{self.path} has no figure in common with this run; make it with the same options"
            )
        worse = [c.name for c in changes if c.worse > self.tolerance]
        if worse:
            raise RegressionError(
                f"{len(worse)} of {len(changes)} medians are worse than in {self.path} by over "
                f"{100 * self.tolerance:g} %: {', '.join(worse)}"
            )


def read_record(path: str | Path) -> dict[str, Any]:
    """A record that `--json` printed, or the last one of a file that `--append` wrote.

    Raises:
        ParameterError: the file cannot be read or holds no record of this schema.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"{path}: cannot be read ({reason})") from None
    for candidate in (text, *text.splitlines()[-1:]):
        with suppress(ValueError):
            record = json.loads(candidate)
            if isinstance(record, dict) and record.get("schema") == SCHEMA_VERSION:
                return record
    raise ParameterError(
        f"{path}: not a result of 'pulse-edge bench' (schema {SCHEMA_VERSION}); "
        "make one with --json"
    )


def append(path: str | Path, record: Record | None = None) -> None:
    """Add a line of JSON to a file.

    Args:
        path: of the file, which is made if there is none.
        record: JSON-ready. None only checks that the file can be written.

    Raises:
        PulseEdgeError: it cannot.
    """
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n" if record else "")
    except OSError as error:
        raise PulseEdgeError(f"{path}: cannot be written ({error.strerror})") from None


def _at(record: Any, path: Sequence[str]) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
