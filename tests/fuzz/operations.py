"""Several threads that ask one model at once, read part of an answer, chat, and make it forget.

Every answer that is read to its end is the one that the model gives when nobody else asks, and of
a part it is the beginning.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pulse_edge
from pulse_edge.errors import PulseEdgeError, QueueTimeoutError
from pulse_export.pipeline import export

from fuzz.campaign import HANG, SILENT, Counts, Finding, attempt
from support import tiny

THREADS, OPERATIONS = 6, 3  # of a case
QUESTIONS = ("What is the rate?", "Is the rhythm regular?", "Is it normal?")
LONGEST = 10  # tokens of an answer
SECONDS = 15.0  # of a case; a thread that is still busy then hangs


class Operations:
    """The campaign: one model for all cases of a process."""

    def __init__(self, folder: Path) -> None:
        checkpoint = tiny.make_checkpoint(folder / "checkpoint", layers=1, vision_layers=2)
        export(checkpoint, folder / "bundle", precision="fp32")
        self._model = pulse_edge.load(folder / "bundle", threads=1)
        rng = np.random.default_rng(0)
        sizes = ((60, 90), (40, 40), (50, 120))
        self._pages: list[NDArray[np.uint8] | None] = [
            rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes
        ]
        self._pages.append(None)
        self._alone: dict[tuple[int, ...], str] = {}
        for page in range(len(self._pages)):
            for first in range(len(QUESTIONS)):
                self._alone[page, first] = self._ask(page, first)
                chat = self._model.chat(self._pages[page])
                chat.ask(QUESTIONS[first], max_new_tokens=LONGEST)
                answer = chat.ask(QUESTIONS[0], max_new_tokens=LONGEST)
                self._alone[page, first, 0] = answer.text

    def case(self, number: int, rng: random.Random) -> Counts:
        counts: Counter[str] = Counter()
        problems: list[Exception] = []
        seeds = [rng.random() for _ in range(THREADS)]

        def work(seed: float) -> None:
            own = random.Random(seed)
            try:
                for _ in range(OPERATIONS):
                    counts.update([self._operation(own)])
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        if any(thread.is_alive() for thread in threads):
            raise Finding(HANG, f"a thread has not ended after {SECONDS} s")
        if problems:
            raise problems[0]
        return counts

    def _operation(self, rng: random.Random) -> str:
        page, question = rng.randrange(len(self._pages)), rng.randrange(len(QUESTIONS))
        kinds: tuple[Callable[[int, int, random.Random], str], ...] = (
            self._whole,
            self._part,
            self._part,
            self._chat,
            self._impatient,
            self._wrong,
            self._forget,
        )
        return rng.choice(kinds)(page, question, rng)

    def _ask(self, page: int, question: int) -> str:
        answer = self._model.ask(self._pages[page], QUESTIONS[question], max_new_tokens=LONGEST)
        return answer.text

    def _whole(self, page: int, question: int, rng: random.Random) -> str:
        self._compare(self._ask(page, question), self._alone[page, question])
        return "whole answer"

    def _part(self, page: int, question: int, rng: random.Random) -> str:
        text = ""
        with self._model.stream(
            self._pages[page], QUESTIONS[question], max_new_tokens=LONGEST
        ) as stream:
            for _ in range(rng.randrange(4)):
                text += next(stream, "")
        if not self._alone[page, question].startswith(text):
            raise Finding(SILENT, f"{text!r} is no beginning of {self._alone[page, question]!r}")
        return "part of an answer"

    def _chat(self, page: int, question: int, rng: random.Random) -> str:
        chat = self._model.chat(self._pages[page])
        first = chat.ask(QUESTIONS[question], max_new_tokens=LONGEST).text
        self._compare(first, self._alone[page, question])
        if rng.random() < 0.5:
            second = chat.ask(QUESTIONS[0], max_new_tokens=LONGEST).text
            self._compare(second, self._alone[page, question, 0])
        return "chat"

    def _impatient(self, page: int, question: int, rng: random.Random) -> str:
        try:
            answer = self._model.ask(
                self._pages[page], QUESTIONS[question], max_new_tokens=LONGEST,
                timeout=rng.choice((0.001, 0.01)),
            )  # fmt: skip
        except QueueTimeoutError:
            return "gave up waiting"
        self._compare(answer.text, self._alone[page, question])
        return "answer in time"

    def _wrong(self, page: int, question: int, rng: random.Random) -> str:
        image = rng.choice((b"no image", "missing.png"))
        found = attempt(lambda: self._model.ask(image, QUESTIONS[question]))
        if not isinstance(found, PulseEdgeError):
            raise Finding(SILENT, f"{image!r} was answered")
        return "refused"

    def _forget(self, page: int, question: int, rng: random.Random) -> str:
        self._model.forget()
        return "forgot"

    @staticmethod
    def _compare(text: str, alone: str) -> None:
        if text != alone:
            raise Finding(SILENT, f"{text!r} with others, {alone!r} alone")
