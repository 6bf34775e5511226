"""Adversarial answers and golds for the scorers of ECGBench, from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIXED = "Only answer based on the given Options without any explanation."
CODES: Mapping[str, tuple[str, ...]] = {
    "ptb-test": ("NORM", "MI", "STTC", "CD", "HYP"),
    "cpsc-test": ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
    "code15-test": ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
}
NAMES = {
    "NORM": "normal ecg",
    "MI": "myocardial infarction",
    "STTC": "st/t change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
    "AF": "atrial fibrillation",
    "1dAVb": "1st degree av block",
    "RBBB": "right bundle branch block",
    "LBBB": "left bundle branch block",
    "SB": "sinus bradycardia",
    "ST": "sinus tachycardia",
}
LABEL_PIECES = (
    *("NORM", "ABNORMAL", "NORMAL", "Normal ECG", "abnormal ecg", "MI", "STEMI", "STTC", "CD"),
    *("HYP", "AF", "LAFB", "I-AVB", "II-AVB", "LBBB", "RBBB", "iRBBB", "PAC", "PVC", "STD", "STE"),
    *("1dAVb", "1DAVB", "SB", "ST", "ST depression", "ST-depression", "Answer:", "Answer: NORM"),
    *("atrial fibrillation", "Sinus  Bradycardia", "myocardial\ninfarction", "hypertrophy,"),
    *("", " ", "; ", ", ", "\n", "no", "CDX", "HYP.", "(MI)", "AF/PAC", "norm", "\u2028", "Ä"),
    *("ABNORM", "ABNORMAL; NORM", "(NORM)", "*NORM*", "x-MI", "MI-x", "STTCs"),
)
CHOICE_PIECES = (
    *("A", "B", "C", "C ", "(C)", "C) RBBB", "C.", "D. not B. because", "H.", "E. ", "I.", "c."),
    *("The answer is C", "The correct option is ", "The correct option is (C)", "Answer: ", "LBBB"),
    *("The correct option is c. Answer: D", "The correct option is G", "Answer: Sinus Bradycardia"),
    *("This is a normal ECG.", "It shows LBBB.", "A normal ECG", "Answer: D", "Option B", "no", ""),
    *("answer is option F.", "\n", " ", "Answer:B", "final answer: (E)", "D", "E", "F", "G", "H"),
    *("a) x", "b. y", "sinus rhythm", "\u00c4", "the", "Answer", "answer choice d."),
)
QA_OPTIONS = (
    *("yes", "no", "not sure", "lead I", "lead II", "lead III", "lead V1", "lead aVR", "None"),
    *(
        "none",
        "normal",
        "atrial fibrillation",
        "Sinus rhythm",
        "st-t change",
        "left axis deviation",
    ),
)
QA_PIECES = (
    *QA_OPTIONS,
    *("unknown", "not sure", "No.", "YES", "lead i", "lead ii, lead iii", "and", "or", ", ", ". "),
    *("normal ecg", "abnormal", "The answer is", "", "\n", ";", "None of these", "leads I", "Ä"),
)


def label_rows(config: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Items with answers, of a configuration with several labels."""
    draw = random.Random(f"{config}{seed}")
    codes = CODES[config]
    listed = ", ".join(f"{code}({NAMES[code]})" if code in NAMES else code for code in codes)
    rows = []
    for number in range(count):
        gold = "; ".join(draw.sample(codes, draw.choice([0, 1, 1, 1, 2, 3])))
        if config == "code15-test" and draw.random() < 0.4:
            gold = draw.choice(["NORM", "ABNORMAL"])
        text = _text(draw, LABEL_PIECES)
        if draw.random() < 0.5:
            text = draw.choice([gold, f"Answer: {gold}", f"{gold} {text}", f"{gold}."])
        rows.append(_row(f"{config}-{number}", f"Choose of {listed}.", gold, text))
    return rows


def choice_rows(config: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Items with answers, of a multiple-choice configuration."""
    draw = random.Random(f"{config}{seed}")
    letters = "ABCD" if config == "mmmu-ecg" else "ABCDEFGH"
    texts = ["normal ECG", "LBBB", "sinus rhythm", "Sinus Bradycardia", "PVC", "AF", "WPW", "STEMI"]
    rows = []
    for number in range(count):
        draw.shuffle(texts)
        options = "\n".join(f"{a}. {b}" for a, b in zip(letters, texts, strict=False))
        place = draw.randrange(len(letters))
        gold = letters[place] if config == "mmmu-ecg" else f"{letters[place]}. {texts[place]}"
        text = _text(draw, CHOICE_PIECES)
        if draw.random() < 0.4:
            said = (letters[place], f"{letters[place]}. {texts[place]}", texts[place])
            text = draw.choice([*said, f"It shows {texts[place]}.", f"Answer: {letters[place]}"])
        if text.endswith("The correct option is "):
            text += "?"  # the authors' function fails there
        rows.append(_row(f"{config}-{number}", f"Which is it?\n{options}", gold, text))
    return rows


def qa_rows(config: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Items with answers of ECG-QA, with golds in every form that occurs."""
    draw = random.Random(f"{config}{seed}")
    rows = []
    for number in range(count):
        options = draw.sample(QA_OPTIONS, draw.randint(2, 7))
        gold = draw.sample(options, draw.choice([1, 1, 1, 2]))
        comma = draw.choice(["", "", "", ","])
        prompt = f"What is it? Options: {', '.join(options)}{comma} {FIXED}"
        text = _text(draw, QA_PIECES)
        if draw.random() < 0.5:
            text = draw.choice([", ", " and ", "; "]).join(gold)
            text = draw.choice([text, text.lower(), text.upper(), f"The answer is {text}."])
        joined = ", ".join(gold)
        value = draw.choice([gold, joined, list(joined), [joined]])
        rows.append(_row(f"{config}-{number}", prompt, value, text))
    return rows


def rows_of(config: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Items with answers of any scored configuration, in another order than the golds.

    Args:
        config: its name.
        count: of items.
        seed: of the texts.
    """
    if config in CODES:
        return label_rows(config, count, seed)
    return (qa_rows if config == "ecgqa-test" else choice_rows)(config, count, seed)


def write_bench(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """A folder of README-layout files."""
    folder.mkdir(parents=True, exist_ok=True)
    for config, each in rows.items():
        items = [
            {
                "id": row["id"],
                "image": f"{row['id']}.png",
                "conversations": [
                    {"from": "human", "value": "<image>\n" + row["prompt"]},
                    {"from": "gpt", "value": row["gold"]},
                ],
            }
            for row in each
        ]
        (folder / f"{config}.json").write_text(json.dumps(items), encoding="utf-8")
    return folder


def upstream_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a row as upstream writes it."""
    return {
        "question_id": row["id"],
        "prompt": row["prompt"],
        "text": row["text"],
        "answer_id": "a",
        "model_id": "m",
        "metadata": {},
    }


def baseline_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a row as the baselines write it."""
    prompt = {"prompt": row["prompt"], "images": [], "id": row["id"]}
    return {"id": row["id"], "prompt": prompt, "response": row["text"]}


def shuffled_lines(rows: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Answers in another order than the items, a tenth of them in the baselines' form."""
    draw = random.Random(seed)
    lines = [baseline_line(row) if draw.random() < 0.1 else upstream_line(row) for row in rows]
    draw.shuffle(lines)
    return lines


def write_lines(folder: Path, config: str, lines: Sequence[Mapping[str, Any]]) -> Path:
    """A RUN with the answers of one configuration; another call adds another one."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    path = folder / config / "step-final.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _text(draw: random.Random, pieces: Sequence[str]) -> str:
    count = draw.choice([1, 1, 2, 3, 5])
    return draw.choice(["", " ", ", ", "; "]).join(draw.choice(pieces) for _ in range(count))


def _row(name: str, prompt: str, gold: Any, text: str) -> dict[str, Any]:
    return {"id": name, "prompt": prompt, "gold": gold, "text": text}
