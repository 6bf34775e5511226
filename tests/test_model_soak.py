"""Many threads that do everything at once to one model: nothing hangs, and answers are right."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulse_edge
from pulse_edge.errors import ImageError, ParameterError, QueueTimeoutError

from support.requests import Q1, Q2, encoded, fresh, page, settled

THREADS = 8
OPERATIONS = 200  # of each thread
TOKENS = 4
PAGES = 3
SECONDS = 240  # after which a thread is taken for hung


class Soak:
    """Random operations, whose answers are compared with those of a model of one request."""

    def __init__(self, bundle: Path, model: pulse_edge.Model) -> None:
        self.model = model
        self.pages = [None, page(), encoded(page(1), "PNG"), encoded(page(2), "BMP")]
        self.expected: dict[tuple[int, str], pulse_edge.Answer] = {
            (i, question): fresh(bundle, image, question, max_new_tokens=TOKENS)
            for i, image in enumerate(self.pages)
            for question in (Q1, Q2)
        }
        self.chats = {i: self._turns(bundle, i) for i in range(len(self.pages))}
        self.done: Counter[str] = Counter()

    def _turns(self, bundle: Path, i: int) -> list[tuple[int, ...]]:
        chat = pulse_edge.load(bundle, threads=1).chat(self.pages[i])
        return [chat.ask(q, max_new_tokens=TOKENS).token_ids for q in (Q1, Q2)]

    def run(self, seed: int) -> None:
        rng = random.Random(seed)
        operations = (self.ask, self.ask, self.part, self.close, self.drop, self.forget)
        others = (self.chat, self.pass_on, self.fail, self.hurry, self.two_readers)
        for _ in range(OPERATIONS):
            operation = rng.choice(operations + others)
            operation(rng.randrange(len(self.pages)), rng.choice((Q1, Q2)))
            self.done[operation.__name__] += 1

    def stream(self, i: int, question: str, tokens: int = TOKENS, **params: Any) -> Any:
        return self.model.stream(self.pages[i], question, max_new_tokens=tokens, **params)

    def ask(self, i: int, question: str) -> None:
        answer = self.model.ask(self.pages[i], question, max_new_tokens=TOKENS)
        assert answer.token_ids == self.expected[i, question].token_ids

    def part(self, i: int, question: str) -> None:
        stream = self.stream(i, question)
        text = next(stream, "")
        assert self.expected[i, question].text.startswith(text)
        assert stream.answer.text == self.expected[i, question].text

    def close(self, i: int, question: str) -> None:
        with self.stream(i, question, 100) as stream:
            next(stream, "")

    def drop(self, i: int, question: str) -> None:
        for _ in self.stream(i, question, 100):
            break

    def forget(self, i: int, question: str) -> None:
        self.model.forget()

    def chat(self, i: int, question: str) -> None:
        chat = self.model.chat(self.pages[i])
        turns = [chat.ask(q, max_new_tokens=TOKENS).token_ids for q in (Q1, Q2)]
        assert turns == self.chats[i]

    def pass_on(self, i: int, question: str) -> None:
        """Begun here, read in another thread."""
        stream = self.stream(i, question)
        next(stream, "")
        tokens: list[tuple[int, ...]] = []
        reader = threading.Thread(target=lambda: tokens.append(stream.answer.token_ids))
        reader.start()
        reader.join(SECONDS)
        assert tokens == [self.expected[i, question].token_ids]

    def fail(self, i: int, question: str) -> None:
        for image, text, error in ((b"none", question, ImageError), (None, " ", ParameterError)):
            try:
                self.model.ask(image, text)
            except error:
                continue
            raise AssertionError("a wrong request was answered")

    def hurry(self, i: int, question: str) -> None:
        try:
            answer = self.stream(i, question, timeout=0.001 * i).answer
        except QueueTimeoutError:
            return
        assert answer.token_ids == self.expected[i, question].token_ids

    def two_readers(self, i: int, question: str) -> None:
        stream = self.stream(i, question)
        other = threading.Thread(target=lambda: list(stream))
        other.start()
        list(stream)
        other.join(SECONDS)
        assert stream.text == stream.answer.text == self.expected[i, question].text


def test_eight_threads(bundle: Path, model: pulse_edge.Model) -> None:
    soak = Soak(bundle, model)
    with ThreadPoolExecutor(THREADS) as pool:
        for each in [pool.submit(soak.run, seed) for seed in range(THREADS)]:
            each.result(SECONDS)
    assert sum(soak.done.values()) == THREADS * OPERATIONS
    assert min(soak.done.values()) > 50
    assert settled(model.worker)
    model.forget()
    for i in range(len(soak.pages)):
        soak.ask(i, Q1)
