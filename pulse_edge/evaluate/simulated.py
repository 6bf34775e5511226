"""The accuracy gate: a fixed held-out set of simulated pages.

The set is seeded, and answers are scored from their text.

    pulse-edge eval BUNDLE [BUNDLE ...] --pages 1000

The pages are drawn by `pulse_edge.ecg.drawing.draw_page` at 200 dpi, with other seeds and other
noise than in training. Simulated data only: no score says anything about patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.evaluate.scoring import (
    MEAN,
    Labels,
    balanced,
    bootstrap,
    confusion,
    finding,
    label_table,
    macro_f1,
    named,
    set_recall,
    share,
)
from pulse_edge.evaluate.task import Ask
from pulse_edge.simulation.cases import SEED, TOPICS, Case, heldout_case, heldout_indices
from pulse_edge.simulation.ecg import CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES
from pulse_edge.simulation.questions import (
    LABELS,
    NO_ECG,
    NORMAL,
    Findings,
    Item,
    find,
    number_before,
    parse_report,
)

RATE_BPM = 5  # tolerance of a heart rate
INTERVAL_MS = 20  # tolerance of PR and QRS
NONE = frozenset({"no conduction abnormality"})


class Reply(NamedTuple):
    """What models said about one case: its truth (None: no ECG), its questions, and the answers of
    each model in their order."""

    truth: Findings | None
    items: tuple[Item, ...]
    texts: list[list[str]]


def report_right(text: str, truth: Findings) -> bool:
    """Every statement right: words exactly, rate within 5 bpm, PR and QRS within 20 ms."""
    stated = parse_report(text)
    if stated is None or abs(stated.rate - truth.rate) > RATE_BPM:
        return False
    if abs(stated.qrs - truth.qrs) > INTERVAL_MS or (stated.pr is None) != (truth.pr is None):
        return False
    if stated.pr and truth.pr and abs(stated.pr - truth.pr) > INTERVAL_MS:
        return False
    return replace(stated, rate=truth.rate, pr=truth.pr, qrs=truth.qrs) == truth


@dataclass
class Scores:
    """Answers of one model as pairs (truth, answer), or as whether an answer was right.

    A list has one entry for each case that has an ECG. `detection` and `report` have one for each
    such question, `refused_empty` one for each image without an ECG.
    """

    rhythm: list[tuple[str, str | None]] = field(default_factory=list)
    conduction: list[tuple[Labels, Labels]] = field(default_factory=list)
    ectopy: list[tuple[str, str | None]] = field(default_factory=list)
    st: list[tuple[str, str | None]] = field(default_factory=list)
    rate: list[tuple[int, int | None]] = field(default_factory=list)
    choice: list[float] = field(default_factory=list)
    detection: list[tuple[Labels, Labels]] = field(default_factory=list)
    report: list[bool] = field(default_factory=list)
    refused_ecg: list[bool] = field(default_factory=list)
    refused_empty: list[bool] = field(default_factory=list)

    def add(self, truth: Findings | None, items: Sequence[Item], texts: Sequence[str]) -> None:
        """Score the answers to one case.

        Args:
            truth: what the page shows; None: the image has no ECG.
            items: the questions.
            texts: the answers, in their order.
        """
        pairs = list(zip(items, texts, strict=True))
        refusals = [NO_ECG.lower().rstrip(".") in text.lower() for text in texts]
        refused = bool(np.mean(refusals) > 0.5)
        if truth is None:
            self.refused_empty.append(refused)
            return
        self.refused_ecg.append(refused)
        by_topic = {item.key: text for item, text in pairs if item.task == "question"}
        texts_of = {topic: by_topic[topic] for topic in TOPICS}
        self.rhythm.append((truth.rhythm, find(texts_of["rhythm"], RHYTHMS)))
        conduction = named(texts_of["conduction"], (*CONDUCTION, *NONE))
        self.conduction.append((frozenset(truth.conduction) or NONE, conduction))
        ectopy = finding(texts_of["ectopy"], "no ectopic beats", ECTOPY[1:])
        self.ectopy.append((truth.ectopy, ectopy))
        self.st.append((truth.st, finding(texts_of["st"], "no ST change", ST_CHANGES[1:])))
        self.rate.append((truth.rate, number_before(texts_of["rate"], "bpm")))
        choices = [text.strip()[:1] == item.key for item, text in pairs if item.task == "choice"]
        self.choice.append(float(np.mean(choices)))
        labels = frozenset(truth.labels or (NORMAL,))
        for item, text in pairs:
            if item.task == "detection":
                self.detection.append((labels, named(text, (*LABELS, NORMAL))))
            elif item.task == "report":
                self.report.append(report_right(text, truth))


@dataclass(frozen=True)
class SimulatedPages:
    """The task: `pages` held-out pages of a set, and 5 % as many images without an ECG."""

    pages: int
    seed: int = SEED
    max_new_tokens: int = 160  # the longest report has about 90

    def cases(self) -> Sequence[int]:
        """See `Task.cases`."""
        return heldout_indices(self.pages)

    def ask(self, case: int, models: Sequence[Ask]) -> Reply:
        """See `Task.ask`."""
        return ask_case(heldout_case(case, self.seed), models)

    def score(self, replies: Iterable[Reply]) -> list[Scores]:
        """See `Task.score`."""
        return score_replies(replies)

    def report(self, names: Sequence[str], scores: list[Scores]) -> dict[str, Any]:
        """See `Task.report`: by bundle its figures, and its confusions."""
        by_name = dict(zip(names, scores, strict=True))
        return {
            "pages": self.pages,
            "seed": self.seed,
            "notice": "simulated pages only; " + NOTICE,
            "scores": {name: summary(each) for name, each in by_name.items()},
            "confusion": {name: score_confusions(each) for name, each in by_name.items()},
            "classes": {"rhythm": RHYTHMS, "ectopy": ECTOPY, "st": ST_CHANGES},
        }

    def table(self, report: dict[str, Any]) -> str:
        """See `Task.table`: Markdown, with differences to the first bundle in points."""
        return score_table(report["scores"])


def ask_case(case: Case, models: Sequence[Ask]) -> Reply:
    """Ask every model all questions of a case."""
    texts = [[ask(case.image, item.question) for item in case.items] for ask in models]
    return Reply(case.truth, case.items, texts)


def score_replies(replies: Iterable[Reply]) -> list[Scores]:
    """The scores of each model, in the order in which they were asked."""
    scores: list[Scores] = []
    for reply in replies:
        scores = scores or [Scores() for _ in reply.texts]
        for each, texts in zip(scores, reply.texts, strict=True):
            each.add(reply.truth, reply.items, texts)
    return scores


def first_degree(pairs: list[tuple[Labels, Labels]]) -> float:
    """Recall of first-degree AV block alone, which is a measurement more than a pattern."""
    block = CONDUCTION[0]
    return set_recall([(truth & {block}, answer) for truth, answer in pairs if block in truth])


def equal(pairs: list[tuple[str, str | None]]) -> float:
    """Share of answers that are the truth."""
    return share([truth == answer for truth, answer in pairs])


def within(pairs: list[tuple[int, int | None]]) -> float:
    """Share of heart rates within `RATE_BPM`."""
    return share(
        [answer is not None and abs(answer - truth) <= RATE_BPM for truth, answer in pairs]
    )


# name -> (field of Scores, figure made of it, counts for the mean of the tasks)
METRICS: dict[str, tuple[str, Callable[[list[Any]], float], bool]] = {
    "rhythm, macro recall": ("rhythm", balanced, True),
    "conduction, macro recall": ("conduction", set_recall, True),
    "first-degree AV block, recall": ("conduction", first_degree, False),
    "ectopy, accuracy": ("ectopy", equal, True),
    "ST change, balanced accuracy": ("st", balanced, True),
    "heart rate within 5 bpm": ("rate", within, True),
    "multiple choice, accuracy": ("choice", share, True),
    "detection, macro F1": ("detection", macro_f1, True),
    "report, every statement right": ("report", share, True),
    "no ECG: says so": ("refused_empty", share, False),
    "ECG: wrongly refused": ("refused_ecg", share, False),
}


def summary(scores: Scores, draws: int = 300, seed: int = 0) -> dict[str, dict[str, float]]:
    """Every metric, and the mean of the tasks.

    Args:
        scores: of one model.
        draws: of the bootstrap over pages.
        seed: of those draws.

    Returns:
        By metric: its value, and low and high of its 95 % interval. The mean has a value only.
    """
    out: dict[str, dict[str, float]] = {}
    for name, (source, figure, _) in METRICS.items():
        values = getattr(scores, source)
        low, high = bootstrap(figure, values, draws, seed)
        out[name] = {"value": figure(values), "low": low, "high": high}
    counted = [out[name]["value"] for name, (_, _, counts) in METRICS.items() if counts]
    out[MEAN] = {"value": share(counted)}
    return out


def score_confusions(scores: Scores) -> dict[str, Any]:
    """For the model card: how often each answer was given for each truth."""
    return {
        "rhythm": confusion(scores.rhythm, RHYTHMS).tolist(),
        "ectopy": confusion(scores.ectopy, ECTOPY).tolist(),
        "st": confusion(scores.st, ST_CHANGES).tolist(),
        "conduction": label_table(scores.conduction),
        "detection": label_table(scores.detection),
    }


def score_table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown, a column per bundle, with the difference to the first in points."""
    first = next(iter(results.values()))
    lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
    for name in [*METRICS, MEAN]:
        cells = []
        for result in results.values():
            cell = result[name]
            text = f"{cell['value']:.3f}"
            if "low" in cell:
                text += f" ({cell['low']:.3f}-{cell['high']:.3f})"
            if result is not first:
                text += f" {100 * (cell['value'] - first[name]['value']):+.1f}"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
