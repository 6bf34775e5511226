"""Calibration samples: ECG pages with conversations about them.

Each is cut to the model's context. They come from one of three sources:

* a JSON file like ECGInstruct's (`id`, `image`, `conversations` of `from` human or gpt and `value`)
  and a directory with its images;
* a directory of pages alone, with built-in questions;
* neither: then pages are simulated and drawn, with questions and right answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ExportError, ParameterError
from pulse_edge.evaluate.ecgbench.records import conversation_texts
from pulse_edge.page.source import read_page
from pulse_edge.page.tokens import token_count
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export.tokenizer_files import tokenizer_name

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
QUESTIONS = (  # of pages whose truth is not known: only the prompt is read
    REPORT_QUESTION,
    RATE_QUESTION,
    "What is the rhythm?",
    "Are there ST segment changes?",
    "Is there a conduction abnormality?",
)
SIMULATION_SEED = 7070  # training and evaluation have others

Turns = tuple[str, ...]  # question, answer, question, …


@dataclass(frozen=True)
class Sample:
    """A page and a conversation about it; together they fit the context.

    Attributes:
        ids: token ids, with `IMAGE` once among them.
    """

    name: str
    page: Image.Image
    ids: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    name: str
    open: Callable[[], tuple[Image.Image, Turns]]


def read_samples(
    checkpoint: Path,
    spec: ModelSpec,
    count: int,
    images: Path | None = None,
    prompts: Path | None = None,
) -> Iterator[Sample]:
    """Draw samples with a fixed seed. Pages are read when their turn comes.

    Args:
        count: how many to draw; fewer if there are fewer.
        images: directory of pages; None: the directory of `prompts`, or simulated pages.
        prompts: conversations in ECGInstruct's format; None: built-in questions.

    Raises:
        ExportError: the data is missing or not in that format.
        ImageError: a page is no image.
    """
    template = PromptBuilder.of(spec, checkpoint / tokenizer_name(checkpoint))
    if images is not None and not images.is_dir():
        raise ExportError(f"{images}: no such directory of calibration images")
    if prompts is not None:
        entries = _conversations(prompts, images or prompts.parent)
    elif images is not None:
        entries = _pages(images)
    else:
        entries = [_Entry(f"simulated page {i}", partial(_simulated, i)) for i in range(count)]
    chosen = sorted(np.random.default_rng(0).permutation(len(entries))[:count])
    return (_sample(entries[i], template, spec) for i in chosen)


def _sample(entry: _Entry, template: PromptBuilder, spec: ModelSpec) -> Sample:
    """The conversation as the runtime would have it, cut to the context."""
    page, turns = entry.open()
    ids = template.first_turn(turns[0])
    for at, text in enumerate(turns[1:]):
        ids += template.next_turn(text) if at % 2 else template.given_answer(text)
    text_room = spec.text.context - token_count(page.size, spec) + 1
    if text_room <= ids.index(IMAGE) + 1:
        raise ExportError(
            f"{entry.name}: the page's {token_count(page.size, spec)} tokens do not fit the context"
        )
    return Sample(entry.name, page, tuple(ids[:text_room]))


def _simulated(index: int) -> tuple[Image.Image, Turns]:
    """A page and true answers, as the accuracy gate's held-out ones are made, from other seeds."""
    from pulse_edge.simulation.cases import heldout_case

    case = heldout_case(index, SIMULATION_SEED)
    return case.image, tuple(text for item in case.items for text in (item.question, item.answer))


def _pages(images: Path) -> list[_Entry]:
    paths = sorted(p for p in images.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ExportError(f"{images}: holds no page ({', '.join(SUFFIXES)}) to calibrate on")
    return [_entry(path, (QUESTIONS[i % len(QUESTIONS)],)) for i, path in enumerate(paths)]


def _entry(path: Path, turns: Turns) -> _Entry:
    return _Entry(str(path), lambda: (read_page(path).image, turns))


def _conversations(prompts: Path, images: Path) -> list[_Entry]:
    try:
        rows = json.loads(prompts.read_bytes())
    except OSError as error:
        raise ExportError(f"{prompts}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{prompts}: not JSON ({error})") from None
    if not isinstance(rows, list) or not rows:
        raise ExportError(f"{prompts}: must be a list of conversations, as ECGInstruct is")
    return [_entry(*_conversation(row, f"{prompts}[{i}]", images)) for i, row in enumerate(rows)]


def _conversation(row: Any, where: str, images: Path) -> tuple[Path, Turns]:
    """An entry's image and its turns. All entries are checked, drawn or not."""
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not row["image"]:
        raise ExportError(f"{where}: must be an object that names an image")
    path = images / row["image"]
    try:
        missing = not path.is_file()
    except (OSError, ValueError):  # too long a name; a NUL in it
        missing = True
    if missing:
        raise ExportError(f"{where}: there is no image {row['image']!r:.80} in {images}")
    try:
        return path, conversation_texts(row.get("conversations"), where)
    except ParameterError as error:
        raise ExportError(str(error)) from None


class DataHash:
    """SHA-256 of every page's size and RGB bytes and every conversation's ids, in order."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, sample: Sample) -> None:
        rgb = sample.page.convert("RGB")
        ids = np.array(sample.ids, "<i8").tobytes()
        for part in (repr(rgb.size).encode(), rgb.tobytes(), len(ids).to_bytes(8, "little"), ids):
            self._total.update(part)

    @property
    def hex(self) -> str:
        return self._total.hexdigest()
