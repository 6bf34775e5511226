"""Random requests with deadlines about pages that are new or known."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.params import PRIORITIES, Priority

# How a page comes: as a file that is new to the model, as one of a few files, or as a `Look` at one
# of these, which is not decoded again.
Sight = Literal["new", "known", "looked"]
SIGHTS: tuple[Sight, ...] = ("new", "known", "looked")
# Question and most tokens of its answer.
HURRIED_QUESTIONS = {
    "short": ("What is the heart rate?", 16),
    "report": ("Please write a clinical report based on this ECG image.", 96),
}
KNOWN_PAGES = 3  # more than an engine holds, so that some come back from a copy
WIDTHS = (400, 700, 1100, 2200)  # pixels, of new pages
FAR = 1e6  # seconds: a deadline that is predicted but not felt
SHORTEST, LONGEST = 0.1, 2.0  # deadlines, as a share of what such a request takes alone
UNHURRIED = 0.25  # share of requests whose deadline is `FAR`


@dataclass(frozen=True)
class HurriedCase:
    """A request of the benchmark.

    Attributes:
        sight: how its page comes.
        question: a name of `HURRIED_QUESTIONS`.
        page: number of the page, among those of its sight.
        share: of what such a request takes alone; its deadline. Infinity is `FAR`.
        priority: of the request.
        best_effort: whether it runs though a miss is predicted.
    """

    sight: Sight
    question: str
    page: int
    share: float
    priority: Priority = "interactive"
    best_effort: bool = False


def random_cases(count: int, rng: random.Random) -> list[HurriedCase]:
    """`count` hurried requests, and among them `UNHURRIED` times as many more that are not."""
    shares = [math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST))) for _ in range(count)]
    shares += [math.inf] * round(UNHURRIED * count)
    rng.shuffle(shares)
    return [
        HurriedCase(
            sight=rng.choice(SIGHTS),
            question=rng.choice(tuple(HURRIED_QUESTIONS)),
            page=number,
            share=share,
            priority=rng.choice(PRIORITIES),
            best_effort=rng.random() < 0.5,
        )
        for number, share in enumerate(shares)
    ]


@dataclass
class NumberedPages:
    """Files of ECG pages, each another one. The known ones are few and stay the same."""

    _scaled: dict[int, Image.Image] = field(default_factory=dict)

    def page(self, sight: Sight, number: int) -> bytes:
        """A JPEG file. Numbers of known pages repeat."""
        if sight != "new":
            return self._file(number % KNOWN_PAGES, WIDTHS[-1], 0)
        return self._file(number, WIDTHS[number % len(WIDTHS)], 255)

    def _file(self, number: int, width: int, red: int) -> bytes:
        if width not in self._scaled:
            with Image.open(SAMPLE_PAGE) as page:
                height = round(width * page.height / page.width)
                self._scaled[width] = page.convert("RGB").resize((width, height))
        marked = self._scaled[width].copy()
        marked.paste((red, number % 256, number // 256 % 256), (0, 0, 16, 16))
        out = io.BytesIO()
        marked.save(out, "JPEG", quality=90)
        return out.getvalue()
