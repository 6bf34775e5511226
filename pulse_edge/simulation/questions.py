"""Questions and answers about a simulated page.

They are in the style of ECGInstruct and of ECGBench's four tasks. `Findings` is what a page truly
shows; every answer is made from it, and `parse_report` reads it back out of text. Abnormality
detection answers with labels from a list, multiple choice with a letter, question answering with a
sentence, and the report is a fixed sequence of statements. A page that cannot be read gets `NO_ECG`
for every question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION
from pulse_edge.simulation.ecg import AXES, CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES

NO_ECG = "No ECG can be read from this image."
CANNOT = "An ECG cannot show that."

LABELS = (*RHYTHMS[1:], *CONDUCTION, *ECTOPY[1:], *ST_CHANGES[1:], "left ventricular hypertrophy")
NORMAL = "normal ECG"


@dataclass(frozen=True)
class Findings:
    """The truth about a page, in the words and roundings of the answers.

    `rate` in bpm; `pr` and `qrs` in ms, rounded to 10 ms. `pr` None: not measurable.
    """

    rate: int
    rhythm: str
    pr: int | None
    qrs: int
    conduction: tuple[str, ...]
    ectopy: str
    st: str
    lvh: bool
    axis: str

    @classmethod
    def of(cls, labels: dict[str, Any]) -> Findings:
        """From the labels of a simulated page: a simulator's `EcgSpec` as a dict, and its axis."""
        pr = labels["pr_ms"]
        return cls(
            rate=round(labels["rate_bpm"]),
            rhythm=labels["rhythm"],
            pr=None if pr is None else 10 * round(pr / 10),
            qrs=10 * round(labels["qrs_ms"] / 10),
            conduction=tuple(name for name in CONDUCTION if name in labels["conduction"]),
            ectopy=labels["ectopy"],
            st=labels["st"],
            lvh=bool(labels["lvh"]),
            axis=labels["axis"],
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The abnormal ones among `LABELS`, in that order."""
        present = {self.rhythm, *self.conduction, self.ectopy, self.st}
        if self.lvh:
            present.add(LABELS[-1])
        return tuple(label for label in LABELS if label in present)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def report(f: Findings) -> str:
    """Seven or eight statements, always in the same order."""
    lines = [_sentence(f"{f.rhythm} at {f.rate} bpm")]
    lines.append("PR interval not measurable." if f.pr is None else f"PR interval {f.pr} ms.")
    lines.append(f"QRS duration {f.qrs} ms.")
    lines.append(_sentence(f.axis))
    lines.append(
        _sentence(" and ".join(f.conduction) if f.conduction else "no conduction abnormality")
    )
    lines.append(_sentence(f.ectopy if f.ectopy != "none" else "no ectopic beats"))
    lines.append(_sentence(f.st if f.st != "none" else "no ST change"))
    if f.lvh:
        lines.append("Left ventricular hypertrophy.")
    lines.append("Abnormal ECG." if f.labels else "Normal ECG.")
    return " ".join(lines)


def find(text: str, names: tuple[str, ...]) -> str | None:
    """The name that occurs first in the text, whatever its case."""
    low = text.lower()
    places = [(low.find(name.lower()), name) for name in names if name.lower() in low]
    return min(places)[1] if places else None


def number_before(text: str, unit: str) -> int | None:
    """The first whole number before `unit`."""
    match = re.search(rf"(\d+)\s*{unit}", text)
    return int(match[1]) if match else None


def parse_report(text: str) -> Findings | None:
    """What a report states; None when it states no rhythm, rate or QRS duration."""
    rhythm, rate, axis = find(text, RHYTHMS), number_before(text, "bpm"), find(text, AXES)
    qrs = re.search(r"QRS duration (\d+) ms", text)
    if rhythm is None or rate is None or qrs is None or axis is None:
        return None
    pr = re.search(r"PR interval (\d+) ms", text)
    low = text.lower()
    return Findings(
        rate,
        rhythm,
        int(pr[1]) if pr else None,
        int(qrs[1]),
        tuple(name for name in CONDUCTION if name.lower() in low),
        find(text, ECTOPY[1:]) or "none",
        find(text, ST_CHANGES[1:]) or "none",
        "left ventricular hypertrophy" in low,
        axis,
    )


# topic -> wordings; the answer to each topic is made in `answer`.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "rate": (
        RATE_QUESTION,
        "How fast is the heart beating?",
        "What is the ventricular rate in this ECG?",
        "Please give the heart rate in bpm.",
    ),
    "rhythm": (
        "What is the rhythm?",
        "Which rhythm does this ECG show?",
        "Identify the cardiac rhythm.",
        "What is the underlying rhythm?",
    ),
    "pr": ("How long is the PR interval?", "What is the PR interval?", "Measure the PR interval."),
    "qrs": (
        "How long is the QRS complex?",
        "What is the QRS duration?",
        "Measure the QRS duration.",
    ),
    "axis": (
        "What is the electrical axis?",
        "How is the frontal axis?",
        "Is there an axis deviation?",
    ),
    "conduction": (
        "Is there a conduction abnormality?",
        "Is AV or intraventricular conduction disturbed?",
        "Which conduction abnormality, if any, is present?",
    ),
    "ectopy": (
        "Are there ectopic beats?",
        "Does the ECG show any premature beats?",
        "Is there any ectopy?",
    ),
    "st": (
        "Are there ST segment changes?",
        "Is there ST elevation or depression?",
        "Describe the ST segment.",
    ),
    "lvh": (
        "Are there signs of left ventricular hypertrophy?",
        "Is there left ventricular hypertrophy?",
    ),
    "normal": ("Is this ECG normal?", "Is this a normal ECG?"),
}
BEYOND = (
    "What is the patient's blood pressure?",
    "What is the ejection fraction?",
    "How old is the patient?",
    "What is the patient's name?",
    "Does the patient have diabetes?",
    "What is the cholesterol level?",
)


def answer(topic: str, f: Findings) -> str:
    """The sentence that answers a question of `QUESTIONS`. Raises `ValueError` for another
    topic."""
    match topic:
        case "rate":
            return f"The heart rate is {f.rate} bpm."
        case "rhythm":
            return f"The rhythm is {f.rhythm}."
        case "pr":
            return (
                "The PR interval is not measurable."
                if f.pr is None
                else f"The PR interval is {f.pr} ms."
            )
        case "qrs":
            return f"The QRS duration is {f.qrs} ms."
        case "axis":
            return _sentence(f.axis)
        case "conduction":
            return _sentence(
                " and ".join(f.conduction) if f.conduction else "no conduction abnormality"
            )
        case "ectopy":
            return _sentence(f.ectopy if f.ectopy != "none" else "no ectopic beats")
        case "st":
            return _sentence(f.st if f.st != "none" else "no ST change")
        case "lvh":
            return (
                "Yes, left ventricular hypertrophy."
                if f.lvh
                else "No left ventricular hypertrophy."
            )
        case "normal":
            return "No, this is an abnormal ECG." if f.labels else "Yes, this is a normal ECG."
    raise ValueError(f"no topic {topic!r}; expected one of {', '.join(QUESTIONS)}")


@dataclass(frozen=True)
class Item:
    """One question with its answer.

    `task`: detection, choice, question, report or refusal. `key`: a question's topic, or the letter
    of the right choice.
    """

    task: str
    question: str
    answer: str
    key: str = ""


def detection(f: Findings, rng: np.random.Generator) -> Item:
    """Which of these labels apply? The list is shuffled, as in ECGBench; the answer keeps the order
    of `LABELS`."""
    listed = ", ".join(str(name) for name in rng.permutation([*LABELS, NORMAL]))
    return Item(
        "detection",
        f"Which of these apply to the ECG: {listed}?",
        ", ".join(f.labels or (NORMAL,)) + ".",
    )


CHOICES: dict[str, tuple[tuple[str, ...], str]] = {
    "rhythm": (RHYTHMS, "Which rhythm is shown?"),
    "conduction": (
        ("no conduction abnormality", *CONDUCTION),
        "Which conduction finding is present?",
    ),
    "st": (("no ST change", *ST_CHANGES[1:]), "Which ST finding is present?"),
    "ectopy": (("no ectopic beats", *ECTOPY[1:]), "Which finding about ectopic beats is right?"),
}


def choice(f: Findings, rng: np.random.Generator, topic: str | None = None) -> Item:
    """Four options, exactly one of them right."""
    topic = topic or str(rng.choice(list(CHOICES)))
    options, question = CHOICES[topic]
    true = {
        "rhythm": (f.rhythm,),
        "conduction": f.conduction or (options[0],),
        "st": (f.st if f.st != "none" else options[0],),
        "ectopy": (f.ectopy if f.ectopy != "none" else options[0],),
    }[topic]
    right = str(rng.choice(true))
    wrong = rng.choice(
        [name for name in options if name not in true], size=3, replace=False
    ).tolist()
    shown = [str(name) for name in rng.permutation([right, *wrong])]
    letter = "ABCD"[shown.index(right)]
    listed = " ".join(f"{mark}. {name}" for mark, name in zip("ABCD", shown, strict=True))
    return Item("choice", f"{question} {listed}", f"{letter}. {right}", letter)


def ask(f: Findings | None, task: str, rng: np.random.Generator, topic: str | None = None) -> Item:
    """A random question of a task about a page.

    Args:
        f: the findings on the page; None: it is an image without an ECG.
        task: report, detection, choice, refusal or question.
        rng: chooses wordings and orders.
        topic: of a choice or a question; None: a random one.
    """
    stand_in = f or Findings(75, RHYTHMS[0], 160, 90, (), "none", "none", False, AXES[0])
    if task == "report":
        item = Item("report", REPORT_QUESTION, report(stand_in))
    elif task == "detection":
        item = detection(stand_in, rng)
    elif task == "choice":
        item = choice(stand_in, rng, topic)
    elif task == "refusal":
        item = Item("refusal", str(rng.choice(BEYOND)), CANNOT)
    else:
        topic = topic or str(rng.choice(list(QUESTIONS)))
        item = Item("question", str(rng.choice(QUESTIONS[topic])), answer(topic, stand_in), topic)
    return item if f is not None else Item(item.task, item.question, NO_ECG, item.key)
