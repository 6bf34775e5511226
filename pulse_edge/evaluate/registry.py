"""The table of evaluation tasks. A new one is a file here and a row."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.task import Task

# name -> (module, class). A class takes the number of pages, and optionally a seed.
TASKS = {
    "simulated": ("simulated", "SimulatedPages"),
    "wording": ("wording", "FreeWording"),
}


def make_task(name: str, pages: int, seed: int | None = None) -> Task[Any, Any]:
    """A task of the table.

    Args:
        name: a key of `TASKS`.
        pages: how many of the task's pages to ask about.
        seed: of another held-out set; None: the fixed one.

    Raises:
        ParameterError: there is no such task.
    """
    if name not in TASKS:
        raise ParameterError(f"task {name!r} is not one of {', '.join(TASKS)}")
    module, kind = TASKS[name]
    task = getattr(import_module(f"pulse_edge.evaluate.{module}"), kind)
    opened: Task[Any, Any] = task(pages) if seed is None else task(pages, seed)
    return opened
