"""Accuracy of the embedded model's panel on held-out simulated pages.

    python -m benchmarks.panels [--pages 200] [--threads 2]

Simulated pages only: no figure says anything about patients, or about PULSE.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pulse_edge
from pulse_edge.panels.result import Result
from pulse_edge.simulation.cases import heldout
from pulse_edge.simulation.questions import Findings

PANEL = "pulse-nano"
RATE_TOLERANCE = 5  # bpm
INTERVAL_TOLERANCE = 20  # ms
# Question of the panel -> the option that is true of a page.
TRUTHS: dict[str, Callable[[Findings], str]] = {
    "overall": lambda truth: "abnormal" if truth.labels else "normal",
    "rhythm": lambda truth: truth.rhythm,
    "conduction": lambda truth: " and ".join(truth.conduction) or "no conduction abnormality",
    "ectopy": lambda truth: "no ectopic beats" if truth.ectopy == "none" else truth.ectopy,
    "st-segment": lambda truth: "no ST change" if truth.st == "none" else truth.st,
    "hypertrophy": lambda truth: (
        "left ventricular hypertrophy" if truth.lvh else "no left ventricular hypertrophy"
    ),
}


@dataclass
class PanelScores:
    """Counts over pages, by question."""

    pages: int = 0
    empty: int = 0
    refused: int = 0  # of the questions about images without an ECG
    wrongly_refused: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    likeliest: Counter[str] = field(default_factory=Counter)  # the best score is the truth
    measured: Counter[str] = field(default_factory=Counter)
    measured_right: Counter[str] = field(default_factory=Counter)

    def add(self, truth: Findings | None, result: Result) -> None:
        """Compare a page's result with its truth; None: the image shows no ECG."""
        if truth is None:
            self.empty += 1
            self.refused += sum(each.refused for each in result.questions)
            return
        self.pages += 1
        for question in result.questions:
            self.wrongly_refused += question.refused
            if question.id not in TRUTHS:
                continue
            expected = TRUTHS[question.id](truth)
            self.answered[question.id] += question.parsed
            self.right[question.id] += question.answer == expected
            scores = question.scores
            if scores is not None:
                best = max(scores, key=lambda option: scores[option].logprob)
                self.likeliest[question.id] += best == expected
        self._add_measurements(truth, result)

    def _add_measurements(self, truth: Findings, result: Result) -> None:
        true = {"heart rate": truth.rate, "PR interval": truth.pr, "QRS duration": truth.qrs}
        for each in result.measurements:
            if each.question == "report" and each.name in true:
                expected = true[each.name]
                tolerance = RATE_TOLERANCE if each.unit == "/min" else INTERVAL_TOLERANCE
                near = each.value is not None and expected is not None
                self.measured[each.name] += 1
                self.measured_right[each.name] += (
                    near and abs((each.value or 0) - (expected or 0)) <= tolerance
                )


def score_panel(model: pulse_edge.Model, pages: int) -> PanelScores:
    """Ask the panel about held-out pages, and about 5 % as many images without an ECG."""
    scores = PanelScores()
    for case in heldout(pages):
        scores.add(case.truth, model.panel(case.image, PANEL))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    scores = score_panel(pulse_edge.load(threads=arguments.threads), arguments.pages)
    print("| question | answered | right | likeliest option right |")
    print("| --- | --- | --- | --- |")
    for name in TRUTHS:
        counts = (scores.answered[name], scores.right[name], scores.likeliest[name])
        print(f"| {name} | " + " | ".join(f"{n / scores.pages:.3f}" for n in counts) + " |")
    for name, count in scores.measured.items():
        share = scores.measured_right[name] / count
        print(f"{name}: stated on {count} of {scores.pages} pages, right on {share:.3f}")
    print(f"images without an ECG: {scores.empty}; {scores.refused} answers refuse")
    print(f"pages with an ECG: {scores.pages}; {scores.wrongly_refused} answers refuse")


if __name__ == "__main__":
    main()
