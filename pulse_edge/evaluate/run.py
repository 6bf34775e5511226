"""Runs bundles over cases, in processes."""

from __future__ import annotations

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from PIL import Image

from pulse_edge.evaluate.scoring import MAX_TOKENS, Scores
from pulse_edge.progress import Progress
from pulse_edge.simulation.cases import Case, heldout_case, heldout_indices
from pulse_edge.simulation.questions import (
    Findings,
    Item,
)

# ---- bundles -----------------------------------------------------------------------------------------------

_models: list[Any] = []  # of this process


def _load(paths: list[str], threads: int, device: str) -> None:
    import pulse_edge

    _models[:] = [pulse_edge.load(path, threads=threads, device=device) for path in paths]


def _answer(index: int, seed: int) -> tuple[Findings | None, tuple[Item, ...], list[list[str]]]:
    """Truth and questions of one case, and each bundle's answers to them."""
    case = heldout_case(index, seed)
    texts = [[str(m.ask(case.image, i.question, max_new_tokens=MAX_TOKENS).text) for i in case.items] for m in _models]
    return case.truth, case.items, texts


def evaluate_bundles(
    paths: list[str], pages: int, seed: int, workers: int, progress: Progress, device: str = "auto"
) -> list[Scores]:
    """Scores of each bundle on the same cases. Every worker is a process that runs the bundles on one thread."""
    scores = [Scores() for _ in paths]
    indices = heldout_indices(pages)
    blank = Image.new("RGB", (1, 1))
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_load, initargs=(paths, 1, device)
    ) as pool:
        for truth, items, texts in pool.map(_answer, indices, itertools.repeat(seed), chunksize=4):
            for each, answers in zip(scores, texts, strict=True):
                each.add(Case(blank, truth, items), answers)
            progress("evaluating", 1, len(indices))
    return scores
