"""Runs bundles over the cases of a task, in processes."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from pulse_edge.engines.options import EngineOptions
from pulse_edge.evaluate.task import Ask, Task
from pulse_edge.progress import Progress

ReplyT = TypeVar("ReplyT")
ScoresT = TypeVar("ScoresT")

_models: list[Any] = []  # of this worker process


def evaluate_bundles(
    task: Task[ReplyT, ScoresT],
    paths: Sequence[str],
    workers: int,
    options: EngineOptions,
    progress: Progress,
) -> list[ScoresT]:
    """Scores of each bundle on the same cases.

    Args:
        task: the questions to ask, with their truth.
        paths: of the bundles.
        workers: processes. Each runs all bundles, on one thread.
        options: how the bundles run, apart from their threads.
        progress: told after each case.
    """
    cases = task.cases()
    options = dataclasses.replace(options, threads=1)

    def replies(pool: ProcessPoolExecutor) -> Iterator[ReplyT]:
        for reply in pool.map(_ask, itertools.repeat(task), cases, chunksize=4):
            progress("evaluating", 1, len(cases))
            yield reply

    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_load_models,
        initargs=(list(paths), options),
    ) as pool:
        return task.score(replies(pool))


def _load_models(paths: list[str], options: EngineOptions) -> None:
    from pulse_edge.model import load

    _models[:] = [load(path, **dataclasses.asdict(options)) for path in paths]


def _ask(task: Task[ReplyT, ScoresT], case: int) -> ReplyT:
    return task.ask(case, [_answers_of(model, task.max_new_tokens) for model in _models])


def _answers_of(model: Any, max_new_tokens: int) -> Ask:
    def ask(image: Any, question: str) -> str:
        return str(model.ask(image, question, max_new_tokens=max_new_tokens).text)

    return ask
