"""Asks a question of the benchmark: what every way of asking has in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from pulse_edge.errors import ContextError, ImageError
from pulse_edge.evaluate.ecgbench.answers_file import answer_id
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.guarded import open_regular, reason

# upstream: as the authors' scripts ask, with the arena's shifted later turns and transparent pixels
# dropped. clean: with the model's own template, and transparent pixels on white.
Mode = Literal["upstream", "clean"]
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_NEW_TOKENS = 1024  # upstream's


@dataclass(frozen=True)
class ItemReply:
    """What a model answered to an item.

    Attributes:
        texts: one, or one for each turn of an arena conversation.
        metadata: of the answer: `finish_reason`, `usage`, `timings`, and `scores` if asked for.
    """

    texts: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Asker(Protocol):
    """A model, wherever it runs.

    Attributes:
        name: `model_id` of the lines.
        identity: what its answers' ids are derived from.
        mode: of the prompts.
    """

    name: str
    identity: str
    mode: Mode

    def ask(self, item: BenchItem, page: bytes) -> ItemReply:
        """Answer an item.

        Args:
            item: with one question, or with turns.
            page: bytes of its image file.

        Raises:
            ImageError: the page cannot be read.
            ContextError: the prompt does not fit.
            PulseEdgeError: the model failed, and further items would fail, too.
        """
        ...

    def predict(self, items: Sequence[BenchItem], images: Path) -> float | None:
        """Seconds that items will take in this order, by what was measured before.

        Args:
            items: not empty.
            images: folder of the pages.

        Returns:
            None if nothing is known.
        """
        ...


def answer_line(asker: Asker, item: BenchItem, images: Path) -> dict[str, Any]:
    """Ask an item; returns its line of the answers file.

    An item whose page is missing or broken, or whose prompt is too long, gets an empty text, and
    `metadata.error` says why.

    Args:
        asker: the model.
        item: to ask.
        images: folder of the pages.

    Raises:
        PulseEdgeError: the model failed.
    """
    metadata: dict[str, Any] = {"bundle": asker.name, "seal": asker.identity, "mode": asker.mode}
    texts: tuple[str, ...] = ("",) * max(1, len(item.turns))
    try:
        page = _page_bytes(item, images)
        metadata["image_sha256"] = hashlib.sha256(page).hexdigest()
        reply = asker.ask(item, page)
        texts = reply.texts
        metadata |= reply.metadata
    except (ImageError, ContextError) as error:
        metadata["error"] = str(error)
    line: dict[str, Any] = {
        "question_id": item.id,
        "prompt": item.prompt,
        "text": "\n".join(texts) if any(texts) else "",
        "answer_id": answer_id(asker.identity, item.id),
        "model_id": asker.name,
    }
    if item.turns:
        questions = [question for question, _ in item.turns]
        line["golden_convs"] = _convs(questions, [answer for _, answer in item.turns])
        line["predict_convs"] = _convs(questions, texts)
    return line | {"metadata": metadata}


def _convs(questions: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
    pairs = zip(questions, answers, strict=True)
    return [{"question": question, "answer": answer} for question, answer in pairs]


def _page_bytes(item: BenchItem, images: Path) -> bytes:
    try:
        with open_regular(images / item.image) as file:
            data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{item.image}: cannot be read ({reason(error)})") from None
    if item.sha256 and hashlib.sha256(data).hexdigest() != item.sha256:
        raise ImageError(f"{item.image}: is not the page that was unpacked; prepare BENCH again")
    return data
