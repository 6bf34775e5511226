"""The accuracy gate: a fixed, seeded held-out set of simulated pages, four tasks and refusals, scored from text.

    pulse-edge eval BUNDLE [BUNDLE ...] --pages 1000

The pages are drawn by `pulse_edge.ecg.drawing.draw_page` at 200 dpi, with other seeds and other noise than in training.
Several bundles are shown side by side, with the difference to the first. Scoring knows nothing of the runtime: it takes
any function from an image and a question to a text. Simulated data only: no score says anything about patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.simulation.cases import TOPICS, Case
from pulse_edge.simulation.questions import (
    LABELS,
    NO_ECG,
    NORMAL,
    Findings,
    find,
    number,
    parse_report,
)
from pulse_edge.simulation.simulator import CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES

RATE_BPM, INTERVAL_MS = 5, 20  # tolerances
NONE = frozenset({"no conduction abnormality"})
MAX_TOKENS = 160  # the longest report has about 90

Ask = Callable[[Image.Image, str], str]


# ---- scoring -----------------------------------------------------------------------------------------------


def named(text: str, names: tuple[str, ...]) -> frozenset[str]:
    """All of the names that occur in a text."""
    low = text.lower()
    return frozenset(name for name in names if name.lower() in low)


def finding(text: str, absent: str, names: tuple[str, ...]) -> str | None:
    """The name that a text states, "none" when it says so in words, None for neither: silence is not an answer."""
    return find(text, names) or ("none" if absent.lower() in text.lower() else None)


def report_right(text: str, truth: Findings) -> bool:
    """Every statement right: words exactly, rate within 5 bpm, PR and QRS within 20 ms."""
    said = parse_report(text)
    if said is None or abs(said.rate - truth.rate) > RATE_BPM or abs(said.qrs - truth.qrs) > INTERVAL_MS:
        return False
    if (said.pr is None) != (truth.pr is None) or (said.pr and truth.pr and abs(said.pr - truth.pr) > INTERVAL_MS):
        return False
    return replace(said, rate=truth.rate, pr=truth.pr, qrs=truth.qrs) == truth


@dataclass
class Scores:
    """Answers collected case by case; every list has one entry per case that has an ECG, `refused_*` per image."""

    rhythm: list[tuple[str, str | None]] = field(default_factory=list)
    conduction: list[tuple[frozenset[str], frozenset[str]]] = field(default_factory=list)
    ectopy: list[tuple[str, str | None]] = field(default_factory=list)
    st: list[tuple[str, str | None]] = field(default_factory=list)
    rate: list[tuple[int, int | None]] = field(default_factory=list)
    choice: list[float] = field(default_factory=list)
    detection: list[tuple[frozenset[str], frozenset[str]]] = field(default_factory=list)
    report: list[bool] = field(default_factory=list)
    refused_ecg: list[bool] = field(default_factory=list)
    refused_empty: list[bool] = field(default_factory=list)

    def add(self, case: Case, texts: list[str]) -> None:
        """Score one case's answers, in the order of its items."""
        by_topic = {(item.task, item.key): text for item, text in zip(case.items, texts, strict=True)}
        refused = [NO_ECG.lower().rstrip(".") in text.lower() for text in texts]
        if case.truth is None:
            self.refused_empty.append(bool(np.mean(refused) > 0.5))
            return
        truth = case.truth
        said = {topic: by_topic[("question", topic)] for topic in TOPICS}
        self.refused_ecg.append(bool(np.mean(refused) > 0.5))
        self.rhythm.append((truth.rhythm, find(said["rhythm"], RHYTHMS)))
        self.conduction.append((frozenset(truth.conduction) or NONE, named(said["conduction"], (*CONDUCTION, *NONE))))
        self.ectopy.append((truth.ectopy, finding(said["ectopy"], "no ectopic beats", ECTOPY[1:])))
        self.st.append((truth.st, finding(said["st"], "no ST change", ST_CHANGES[1:])))
        self.rate.append((truth.rate, number(said["rate"], "bpm")))
        pairs = list(zip(case.items, texts, strict=True))
        self.choice.append(float(np.mean([t.strip()[:1] == i.key for i, t in pairs if i.task == "choice"])))
        self.detection += [
            (frozenset(truth.labels or (NORMAL,)), named(t, (*LABELS, NORMAL)))
            for i, t in pairs
            if i.task == "detection"
        ]
        self.report += [report_right(t, truth) for i, t in pairs if i.task == "report"]


def balanced(pairs: list[tuple[Any, Any]]) -> float:
    """Mean recall over the classes that occur."""
    hits: dict[Any, list[bool]] = {}
    for truth, said in pairs:
        hits.setdefault(truth, []).append(truth == said)
    return float(np.mean([np.mean(h) for h in hits.values()])) if hits else float("nan")


def set_recall(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> float:
    """Mean recall over labels."""
    hits: dict[str, list[bool]] = {}
    for truth, said in pairs:
        for label in truth:
            hits.setdefault(label, []).append(label in said)
    return float(np.mean([np.mean(h) for h in hits.values()])) if hits else float("nan")


def macro_f1(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> float:
    """Mean F1 over the labels that occur."""
    scores = []
    for label in {name for truth, _ in pairs for name in truth}:
        both = sum(label in t and label in s for t, s in pairs)
        scores.append(2 * both / sum((label in t) + (label in s) for t, s in pairs))
    return float(np.mean(scores)) if scores else float("nan")


def first_degree(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> float:
    return set_recall([(t & {CONDUCTION[0]}, s) for t, s in pairs if CONDUCTION[0] in t])


def within(pairs: list[tuple[int, int | None]]) -> float:
    good = [said is not None and abs(said - truth) <= RATE_BPM for truth, said in pairs]
    return float(np.mean(good)) if good else float("nan")


def share(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


# name -> (field of Scores, figure made of it, counts for the mean of the tasks)
METRICS: dict[str, tuple[str, Callable[[list[Any]], float], bool]] = {
    "rhythm, macro recall": ("rhythm", balanced, True),
    "conduction, macro recall": ("conduction", set_recall, True),
    "first-degree AV block, recall": ("conduction", first_degree, False),
    "ectopy, accuracy": ("ectopy", lambda pairs: share([t == s for t, s in pairs]), True),
    "ST change, balanced accuracy": ("st", balanced, True),
    "heart rate within 5 bpm": ("rate", within, True),
    "multiple choice, accuracy": ("choice", share, True),
    "detection, macro F1": ("detection", macro_f1, True),
    "report, every statement right": ("report", share, True),
    "no ECG: says so": ("refused_empty", share, False),
    "ECG: wrongly refused": ("refused_ecg", share, False),
}


def summary(scores: Scores, draws: int = 300, seed: int = 0) -> dict[str, dict[str, float]]:
    """Metric -> value, low, high: the 95 % bootstrap interval over pages. "mean of the tasks" has a value only."""
    out: dict[str, dict[str, float]] = {}
    for name, (source, figure, _) in METRICS.items():
        values = getattr(scores, source)
        rng = np.random.default_rng(seed)
        tries: NDArray[np.float64] = np.array(
            [
                figure([values[i] for i in rng.integers(0, len(values), len(values))])
                for _ in range(draws if values else 0)
            ]
        )
        low, high = np.nanpercentile(tries, [2.5, 97.5]) if np.isfinite(tries).any() else (float("nan"),) * 2
        out[name] = {"value": figure(values), "low": float(low), "high": float(high)}
    mean = share([out[name]["value"] for name, (_, _, counts) in METRICS.items() if counts])
    out["mean of the tasks"] = {"value": mean}
    return out


def confusion(pairs: list[tuple[str, str | None]], names: tuple[str, ...]) -> NDArray[np.int64]:
    """(truth, said) counts; the last column is anything else."""
    table = np.zeros((len(names), len(names) + 1), np.int64)
    for truth, said in pairs:
        table[names.index(truth), names.index(said) if said in names else len(names)] += 1
    return table


def label_table(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> dict[str, dict[str, int]]:
    """Counts per label of findings that can occur together: present, found, and stated where absent."""
    return {
        label: {
            "present": sum(label in truth for truth, _ in pairs),
            "found": sum(label in truth and label in said for truth, said in pairs),
            "false": sum(label not in truth and label in said for truth, said in pairs),
        }
        for label in sorted({name for pair in pairs for names in pair for name in names})
    }


def confusions(scores: Scores) -> dict[str, Any]:
    """For the model card: what was said for what was true."""
    return {
        "rhythm": confusion(scores.rhythm, RHYTHMS).tolist(),
        "ectopy": confusion(scores.ectopy, ECTOPY).tolist(),
        "st": confusion(scores.st, ST_CHANGES).tolist(),
        "conduction": label_table(scores.conduction),
        "detection": label_table(scores.detection),
    }


def evaluate(ask_model: Ask, cases: Iterable[Case]) -> Scores:
    """Ask every question of every case, page by page, so that a runtime can keep the page it has read."""
    scores = Scores()
    for case in cases:
        scores.add(case, [ask_model(case.image, item.question) for item in case.items])
    return scores


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown, a column per bundle, with the difference to the first in points."""
    first = next(iter(results.values()))
    lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for name in [*METRICS, "mean of the tasks"]:
        cells = []
        for result in results.values():
            cell = result[name]
            text = f"{cell['value']:.3f}" + (f" ({cell['low']:.3f}-{cell['high']:.3f})" if "low" in cell else "")
            if result is not first:
                text += f" {100 * (cell['value'] - first[name]['value']):+.1f}"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report_on(names: list[str], scores: list[Scores], pages: int, seed: int) -> dict[str, Any]:
    """What `pulse-edge eval --json` prints."""
    return {
        "pages": pages,
        "seed": seed,
        "notice": "simulated pages only; " + NOTICE,
        "scores": {name: summary(each) for name, each in zip(names, scores, strict=True)},
        "confusion": {name: confusions(each) for name, each in zip(names, scores, strict=True)},
        "classes": {"rhythm": RHYTHMS, "ectopy": ECTOPY, "st": ST_CHANGES},
    }
