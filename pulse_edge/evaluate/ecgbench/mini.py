"""A synthetic mini-ECGBench in the three layouts, made of simulated pages with known truth.

The choices and the report of a page are the ones that `pulse-edge eval` asks, word for word.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError, PulseEdgeError
from pulse_edge.evaluate.ecgbench.items import CONFIGS, IMAGES
from pulse_edge.evaluate.ecgbench.parquet import import_pyarrow
from pulse_edge.evaluate.ecgbench.records import IMAGE_MARK
from pulse_edge.guarded import reason
from pulse_edge.progress import Progress
from pulse_edge.simulation.cases import SEED, Case, heldout_case
from pulse_edge.simulation.ecg import RHYTHMS, ST_CHANGES
from pulse_edge.simulation.questions import QUESTIONS, Findings, Item

PAGES = 6  # by default
ONLY_OPTIONS = "Only answer based on the given Options without any explanation."
_ELEVATIONS = tuple(name for name in ST_CHANGES if name.endswith("elevation"))
_DEPRESSION = "ST depression"
# Configuration -> its codes with the long names that the prompt lists.
CODES: Mapping[str, Mapping[str, str]] = {
    "ptb-test": {
        "NORM": "normal ECG",
        "MI": "ST elevation",
        "STTC": _DEPRESSION,
        "CD": "conduction abnormality",
        "HYP": "left ventricular hypertrophy",
    },
    "code15-test": {
        "1dAVb": "first-degree AV block",
        "RBBB": "right bundle branch block",
        "LBBB": "left bundle branch block",
        "SB": "sinus bradycardia",
        "ST": "sinus tachycardia",
        "AF": "atrial fibrillation",
    },
    "cpsc-test": {
        "NORM": "normal ECG",
        "AF": "atrial fibrillation",
        "I-AVB": "first-degree AV block",
        "LBBB": "left bundle branch block",
        "RBBB": "right bundle branch block",
        "PAC": "premature atrial contractions",
        "PVC": "premature ventricular contractions",
        "STD": _DEPRESSION,
        "STE": "ST elevation",
    },
}
CHOICES_OF = {
    "csn-test-no-cot": ("rhythm", "conduction"),
    "g12-test-no-cot": ("st", "ectopy"),
    "mmmu-ecg": ("rhythm", "st"),
}
_TOPICS = ("rhythm", "rate", "conduction", "ectopy", "st")  # of a case's questions, in order
_CHOICE_TOPICS = ("rhythm", "conduction", "st", "ectopy")  # of a case's choices, in order


@dataclass(frozen=True)
class MiniRecord:
    """A record of the mini-ECGBench, before it is written.

    Attributes:
        id: of the question.
        page: number of the page.
        conversations: as the data set has them.
    """

    id: str
    page: int
    conversations: list[dict[str, Any]]

    @property
    def image(self) -> str:
        """Relative path of the page."""
        return f"simulated/{self.page:05d}-0.png"


def write_mini(
    out: str | os.PathLike[str],
    pages: int = PAGES,
    seed: int | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the mini-ECGBench into `out/parquet`, `out/readme` and `out/gem`.

    Args:
        out: a folder that is new or empty.
        pages: simulated pages; each has some 12 questions over the configurations.
        seed: of the held-out set that the pages are from; None: the one of `pulse-edge eval`.
        progress: told after each page.

    Returns:
        By configuration, its number of records.

    Raises:
        ParameterError: `out` is in use, or pyarrow is not installed.
        PulseEdgeError: a file cannot be written.
    """
    import_pyarrow()
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError(f"{folder}: is in use; name a folder that is new or empty")
    images: list[bytes] = []
    records: dict[str, list[MiniRecord]] = {config: [] for config in CONFIGS}
    for index in range(pages):
        case = heldout_case(index, SEED if seed is None else seed)
        images.append(_png(case))
        for config in CONFIGS:
            records[config] += _records(config, index, case)
        if progress:
            progress("drawing pages", 1, pages)
    records = {config: rows for config, rows in records.items() if rows}
    try:
        _write_parquet(folder / "parquet", records, images)
        _write_json(folder / "readme", folder / "readme", records, images)
        _write_json(folder / "gem", folder / "gem" / "ecg_bench", records, images)
    except OSError as error:
        raise PulseEdgeError(f"{folder}: cannot be written ({reason(error)})") from None
    return {config: len(rows) for config, rows in records.items()}


def _png(case: Case) -> bytes:
    file = io.BytesIO()
    case.image.save(file, "PNG")
    return file.getvalue()


def _records(config: str, page: int, case: Case) -> Iterator[MiniRecord]:
    """The records of a page in a configuration; none if it has nothing to ask there."""
    assert case.truth is not None  # pages have one, empty images are not used
    for number, talk in enumerate(_talks(config, case.truth, case.items)):
        yield MiniRecord(f"{config}-{page:05d}-{number}", page, talk)


def _talks(config: str, truth: Findings, items: Sequence[Item]) -> Iterator[list[dict[str, Any]]]:
    if config in CODES:
        if gold := _gold_codes(config, truth):
            yield _talk(_codes_question(config), gold)
    elif config in CHOICES_OF:
        choices = dict(zip(_CHOICE_TOPICS, (i for i in items if i.task == "choice"), strict=True))
        for topic in CHOICES_OF[config]:
            item = choices[topic]
            yield _talk(item.question, item.key if config == "mmmu-ecg" else item.answer)
    elif config == "ecgqa-test":
        for question, options, right in _qa_questions(truth):
            prompt = f"{question} Options: {', '.join(options)} {ONLY_OPTIONS}"
            yield _talk(list(IMAGE_MARK + prompt), right)
    elif config == "ptb-test-report":
        report = next(item for item in items if item.task == "report")
        yield _talk(report.question, report.answer)
    else:
        asked = [item for item in items if item.task == "question" and item.key in _TOPICS[:2]]
        yield [{"question": item.question, "answer": item.answer} for item in asked]


def _talk(question: str | list[str], answer: str | list[str]) -> list[dict[str, Any]]:
    value = question if isinstance(question, list) else IMAGE_MARK + question
    return [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]


def _codes_question(config: str) -> str:
    listed = ", ".join(f"{code}({name})" for code, name in CODES[config].items())
    return f"Which of these apply to the ECG: {listed}?"


def _gold_codes(config: str, truth: Findings) -> str:
    """The gold; "" if no code of the configuration says what the page shows."""
    shown = {*truth.labels, *(("ST elevation",) if truth.st in _ELEVATIONS else ())}
    shown |= {"conduction abnormality"} if truth.conduction else set()
    shown |= set() if truth.labels else {"normal ECG"}
    codes = [code for code, name in CODES[config].items() if name in shown]
    if not codes and config == "code15-test":
        return "ABNORMAL" if truth.labels else "NORM"
    return "; ".join(codes)


def _qa_questions(truth: Findings) -> Iterator[tuple[str, list[str], list[str]]]:
    """(question, options, right ones) in the manner of ECG-QA."""
    yield QUESTIONS["rhythm"][0], list(RHYTHMS), [truth.rhythm]
    yield QUESTIONS["normal"][0], ["yes", "no"], ["no" if truth.labels else "yes"]


def _write_parquet(
    folder: Path, records: Mapping[str, Sequence[MiniRecord]], images: Sequence[bytes]
) -> None:
    arrow, parquet = import_pyarrow()
    text = arrow.string()
    image = arrow.struct([("bytes", arrow.binary()), ("path", text)])
    for config, rows in records.items():
        value = arrow.list_(text) if config == "ecgqa-test" else text
        turn = [("question", text), ("answer", text)]
        if config != "arena":
            turn = [("from", text), ("value", value)]
        columns = {
            "id": arrow.array([row.id for row in rows], text),
            "image_path": arrow.array([row.image for row in rows], text),
            "image": arrow.array(
                [{"bytes": images[row.page], "path": Path(row.image).name} for row in rows], image
            ),
            "conversations": arrow.array(
                [row.conversations for row in rows], arrow.list_(arrow.struct(turn))
            ),
        }
        (folder / config).mkdir(parents=True)
        parquet.write_table(
            arrow.table(columns), folder / config / "test-00000-of-00001.parquet", row_group_size=8
        )


def _write_json(
    root: Path, home: Path, records: Mapping[str, Sequence[MiniRecord]], images: Sequence[bytes]
) -> None:
    """The README's layout, or GEM's, whose JSON lies in a folder below and names recordings."""
    gem = root != home
    home.mkdir(parents=True)
    for config, rows in records.items():
        listed = [
            {"id": row.id, "image": row.image, "conversations": row.conversations}
            | ({"ecg": f"simulated/{row.page:05d}"} if gem else {})
            for row in rows
        ]
        (home / f"{config}.json").write_text(json.dumps(listed, indent=1), "utf-8")
        for row in rows:
            path = root / IMAGES / row.image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[row.page])
