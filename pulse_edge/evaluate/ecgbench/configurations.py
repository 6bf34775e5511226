"""The table of ECGBench's configurations: how each is scored, and what the paper reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["labels", "choice", "qa", "report", "arena"]


@dataclass(frozen=True)
class BenchConfig:
    """How the answers of a configuration are scored.

    Attributes:
        kind: labels: codes that can occur together. choice: a letter. qa: options of the prompt.
        space: codes that are searched for in an answer, in the authors' order.
        whole: golds that are a label only if they are the whole gold (CODE-15 alone).
        letters: among which the authors' scorers guess.
        first_letter: whether the gold letter is the first character of the gold.
        paper: PULSE-7B's published figures, as fractions.
        random: the figures that the paper gives for random answers, as fractions.
    """

    kind: Kind
    space: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    letters: str = ""
    first_letter: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)
    random: Mapping[str, float] = field(default_factory=dict)


def _labels(auc: float, f1: float, hamming_loss: float) -> dict[str, float]:
    return {"auc": auc, "f1": f1, "hamming_loss": hamming_loss}


CONFIGURATIONS: Mapping[str, BenchConfig] = {
    "ptb-test": BenchConfig(
        "labels",
        ("NORM", "MI", "STTC", "CD", "HYP"),
        paper=_labels(0.824, 0.748, 0.110),
        random=_labels(0.503, 0.332, 0.501),
    ),
    "ptb-test-report": BenchConfig("report", paper={"judge": 0.613}),
    "code15-test": BenchConfig(
        "labels",
        ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
        whole=("NORM", "ABNORMAL"),
        paper=_labels(0.907, 0.854, 0.050),
        random=_labels(0.488, 0.150, 0.321),
    ),
    "ecgqa-test": BenchConfig("qa", paper={"accuracy": 0.738}, random={"accuracy": 0.162}),
    "cpsc-test": BenchConfig(
        "labels",
        ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
        paper=_labels(0.769, 0.576, 0.086),
        random=_labels(0.512, 0.151, 0.288),
    ),
    "csn-test-no-cot": BenchConfig(
        "choice",
        letters="ABCDEFGH",
        first_letter=True,
        paper={"accuracy": 0.852},
        random={"accuracy": 0.116},
    ),
    "g12-test-no-cot": BenchConfig(
        "choice",
        letters="ABCDEFGH",
        first_letter=True,
        paper={"accuracy": 0.782},
        random={"accuracy": 0.121},
    ),
    "mmmu-ecg": BenchConfig(
        "choice", letters="ABCD", paper={"accuracy": 0.580}, random={"accuracy": 0.242}
    ),
    "arena": BenchConfig("arena", paper={"judge": 0.389}),
}
