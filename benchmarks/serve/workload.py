"""What clients send: pages that nobody has seen, pages again, and text without a page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pulse_edge.assets import RATE_QUESTION, SAMPLE_PAGE

COLD, REPEATED, TEXT = "cold", "repeated", "text"
KINDS = (COLD, REPEATED, TEXT)
TEXT_QUESTION = "What is a normal heart rate?"


@dataclass(frozen=True)
class Mix:
    """How often each kind of request comes, as weights of any sum.

    Attributes:
        cold: a page that the server has not seen.
        repeated: the page that a cold or repeated request had before.
        text: a question without a page.
    """

    cold: float = 1
    repeated: float = 2
    text: float = 1

    def __post_init__(self) -> None:
        weights = (self.cold, self.repeated, self.text)
        if not min(weights) >= 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError("no weight may be below 0, and one must be over")

    @property
    def shares(self) -> list[float]:
        """Probabilities, in the order of `KINDS`."""
        weights = (self.cold, self.repeated, self.text)
        return [weight / sum(weights) for weight in weights]


@dataclass(frozen=True)
class PlannedRequest:
    """A request that is ready to be sent.

    Attributes:
        kind: one of `KINDS`.
        body: JSON of a streamed chat completion.
        image: file of the page; None without one.
        question: in the body.
    """

    kind: str
    body: bytes
    image: bytes | None
    question: str


class Workload:
    """An endless sequence of requests.

    Args:
        mix: of kinds.
        max_tokens: of each answer.
        model: what the server calls its model.
        seed: of the sequence and the pages; another run with the same has the same requests.
        width: of pages in pixels; None takes the sample page as it is.
        deadline_s: that each request carries; None for none.
        run: a number that no earlier run against this server had, or cold pages would not be cold.
    """

    def __init__(
        self,
        mix: Mix,
        max_tokens: int,
        model: str,
        seed: int = 0,
        width: int | None = None,
        deadline_s: float | None = None,
        run: int = 0,
    ) -> None:
        self._shares = mix.shares
        self._more: dict[str, Any] = {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        self._more["stream_options"] = {"include_usage": True}
        if deadline_s is not None:
            self._more["deadline_s"] = deadline_s
        self._rng = np.random.default_rng(seed)
        image = Image.open(SAMPLE_PAGE).convert("RGB")
        if width is not None:
            image = image.resize((width, round(width * image.height / image.width)))
        self._image = image
        self._run = run
        self._count = 0

    def page(self) -> bytes:
        """A page that was not there before, as a PNG file."""
        image = self._image.copy()
        text = f"{self._run}.{self._count}"
        ImageDraw.Draw(image).text((8, 8), text, fill=(0, 0, 0))
        self._count += 1
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=1)
        return out.getvalue()

    def request(
        self, kind: str, image: bytes | None, question: str = RATE_QUESTION
    ) -> PlannedRequest:
        """A request about an image, or without one; then it has a question of its own."""
        question = TEXT_QUESTION if image is None else question
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if image is not None:
            url = "data:image/png;base64," + base64.b64encode(image).decode()
            content.append({"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "user", "content": content}]
        body = {"messages": messages, **self._more}
        return PlannedRequest(kind, json.dumps(body).encode(), image, question)

    def __iter__(self) -> Iterator[PlannedRequest]:
        """Requests in a random order of kinds."""
        image: bytes | None = None
        while True:
            kind = str(self._rng.choice(KINDS, p=self._shares))
            if kind == TEXT:
                yield self.request(kind, None)
                continue
            if kind == COLD or image is None:
                kind, image = COLD, self.page()
            yield self.request(kind, image)
