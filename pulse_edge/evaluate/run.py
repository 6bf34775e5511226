"""Runs bundles over the cases of a task, in processes."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.evaluate.task import Ask, Task
from pulse_edge.progress import Progress

ReplyT = TypeVar("ReplyT")
ScoresT = TypeVar("ScoresT")

_models: list[Any] = []  # of this worker process
_failures: list[Exception] = []  # why this worker process has no models


def evaluate_bundles(
    task: Task[ReplyT, ScoresT],
    paths: Sequence[str],
    workers: int,
    options: EngineOptions,
    progress: Progress,
) -> list[ScoresT]:
    """Scores of each bundle on the same cases.

    The processes end with this function, also if it is interrupted, and with this process.

    Args:
        task: the questions to ask, with their truth.
        paths: of the bundles.
        workers: processes. Each runs all bundles, on one thread.
        options: how the bundles run, apart from their threads.
        progress: told after each case.

    Raises:
        EngineError: a process was killed.
        PulseEdgeError: a bundle cannot be loaded, or its engine failed.
    """
    cases = task.cases()
    options = dataclasses.replace(options, threads=1)
    pool = ProcessPoolExecutor(
        min(workers, len(cases)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_load_models,
        initargs=(list(paths), options),
    )

    def replies() -> Iterator[ReplyT]:
        with _without_interrupts():  # this starts the processes
            results = pool.map(_ask, itertools.repeat(task), cases, chunksize=4)
        for reply in results:
            progress("evaluating", 1, len(cases))
            yield reply

    with _ended_afterwards(pool):
        try:
            return task.score(replies())
        except BrokenProcessPool:
            raise EngineError(
                "a worker process was killed, perhaps because memory ran out; use fewer --workers"
            ) from None


@contextmanager
def _ended_afterwards(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Shut the pool down after the block. If the block raises, kill its processes first."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes in the block that never see Ctrl-C, which a terminal sends to all.

    They inherit what this thread blocks. This process alone obeys, and ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _load_models(paths: list[str], options: EngineOptions) -> None:
    """Prepare a worker process. A failure is kept for `_ask`, which can hand it to the parent."""
    from pulse_edge.model import load

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _models[:] = [load(path, **dataclasses.asdict(options)) for path in paths]
    except Exception as error:
        _failures.append(error)


def _end_with_parent() -> None:
    """End this process when its parent does, which may be killed without a chance to say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _ask(task: Task[ReplyT, ScoresT], case: int) -> ReplyT:
    if _failures:
        raise _failures[0]
    return task.ask(case, [_answers_of(model, task.max_new_tokens) for model in _models])


def _answers_of(model: Any, max_new_tokens: int) -> Ask:
    def ask(image: Any, question: str, turns: Sequence[tuple[str, str]] = ()) -> str:
        if turns:
            answer = model.chat(image, turns).ask(question, max_new_tokens=max_new_tokens)
        else:
            answer = model.ask(image, question, max_new_tokens=max_new_tokens)
        return str(answer.text)

    return ask
