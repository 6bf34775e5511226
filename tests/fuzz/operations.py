"""Several threads that ask one model at once, read part of an answer, chat, look, score, forget.

Requests have priorities and deadlines, and one of the two models limits its queue. Every answer
that is read to its end is the one that the model gives when nobody else asks, and of a part it is
the beginning. So is what a deadline cuts off.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import pulse_edge
from pulse_edge import runner
from pulse_edge.errors import DeadlineError, PulseEdgeError, QueueFullError, QueueTimeoutError
from pulse_edge.params import PRIORITIES
from pulse_export.pipeline import export

from fuzz.campaign import HANG, SILENT, Counts, Finding, attempt
from support import tiny
from support.requests import settled

THREADS, OPERATIONS = 6, 3  # of a case
QUESTIONS = ("What is the rate?", "Is the rhythm regular?", "Is it normal?")
OPTIONS_SCORED = ("yes", "no", "It is regular.")
LONGEST = 10  # tokens of an answer
QUEUE_LIMIT = 3  # of one model in two: fewer than the threads
DEADLINES = (0.0005, 0.002, 0.01, 0.05, 0.5)  # seconds
PIECE = 16  # rows of a prefill between two chances to give way; the tiny prompts are short
SECONDS = 15.0  # of a case; a thread that is still busy then hangs


class Operations:
    """The campaign: two models for all cases of a process, of which a case takes one."""

    def __init__(self, folder: Path) -> None:
        checkpoint = tiny.make_checkpoint(folder / "checkpoint", layers=1, vision_layers=2)
        export(checkpoint, folder / "bundle", precision="fp32")
        self._models = [
            pulse_edge.load(folder / "bundle", threads=1, queue_limit=limit)
            for limit in (None, QUEUE_LIMIT)
        ]
        self._model = self._models[0]
        rng = np.random.default_rng(0)
        sizes = ((60, 90), (40, 40), (50, 120))
        self._pages: list[NDArray[np.uint8] | None] = [
            rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes
        ]
        self._pages.append(None)
        self._alone: dict[tuple[int, ...], str] = {}
        self._scores: dict[tuple[int, int], tuple[float, ...]] = {}
        for page in range(len(self._pages)):
            for first in range(len(QUESTIONS)):
                self._alone[page, first] = self._ask(page, first)
                self._scores[page, first] = self._score(page, first)
                chat = self._model.chat(self._pages[page])
                chat.ask(QUESTIONS[first], max_new_tokens=LONGEST)
                answer = chat.ask(QUESTIONS[0], max_new_tokens=LONGEST)
                self._alone[page, first, 0] = answer.text

    def case(self, number: int, rng: random.Random) -> Counts:
        with patch.object(runner, "PIECE", PIECE):
            return self._case(number, rng)

    def _case(self, number: int, rng: random.Random) -> Counts:
        counts: Counter[str] = Counter()
        problems: list[Exception] = []
        seeds = [rng.random() for _ in range(THREADS)]
        self._model = self._models[number % 2]

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
        if not settled(self._model.worker):  # a look may still be under way
            raise Finding(HANG, "a request that nobody waits for has not ended")
        return counts

    def _operation(self, rng: random.Random) -> str:
        page, question = rng.randrange(len(self._pages)), rng.randrange(len(QUESTIONS))
        kinds: tuple[Callable[[int, int, random.Random], str], ...] = (
            self._whole,
            self._part,
            self._part,
            self._chat,
            self._impatient,
            self._hurried,
            self._hurried,
            self._looked,
            self._scored,
            self._wrong,
            self._forget,
        )
        kind = rng.choice(kinds)
        try:
            return kind(page, question, rng)
        except QueueFullError as error:
            if self._model is self._models[0]:
                raise Finding(SILENT, "a queue without a limit is full") from None
            if not error.retry_after_s > 0:
                raise Finding(SILENT, f"try again after {error.retry_after_s} s") from None
            return "queue full"

    def _ask(self, page: int, question: int, **terms: Any) -> str:
        answer = self._model.ask(
            self._pages[page], QUESTIONS[question], max_new_tokens=LONGEST, **terms
        )
        return answer.text

    def _score(self, page: int, question: int, **terms: Any) -> tuple[float, ...]:
        scores = self._model.score(self._pages[page], QUESTIONS[question], OPTIONS_SCORED, **terms)
        return tuple(score.logprob for score in scores)

    def _whole(self, page: int, question: int, rng: random.Random) -> str:
        priority = rng.choice(PRIORITIES)
        self._compare(self._ask(page, question, priority=priority), self._alone[page, question])
        return f"whole {priority} answer"

    def _part(self, page: int, question: int, rng: random.Random) -> str:
        text = ""
        with self._model.stream(
            self._pages[page],
            QUESTIONS[question],
            max_new_tokens=LONGEST,
            priority=rng.choice(PRIORITIES),
        ) as stream:
            for _ in range(rng.randrange(4)):
                text += next(stream, "")
        self._compare_part(text, self._alone[page, question])
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
            text = self._ask(page, question, timeout=rng.choice((0.001, 0.01)))
        except QueueTimeoutError:
            return "gave up waiting"
        self._compare(text, self._alone[page, question])
        return "answer in time"

    def _hurried(self, page: int, question: int, rng: random.Random) -> str:
        terms: dict[str, Any] = {"deadline_s": rng.choice(DEADLINES)}
        terms["best_effort"] = rng.random() < 0.5
        terms["priority"] = rng.choice(PRIORITIES)
        try:
            answer = self._model.ask(
                self._pages[page], QUESTIONS[question], max_new_tokens=LONGEST, **terms
            )
        except DeadlineError as error:
            if terms["best_effort"] or not error.predicted_s > error.deadline_s:
                raise Finding(SILENT, f"refused: {terms}, {error}") from None
            return "deadline refused"
        report = answer.deadline
        whole = answer.finish_reason != "deadline"
        if report is None or report.met != whole or bool(report.skipped) == whole:
            raise Finding(SILENT, f"{answer.finish_reason} with {report}")
        alone = self._alone[page, question]
        if not whole:
            self._compare_part(answer.text, alone)
            return "cut off by its deadline"
        self._compare(answer.text, alone)
        return "answer before its deadline"

    def _looked(self, page: int, question: int, rng: random.Random) -> str:
        shown = self._pages[page]
        if shown is None:
            shown = self._pages[page := 0]
        assert shown is not None
        hurry = rng.choice(DEADLINES) if rng.random() < 0.3 else None
        try:
            look = self._model.look(
                shown, deadline_s=hurry, best_effort=True, priority=rng.choice(PRIORITIES)
            )
        except DeadlineError:
            if hurry is None:
                raise
            return "too late to look"
        if rng.random() < 0.3:
            look.cancel()
        if rng.random() < 0.5 and not look.wait() and hurry is None and not look.done:
            raise Finding(SILENT, "a look that is not done was waited for")
        answer = self._model.ask(look, QUESTIONS[question], max_new_tokens=LONGEST)
        self._compare(answer.text, self._alone[page, question])
        return "looked, then asked"

    def _scored(self, page: int, question: int, rng: random.Random) -> str:
        hurry = rng.choice(DEADLINES) if rng.random() < 0.5 else None
        try:
            scores = self._score(page, question, deadline_s=hurry, priority=rng.choice(PRIORITIES))
        except DeadlineError:
            if hurry is None:
                raise
            return "no scores in time"
        alone = self._scores[page, question]
        if not np.allclose(scores, alone, atol=0.02):
            raise Finding(SILENT, f"{scores} with others, {alone} alone")
        return "scores"

    def _wrong(self, page: int, question: int, rng: random.Random) -> str:
        image = rng.choice((b"no image", "missing.png"))
        terms: dict[str, Any] = rng.choice(
            ({}, {"deadline_s": 60.0}, {"deadline_s": 0}, {"priority": "high"}, {"best_effort": 1})
        )
        calls: tuple[Callable[[], object], ...] = (
            lambda: self._model.ask(image, QUESTIONS[question], **terms),
            lambda: self._model.look(image, **terms),
            lambda: self._model.score(image, QUESTIONS[question], OPTIONS_SCORED, **terms),
            lambda: self._model.score(self._pages[page], QUESTIONS[question], ("a", "a")),
        )
        found = attempt(rng.choice(calls))
        if not isinstance(found, PulseEdgeError):
            raise Finding(SILENT, f"{image!r} with {terms} was answered")
        return "refused"

    def _forget(self, page: int, question: int, rng: random.Random) -> str:
        self._model.forget()
        return "forgot"

    @staticmethod
    def _compare(text: str, alone: str) -> None:
        if text != alone:
            raise Finding(SILENT, f"{text!r} with others, {alone!r} alone")

    @staticmethod
    def _compare_part(text: str, alone: str) -> None:
        # The whole answer is stripped, and a part may end in half a character.
        if not alone.startswith(text.strip().rstrip("\ufffd")):
            raise Finding(SILENT, f"{text!r} is no beginning of {alone!r}")
