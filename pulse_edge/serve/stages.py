"""How far the request is that the engine runs."""

from __future__ import annotations


class Stages:
    """A `Progress` that remembers the last stage. One request runs at a time.

    A model that is served is loaded with it: `load(bundle, progress=stages)`.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._done = 0
        self._total = 0

    def __call__(self, stage: str, amount: int, total: int) -> None:
        """Add `amount` of `total` to `stage`; another stage starts from nothing."""
        if stage != self._stage or self._done >= self._total:
            self._stage = stage
            self._done = 0
        self._total = total
        self._done += amount

    def __str__(self) -> str:
        """Such as `prefill 1536/2933`; empty before anything was reported."""
        if not self._stage:
            return ""
        return f"{self._stage} {self._done}/{self._total}"
