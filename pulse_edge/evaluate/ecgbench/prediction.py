"""How long a run will take, by what this machine has measured of its bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ImageError
from pulse_edge.evaluate.ecgbench.ask import MAX_NEW_TOKENS
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.model import Model
from pulse_edge.page.source import read_page
from pulse_edge.page.tokens import token_count
from pulse_edge.page.views import preprocess
from pulse_edge.rates import Rates, Work
from pulse_edge.text.template import PromptBuilder

SAMPLED = 4  # pages that are decoded for their size, and for the seconds of that


@dataclass(frozen=True)
class _SampledPage:
    """What a page costs: views, image tokens, and seconds of decoding and cutting."""

    views: int
    tokens: int
    seconds: float


class RunPredictor:
    """Predicts from the speeds of this machine's requests, which the state folder keeps.

    Args:
        model: that will be asked.
    """

    def __init__(self, model: Model) -> None:
        self._rates: Rates = model.runner.rates
        self._spec: ModelSpec = model.bundle.manifest.model
        name = model.bundle.manifest.tokenizer
        self._template = PromptBuilder.of(self._spec, model.bundle.read(name), name)

    def seconds(self, items: Sequence[BenchItem], images: Path) -> float | None:
        """Seconds of items that are asked in this order.

        A few of their pages are decoded, and the others are taken to be like them.

        Args:
            items: not empty.
            images: folder of the pages.

        Returns:
            None if this machine has not measured the bundle yet, or no page can be read.
        """
        names = list(dict.fromkeys(item.image for item in items))
        pages = self._sampled(names, images)
        if not pages:
            return None
        places = {name: place for place, name in enumerate(names)}
        known: dict[tuple[Any, ...], float | None] = {}
        total = 0.0
        before = ""
        for item in items:
            page = pages[places[item.image] * len(pages) // len(names)]
            new = item.image != before
            key = (page, new, item.prompt, item.turns)
            if key not in known:
                known[key] = self._item_seconds(item, page, new)
            seconds = known[key]
            if seconds is None:
                return None
            total += seconds
            before = item.image
        return total

    def _sampled(self, names: Sequence[str], images: Path) -> list[_SampledPage]:
        count = min(SAMPLED, len(names))
        chosen = [names[at * len(names) // count] for at in range(count)]
        return [page for name in chosen if (page := self._sample(images / name)) is not None]

    def _sample(self, path: Path) -> _SampledPage | None:
        begun = time.perf_counter()
        try:
            image = read_page(path).image
            views = preprocess(image, self._spec)
        except (ImageError, OSError, ValueError):
            return None
        seconds = time.perf_counter() - begun
        return _SampledPage(len(views), token_count(image.size, self._spec), seconds)

    def _item_seconds(self, item: BenchItem, page: _SampledPage, new: bool) -> float | None:
        """Seconds of an item. `new`: the item before it is about another page."""
        template = self._template
        head = len(template.page_only())
        questions = [question for question, _ in item.turns] or [item.prompt]
        total = page.seconds if new else 0.0
        for number, question in enumerate(questions):
            first = new and number == 0
            # The page stays in the cache for the questions that follow.
            tokens = len(template.first_turn(question)) - head
            tokens += head - 1 + page.tokens if first else 0
            views = page.views if first else 0
            work = Work(views, tokens, template.text(question), MAX_NEW_TOKENS)
            seconds = self._rates.seconds(work)
            if seconds is None:
                return None
            total += seconds
        return total
