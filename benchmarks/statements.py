"""The statement parser on generated reports with known truth.

    python -m benchmarks.statements [--reports 2000] [--seed 0] [--errors 10]

Half of the reports are in pulse-nano's words, half in the manner of PULSE and of PTB-XL
(`benchmarks.reports`). Precision is the share of right ones among what the parser asserts (stated
or negated); recall is the share of the truth's assertions that it finds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.reports import TrueReport, free_report, nano_report
from pulse_edge.panels.measurements import report_measurements
from pulse_edge.panels.statements import parse_statements, unstated

STYLES: dict[str, Callable[[np.random.Generator], TrueReport]] = {
    "nano": nano_report,
    "free": free_report,
}
ASSERTED = ("stated", "negated")


@dataclass
class StatementScores:
    """Counts over reports. `errors` holds (report, finding, truth, parsed) of wrong assertions."""

    reports: int = 0
    asserted: int = 0
    right: int = 0
    true: int = 0
    hedged: int = 0
    hedged_kept: int = 0
    conflicts: int = 0
    conflicts_found: int = 0
    false_conflicts: int = 0
    values_read: int = 0
    values_right: int = 0
    values_true: int = 0
    errors: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Of what is asserted."""
        return self.right / self.asserted if self.asserted else 1.0

    @property
    def recall(self) -> float:
        """Of the assertions of the truth."""
        return self.right / self.true if self.true else 1.0

    def add(self, report: TrueReport) -> None:
        """Parse a report and compare."""
        self.reports += 1
        stated = parse_statements(report.text)
        for statement in (*stated, *unstated(stated)):
            truth = report.statuses.get(statement.finding, "not stated")
            parsed = statement.status
            self.true += truth in ASSERTED
            self.asserted += parsed in ASSERTED
            self.hedged += truth == "uncertain"
            self.hedged_kept += truth == "uncertain" and parsed not in ASSERTED
            self.conflicts += truth == "conflict"
            self.conflicts_found += truth == parsed == "conflict"
            self.false_conflicts += parsed == "conflict" != truth
            if parsed in ASSERTED:
                self.right += truth == parsed
                if truth != parsed:
                    self.errors.append((report.text, statement.finding, truth, parsed))
        read = {each.name: each.value for each in report_measurements(report.text, "report")}
        self.values_read += len(read)
        self.values_true += len(report.values)
        self.values_right += sum(read.get(name) == value for name, value in report.values.items())


def score_style(style: str, reports: int, seed: int = 0) -> StatementScores:
    """Scores over generated reports.

    Args:
        style: a key of `STYLES`.
        reports: how many.
        seed: of all of them.
    """
    scores = StatementScores()
    for index in range(reports):
        scores.add(STYLES[style](np.random.default_rng([seed, index])))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", type=int, default=0, help="wrong assertions to print")
    arguments = parser.parse_args()
    print(
        "| style | reports | assertions | precision | recall | hedges not asserted | conflicts "
        "found (false) | values: precision | recall |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for style in STYLES:
        s = score_style(style, arguments.reports // len(STYLES), arguments.seed)
        print(
            f"| {style} | {s.reports:,} | {s.asserted:,} | {s.precision:.4f} | {s.recall:.4f} "
            f"| {s.hedged_kept} of {s.hedged} | {s.conflicts_found} of {s.conflicts} "
            f"({s.false_conflicts}) | {s.values_right / max(1, s.values_read):.4f} "
            f"| {s.values_right / max(1, s.values_true):.4f} |"
        )
        for error in s.errors[: arguments.errors]:
            print("   ", *error, sep="\n      ")


if __name__ == "__main__":
    main()
