"""What a model's calls took while requests ran."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pulse_edge
from pulse_edge.answer import Request
from pulse_edge.runner import Job


class CallProbe:
    """Longest calls of a model's engine, and when requests were predicted.

    Attributes:
        longest: seconds by `view`, `chunk` and `step`, of calls that were not cancelled.
    """

    def __init__(self, model: pulse_edge.Model) -> None:
        self.longest: dict[str, float] = defaultdict(float)
        self._predicted_at: dict[int, float] = {}
        for name, kind in (
            ("encode", "view"),
            ("prefill", "chunk"),
            ("choose", "step"),
            ("step", "step"),
        ):
            self._replace(model.engine, name, functools.partial(self._timed, kind))
        self._replace(model.runner, "predict", self._marked)

    def predicted_at(self, request: Request) -> float | None:
        """When a request's prediction began, by `time.perf_counter`; once."""
        return self._predicted_at.pop(id(request), None)

    def _replace(
        self, owner: object, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        setattr(owner, name, wrap(getattr(owner, name)))

    def _timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **named)
            views = len(arguments[0]) if kind == "view" else 1
            seconds = (time.perf_counter() - start) / views
            self.longest[kind] = max(self.longest[kind], seconds)
            return result

        return timed

    def _marked(self, predict: Callable[..., Any]) -> Callable[..., Any]:
        def marked(run: Job, *rest: Any) -> Any:
            self._predicted_at[id(run.request)] = time.perf_counter()
            return predict(run, *rest)

        return marked
