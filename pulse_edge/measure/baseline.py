"""A record of `pulse-edge bench` compared with an earlier one.

A figure has regressed if the bootstrap interval of (median now / median before) lies above what is
tolerated, whole. Where that cannot be told, there is no verdict, and no failure of the gate either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import NoVerdictError, ParameterError, PulseEdgeError, RegressionError
from pulse_edge.measure.contention import busy_reasons, pace_ratio
from pulse_edge.measure.figures import OLDER_SCHEMAS, SCHEMA_VERSION, Record, Unit
from pulse_edge.measure.intervals import CONFIDENCE, Interval, ratio_interval
from pulse_edge.measure.machine import machine_class
from pulse_edge.measure.tables import number, table

DEVICE = ("provenance", "engine", "device")  # a path into a record, as those below
# Two records that differ in one of these measured different things.
IDENTITY = (
    DEVICE,
    ("provenance", "engine", "threads"),
    ("provenance", "checkpoint", "name"),
    ("provenance", "precision", "name"),
    ("provenance", "image", "sha256"),
    ("tokens", "prompt"),
    ("tokens", "new"),
)
# Of a file of records, the last that agrees in these is the baseline.
SERIES = IDENTITY[:4]
REGRESSED = "REGRESSED"
LEAST_REPETITIONS = 3  # of a time, on both sides; fewer say nothing of how much it varies
SLOWER_MACHINE = 1.15  # pace ratio from which a regression may be the machine's


@dataclass(frozen=True)
class Change:
    """A figure before and after.

    Attributes:
        name: of the figure.
        unit: of both medians.
        before: median of the baseline.
        after: median of this run.
        worse: the fraction by which it got worse (0.1 = 10 %); negative is an improvement.
        interval: of `worse`; the whole family of figures is within theirs with 95 %.
        judged: whether there are repetitions enough. Sizes need one, times `LEAST_REPETITIONS`.
    """

    name: str
    unit: Unit
    before: float
    after: float
    worse: float
    interval: Interval
    judged: bool

    def verdict(self, tolerance: float) -> str:
        """One word on it. `tolerance`: the fraction that `worse` may be."""
        if not self.judged:
            return "too few repetitions"
        if self.interval[0] > tolerance:
            return REGRESSED
        if self.interval[1] < 0:
            return "better"
        return "not clear" if self.worse > tolerance else ""


class Baseline:
    """A record to compare with, and by how much a median may be worse."""

    def __init__(self, path: str | Path, fail_over: str) -> None:
        """Read the record.

        Args:
            path: of a record, or of a file of them.
            fail_over: a percentage like "10%" or "10".

        Raises:
            ParameterError: the file holds no record, or `fail_over` is no percentage.
        """
        self.path = path
        self._records = read_records(path)
        try:
            self.tolerance = float(fail_over.removesuffix("%")) / 100
        except ValueError:
            self.tolerance = -1
        if not 0 <= self.tolerance < 100:
            raise ParameterError(f"fail-over is {fail_over!r}, but must be a percentage like 10%")

    def record_for(self, record: Record) -> dict[str, Any]:
        """The file's last record of the same machine, bundle and options; else its last one."""
        same = [each for each in self._records if _same_series(each, record)]
        return (same or self._records)[-1]

    def changes(self, record: Record) -> list[Change]:
        """Figures that both records have and that may fail a comparison, worst first."""
        then = self.record_for(record)["figures"]
        pairs = {
            name: (now, then[name])
            for name, now in record["figures"].items()
            if now["gate"] and name in then and _comparable(now, then[name])
        }
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))  # Bonferroni
        changes = [_change(name, now, old, confidence) for name, (now, old) in pairs.items()]
        return sorted(changes, key=lambda change: -change.worse)

    def table(self, record: Record) -> str:
        """Every change, and what makes the two records hard to compare."""
        rows = [("median", "baseline", "now", "worse by", "interval", "")]
        changes = self.changes(record)
        refused = any(self._reasons(record, changes))
        rows += [
            (
                c.name,
                number(c.before, c.unit),
                number(c.after, c.unit),
                f"{c.worse:+.1%}",
                f"{c.interval[0]:+.1%} to {c.interval[1]:+.1%}" if c.judged else "-",
                c.verdict(self.tolerance).replace(
                    REGRESSED, "no verdict" if refused else REGRESSED
                ),
            )
            for c in changes
        ]
        return "\n".join([table(rows, left=(0, 5)), *self._notes(record)])

    def check(self, record: Record) -> None:
        """Fail if a median is worse than tolerated.

        Raises:
            RegressionError: it is, and these are the figures.
            NoVerdictError: it cannot be told, and why.
            ParameterError: the two records have no figure in common.
        """
        changes = self.changes(record)
        if not changes:
            raise ParameterError(
                f"{self.path} has no figure in common with this run; make it with the same options"
            )
        worse = [c.name for c in changes if c.verdict(self.tolerance) == REGRESSED]
        reasons = [*self._reasons(record, changes), *self._slower(record, worse)]
        if reasons:
            raise NoVerdictError(
                f"no verdict: {'; '.join(reasons)}; measure both again on a quiet machine"
            )
        if worse:
            raise RegressionError(
                f"{len(worse)} of {len(changes)} medians are worse than in {self.path} by over "
                f"{100 * self.tolerance:g} %: {', '.join(worse)}"
            )

    def _reasons(self, record: Record, changes: Sequence[Change]) -> Iterator[str]:
        """Why nothing can be said of the two records."""
        before = self.record_for(record)
        for title, each in (("this run", record), ("the baseline", before)):
            if each.get("interrupted"):
                yield f"{title} was interrupted at its {each['interrupted']}"
            for reason in busy_reasons(each.get("contention")):
                yield f"{title}: {reason}"
        if not any(c.judged and c.unit != "bytes" for c in changes):
            yield f"no time has {LEAST_REPETITIONS} repetitions in both; give -r 5"

    def _slower(self, record: Record, worse: Sequence[str]) -> Iterator[str]:
        """Whether what seems to be a regression may be the machine's."""
        slower = pace_ratio(record.get("contention"), self.record_for(record).get("contention"))
        if worse and slower is not None and slower > SLOWER_MACHINE:
            yield (
                f"a fixed piece of work took {slower - 1:.0%} longer than at the baseline, so the "
                f"machine is slower, which may be why {', '.join(worse)} are"
            )

    def _notes(self, record: Record) -> Iterator[str]:
        before = self.record_for(record)
        then, now = _machines(before, record)
        if then != now:
            yield f"not the same machine: the baseline has {then}, this run {now}"
        for path in IDENTITY:
            then, now = _at(before, path), _at(record, path)
            if then != now:
                yield (
                    f"not the same {' '.join(path)}: the baseline has {then!r}, this run {now!r}"
                )
        if before["schema"] != SCHEMA_VERSION:
            yield (
                f"the baseline is an old record (schema {before['schema']}): it does not tell how "
                "busy its machine was, and its warm-up was fixed"
            )
        elif before["contention"]["others"] is None or record["contention"]["others"] is None:
            yield "this system does not tell how busy it was"


def read_record(path: str | Path) -> dict[str, Any]:
    """A record that `--json` printed, or the last one of a file that `--append` wrote.

    Raises:
        ParameterError: see `read_records`.
    """
    return read_records(path)[-1]


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Records that `--json` printed or `--append` wrote, oldest first; at least one.

    Lines that hold something else, such as records of other benchmarks, are passed over.

    Raises:
        ParameterError: the file cannot be read or holds no record of this schema.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"{path}: cannot be read ({reason})") from None
    for candidates in ((text,), text.splitlines()):
        records = [record for each in candidates for record in _records_in(each)]
        if records:
            return records
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


def _records_in(text: str) -> Iterator[dict[str, Any]]:
    """Of one record, or of a list of them."""
    with suppress(ValueError):
        parsed = json.loads(text)
        for record in parsed if isinstance(parsed, list) else [parsed]:
            known = isinstance(record, dict) and "kind" not in record
            if known and record.get("schema") in (SCHEMA_VERSION, *OLDER_SCHEMAS):
                yield record


def _comparable(now: Record, before: Record) -> bool:
    return bool(now["unit"] == before["unit"] and min(before["samples"], default=0) > 0)


def _change(name: str, now: Record, before: Record, confidence: float) -> Change:
    low, high = ratio_interval(now["samples"], before["samples"], confidence)
    ratio = now["p50"] / before["p50"]
    better_high = now["better"] == "higher"
    fewest = min(len(now["samples"]), len(before["samples"]))
    return Change(
        name=name,
        unit=now["unit"],
        before=before["p50"],
        after=now["p50"],
        worse=1 - ratio if better_high else ratio - 1,
        interval=(1 - high, 1 - low) if better_high else (low - 1, high - 1),
        judged=now["unit"] == "bytes" or fewest >= LEAST_REPETITIONS,
    )


def _machines(one: Record, other: Record) -> tuple[str, str]:
    """Their classes, by what both tell: an old record does not tell the processor's model."""
    machines = [one["machine"], other["machine"]]
    if not all(machine.get("cpu") for machine in machines):
        machines = [{k: v for k, v in machine.items() if k != "cpu"} for machine in machines]
    first, second = (
        machine_class(machine, _at(record, DEVICE))
        for machine, record in zip(machines, (one, other), strict=True)
    )
    return first, second


def _same_series(one: Record, other: Record) -> bool:
    first, second = _machines(one, other)
    return first == second and all(_at(one, path) == _at(other, path) for path in SERIES)


def _at(record: Any, path: Sequence[str]) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
