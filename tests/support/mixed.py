"""Everything that a model can be asked, at random and from several threads.

    PYTHONPATH=tests python -m support.mixed --minutes 30 [BUNDLE]

A whole greedy answer is the one that a fresh model gives, and a part is its beginning. `QueueOrder`
checks that requests of a priority take their first turn in the order in which they were queued.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import math
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulse_edge
from pulse_edge import runner
from pulse_edge.delivery import Delivery
from pulse_edge.errors import DeadlineError, PulseEdgeError, QueueFullError, QueueTimeoutError
from pulse_edge.look import Look
from pulse_edge.panels.panel import Panel, PanelQuestion
from pulse_edge.params import PRIORITIES

from support.requests import Q1, Q2, encoded, page, settled

TOKENS = 6
PAGES = 4
OPTIONS = ("yes", "no", "It is normal.")
PANEL = Panel(
    "mixed",
    "Mixed",
    (
        PanelQuestion("normal", Q2, ("no", "yes"), "plain", ("no", "yes"), scored=True),
        PanelQuestion("rate", Q1, max_new_tokens=TOKENS),
    ),
)
SHORTEST, LONGEST = 0.0005, 0.2  # seconds, of deadlines
GROWTH = 5e6  # bytes after the warm-up that are too much
HUNG = 120.0  # seconds after which a thread is taken for hung
PIECE = 16  # rows, so that prefills of tiny models give way often


class QueueOrder:
    """Whether requests of a priority take their first turn in the order of the queue."""

    def __init__(self) -> None:
        self.turns = 0
        self.wrong: list[str] = []
        self._numbers: dict[Delivery, int] = {}
        self._last: dict[str, int] = {}
        self._count = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all models while the body runs. One of them at a time gives its order."""
        enqueue, take_turn = Delivery.enqueue, Delivery.take_turn

        def numbered(own: Delivery, *work: Any) -> None:
            self._count += 1  # the worker's lock is held
            self._numbers[own] = self._count
            enqueue(own, *work)

        def checked(own: Delivery) -> bool:
            taken = take_turn(own)
            number = self._numbers.pop(own, None)
            if taken and number is not None:
                self._check(own.priority, number)
            return taken

        replacements: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
            ("enqueue", numbered, enqueue),
            ("take_turn", checked, take_turn),
        )
        for name, new, _ in replacements:
            setattr(Delivery, name, new)
        try:
            yield
        finally:
            for name, _, old in replacements:
                setattr(Delivery, name, old)

    def _check(self, priority: str, number: int) -> None:
        self.turns += 1
        if number < self._last.get(priority, 0):
            self.wrong.append(f"{priority} {number} after {self._last[priority]}")
        self._last[priority] = number


class Mixed:
    """Random operations on one model, whose answers are known from a fresh one.

    Attributes:
        done: operations that ended, by name and outcome.
    """

    def __init__(self, bundle: Path | None, model: pulse_edge.Model) -> None:
        self.model = model
        self.done: Counter[str] = Counter()
        self._pages: list[Any] = [None, page(), encoded(page(1), "PNG"), encoded(page(2), "BMP")]
        alone = pulse_edge.load(bundle, threads=1)
        self._answers: dict[tuple[int, str], pulse_edge.Answer] = {}
        self._scores: dict[int, tuple[float, ...]] = {}
        self._turns: dict[int, list[tuple[int, ...]]] = {}
        for i, image in enumerate(self._pages):
            for question in (Q1, Q2):
                alone.forget()
                answer = alone.ask(image, question, max_new_tokens=TOKENS)
                self._answers[i, question] = answer
            chat = alone.chat(image)
            self._turns[i] = [chat.ask(q, max_new_tokens=TOKENS).token_ids for q in (Q1, Q2)]
            self._scores[i] = tuple(s.logprob for s in alone.score(image, Q2, OPTIONS))
        result = alone.panel(self._pages[1], PANEL)
        self._panel = [each.text for each in result.questions]

    def run(self, seed: int, operations: int) -> None:
        """Run operations, one after the other. For several threads at a time."""
        rng = random.Random(seed)
        kinds = (
            self.ask,
            self.ask,
            self.part,
            self.cancel,
            self.cancel,
            self.deadline,
            self.deadline,
            self.chat,
            self.look,
            self.score,
            self.panel,
            self.hurry,
            self.forget,
        )
        for _ in range(operations):
            kind = rng.choice(kinds)
            try:
                outcome = kind(rng, rng.randrange(PAGES))
            except QueueFullError as error:
                outcome = "full" if error.retry_after_s > 0 else "full for ever"
            except DeadlineError:
                outcome = "refused or late"
            self.done[f"{kind.__name__}: {outcome}"] += 1

    def check(self) -> None:
        """Every page and question has the answer of a fresh model."""
        for (i, question), expected in self._answers.items():
            answer = self.model.ask(self._pages[i], question, max_new_tokens=TOKENS)
            assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)

    def ask(self, rng: random.Random, i: int) -> str:
        question = rng.choice((Q1, Q2))
        priority = rng.choice(PRIORITIES)
        answer = self.model.ask(self._pages[i], question, max_new_tokens=TOKENS, priority=priority)
        self._same(answer, i, question)
        return priority

    def part(self, rng: random.Random, i: int) -> str:
        with self._stream(rng, i, Q1) as stream:
            text = "".join(next(stream, "") for _ in range(rng.randrange(3)))
        assert self._answers[i, Q1].text.startswith(text.strip())
        return "closed"

    def cancel(self, rng: random.Random, i: int) -> str:
        stream = self._stream(rng, i, Q2, max_new_tokens=100)
        timer = threading.Timer(_log_uniform(rng), stream.close)
        timer.start()
        try:
            answer: pulse_edge.Answer = stream.answer
            return answer.finish_reason
        except (QueueFullError, DeadlineError):
            raise
        except PulseEdgeError:  # closed before its turn
            return "before its turn"
        finally:
            timer.cancel()
            timer.join()

    def deadline(self, rng: random.Random, i: int) -> str:
        question = rng.choice((Q1, Q2))
        image = self.model.look(self._pages[i]) if i and rng.random() < 0.3 else self._pages[i]
        answer = self.model.ask(
            image,
            question,
            max_new_tokens=TOKENS,
            deadline_s=_log_uniform(rng),
            best_effort=rng.random() < 0.7,
            priority=rng.choice(PRIORITIES),
        )
        assert answer.deadline is not None
        if answer.finish_reason != "deadline":
            self._same(answer, i, question)
            return "whole"
        expected = self._answers[i, question].token_ids
        assert answer.token_ids == expected[: len(answer.token_ids)]
        return "cut off"

    def chat(self, rng: random.Random, i: int) -> str:
        chat = self.model.chat(self._pages[i])
        for question, expected in zip((Q1, Q2), self._turns[i], strict=True):
            answer = chat.ask(question, max_new_tokens=TOKENS, priority=rng.choice(PRIORITIES))
            assert answer.token_ids == expected
        return "two turns"

    def look(self, rng: random.Random, i: int) -> str:
        i = i or 1
        seconds = _log_uniform(rng) if rng.random() < 0.3 else None
        look: Look = self.model.look(self._pages[i], deadline_s=seconds, best_effort=True)
        what = rng.choice(("wait", "cancel", "ask", "leave"))
        if what == "cancel":
            time.sleep(_log_uniform(rng) / 10)
            look.cancel()
        if what == "ask":
            self._same(self.model.ask(look, Q1, max_new_tokens=TOKENS), i, Q1)
        if what != "leave":
            look.wait()
            assert look.done
        return what

    def score(self, rng: random.Random, i: int) -> str:
        seconds = _log_uniform(rng) if rng.random() < 0.5 else None
        scores = self.model.score(
            self._pages[i], Q2, OPTIONS, deadline_s=seconds, priority=rng.choice(PRIORITIES)
        )
        for score, expected in zip(scores, self._scores[i], strict=True):
            assert math.isclose(score.logprob, expected, abs_tol=0.02)
        return "whole"

    def panel(self, rng: random.Random, i: int) -> str:
        seconds = _log_uniform(rng) if rng.random() < 0.5 else None
        result = self.model.panel(
            self._pages[1], PANEL, deadline_s=seconds, priority=rng.choice(PRIORITIES)
        )
        if result.timing.skipped or any(e.finish_reason == "deadline" for e in result.questions):
            return "cut off"
        assert [each.text for each in result.questions] == self._panel
        return "whole"

    def hurry(self, rng: random.Random, i: int) -> str:
        try:
            answer = self._stream(rng, i, Q1, timeout=rng.choice((0, 0.001, 0.01))).answer
        except QueueTimeoutError:
            return "gave up"
        self._same(answer, i, Q1)
        return "whole"

    def forget(self, rng: random.Random, i: int) -> str:
        self.model.forget()
        return "forgot"

    def _stream(self, rng: random.Random, i: int, question: str, **params: Any) -> Any:
        named = {"max_new_tokens": TOKENS, "priority": rng.choice(PRIORITIES)} | params
        return self.model.stream(self._pages[i], question, **named)

    def _same(self, answer: pulse_edge.Answer, i: int, question: str) -> None:
        expected = self._answers[i, question]
        assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)


def _log_uniform(rng: random.Random) -> float:
    return math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST)))


def run_round(mixed: Mixed, seed: int, threads: int, operations: int) -> None:
    """Some operations of every thread; afterwards no request is left.

    Raises:
        AssertionError: an answer was wrong, a thread hung, or a request is left.
    """
    pool = ThreadPoolExecutor(threads)
    runs = [pool.submit(mixed.run, seed * threads + n, operations) for n in range(threads)]
    ended, hung = wait(runs, HUNG)
    pool.shutdown(wait=not hung)
    if hung:
        faulthandler.dump_traceback()
        raise AssertionError(f"{len(hung)} threads hang")
    for run in ended:
        run.result()
    assert settled(mixed.model.worker), "a request is left"


def resident_bytes() -> int:
    """Memory of this process that lies in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def soak(mixed: Mixed, minutes: float, threads: int, operations: int) -> list[tuple[float, int]]:
    """Rounds for some minutes; seconds and resident bytes after each."""
    start = time.monotonic()
    samples: list[tuple[float, int]] = []
    while time.monotonic() - start < 60 * minutes:
        run_round(mixed, len(samples), threads, operations)
        mixed.model.forget()
        gc.collect()
        samples.append((time.monotonic() - start, resident_bytes()))
        if len(samples) % 10 == 1:
            seconds, size = samples[-1]
            print(f"{seconds:7.0f} s  {size / 1e6:8.2f} MB  {mixed.done.total()}", flush=True)
    mixed.check()
    return samples


def growth(samples: list[tuple[float, int]], warm: float) -> float:
    """Bytes by which memory grew after warm-up: medians of the first and the last tenth.

    Args:
        samples: as `soak` returns them.
        warm: seconds of warm-up.
    """
    sizes = [size for seconds, size in samples if seconds > warm]
    part = max(1, len(sizes) // 10)
    first, last = sorted(sizes[:part]), sorted(sizes[-part:])
    return float(last[part // 2] - first[part // 2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: a tiny one, made here")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--operations", type=int, default=40, help="of a thread and round")
    parser.add_argument("--queue-limit", type=int, default=4)
    parser.add_argument("--slots", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or tiny_bundle(Path(folder))
        runner.PIECE = PIECE
        model = pulse_edge.load(
            bundle, threads=1, queue_limit=options.queue_limit, slots=options.slots
        )
        mixed = Mixed(bundle, model)
        order = QueueOrder()
        with order.watching():
            samples = soak(mixed, options.minutes, options.threads, options.operations)
    grown = growth(samples, 6 * options.minutes)  # a tenth of the time is warm-up
    record = {
        "seconds": samples[-1][0],
        "operations": mixed.done.total(),
        "growth_bytes": grown,
        "turns": order.turns,
        "out_of_order": order.wrong[:10],
        "done": dict(sorted(mixed.done.items())),
    }
    print(json.dumps(record, indent=1))
    return int(bool(order.wrong) or grown >= GROWTH)


def tiny_bundle(folder: Path) -> Path:
    """A tiny bundle in an empty folder."""
    from pulse_export.pipeline import export

    from support import tiny

    export(tiny.make_checkpoint(folder / "checkpoint"), folder / "bundle", precision="fp32")
    return folder / "bundle"


if __name__ == "__main__":
    sys.exit(main())
