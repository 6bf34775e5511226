"""Which questions of a benchmark a run asks, and in which order."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import BenchItem, Benchmark


@dataclass(frozen=True)
class Selection:
    """A part of a benchmark.

    Attributes:
        configs: None: all that are there.
        limit: the first items of each configuration; None: all.
        sample: random items of each configuration; None: all.
        seed: of the sample.
        shard: (i, n): the i-th of n parts, from 1. The parts are disjoint, and items of one page
            are in one part.

    Raises:
        ParameterError: a value is out of range, or there are both a limit and a sample.
    """

    configs: tuple[str, ...] | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.limit is not None and self.sample is not None:
            raise ParameterError("limit and sample exclude each other; give one of them")
        for name, number in (("limit", self.limit), ("sample", self.sample)):
            if number is not None and number < 1:
                raise ParameterError(f"{name} is {number}, but must be a whole number from 1")

    def of(self, benchmark: Benchmark) -> dict[str, tuple[BenchItem, ...]]:
        """The items to ask, by configuration, in their order.

        Args:
            benchmark: to choose from.

        Raises:
            ParameterError: a configuration is not there.
        """
        configs = tuple(benchmark.items) if self.configs is None else self.configs
        missing = [config for config in configs if config not in benchmark.items]
        if missing:
            raise ParameterError(
                f"configuration {missing[0]} is not in {benchmark.folder}, which has "
                + ", ".join(benchmark.items)
            )
        return {config: self._chosen(config, benchmark.items[config]) for config in configs}

    def _chosen(self, config: str, items: tuple[BenchItem, ...]) -> tuple[BenchItem, ...]:
        if self.limit is not None:
            items = items[: self.limit]
        elif self.sample is not None and self.sample < len(items):
            draw = random.Random(f"{self.seed}/{config}")
            items = tuple(items[i] for i in sorted(draw.sample(range(len(items)), self.sample)))
        index, parts = self.shard
        pages = _by_page(items)[index - 1 :: parts]
        return tuple(item for page in pages for item in page)


def _by_page(items: Sequence[BenchItem]) -> list[list[BenchItem]]:
    """Items of one page together, at the place of the first one, so that the page is read once."""
    pages: dict[str, list[BenchItem]] = {}
    for item in items:
        pages.setdefault(item.sha256 or item.image, []).append(item)
    return list(pages.values())


def parse_shard(text: str | None) -> tuple[int, int]:
    """A shard from text.

    Args:
        text: such as "2/8"; None is the whole.

    Raises:
        ParameterError: it is no shard.
    """
    if text is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    index, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= parts:
        raise ParameterError(f"shard {text!r:.40} must be i/n with i from 1 to n, such as 2/8")
    return index, parts
