"""Requests that are cancelled at random moments, which leave the model as a fresh one.

PYTHONPATH=tests python -m support.cancels --count 500 --precision int8
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import pulse_edge
from pulse_edge import runner
from pulse_edge.answer import Answer
from pulse_edge.errors import PulseEdgeError
from pulse_edge.look import Look
from pulse_edge.params import PRIORITIES

from support import tiny
from support.requests import Q1, Q2, encoded, page, settled

PIECE = 16  # rows, so that prefills of tiny models give way often
WHOLE = 40  # tokens of the answers that are compared
LONG = 300  # tokens, and of those that are cancelled
LARGE = (1400, 1000)  # pixels of a page that takes its time to prepare
SHORTEST = 0.0002  # seconds until a cancel
MOMENTS = ("preparation", "queue", "vision", "prefill", "decode", "pause", "end")


class RandomCancels:
    """Cancels requests of one model.

    Attributes:
        moments: how many were cancelled when; "end" are those that were faster.
    """

    def __init__(self, model: pulse_edge.Model, seed: int) -> None:
        self.model = model
        self.moments: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._images: list[Any] = [page(), page(1), encoded(page(2), "PNG")]
        self._large = [encoded(page(3 + n, LARGE), "PNG") for n in range(2)]
        start = time.monotonic()
        model.ask(self._large[0], Q1, max_new_tokens=LONG)
        self._longest = time.monotonic() - start

    def run(self, count: int) -> None:
        """Cancel some requests, one after the other."""
        for _ in range(count):
            if self._rng.random() < 0.4:
                self.model.forget()  # so that tower and prefill run
            busy = self._rng.random() < 0.4
            other = self._others() if busy else None
            moment = self._look() if self._rng.random() < 0.25 else self._stream()
            self.moments[moment] += 1
            if other is not None:
                other.join()
        assert settled(self.model.worker)

    def _others(self) -> threading.Thread:
        """Somebody who asks meanwhile: the request may have to wait, or to give way."""
        image = self._rng.choice(self._images)
        delay = self._rng.choice((0.0, self._delay()))

        def ask() -> None:
            time.sleep(delay)
            self.model.ask(image, Q2, max_new_tokens=WHOLE)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    def _stream(self) -> str:
        image = self._rng.choice(self._images + self._large)
        stream = self.model.stream(
            image, Q1, max_new_tokens=LONG, priority=self._rng.choice(PRIORITIES)
        )
        closing = _Closing(self, stream.delivery, stream.close)
        timer = threading.Timer(self._delay(), closing)
        timer.start()
        try:
            answer = stream.answer
        except PulseEdgeError:  # it was closed before a turn of its own
            return closing.moment
        finally:
            timer.cancel()
            timer.join()
        return _moment(answer)

    def _look(self) -> str:
        image = self._rng.choice(self._images)
        look: Look = self.model.look(image)
        time.sleep(self._delay() / 4)
        done = look.done
        look.cancel()
        return "end" if look.wait() or done else "prefill"

    def _delay(self) -> float:
        shortest, longest = math.log(SHORTEST), math.log(self._longest)
        return math.exp(self._rng.uniform(shortest, longest))


class _Closing:
    """Closes a stream, and notes what its request waited for then."""

    def __init__(self, cancels: RandomCancels, delivery: Any, close: Any) -> None:
        self.moment = "preparation"
        self._model = cancels.model
        self._delivery = delivery
        self._close = close

    def __call__(self) -> None:
        worker = self._model.worker
        if self._delivery in worker.unfinished and worker.running is not self._delivery:
            paused = self._delivery.usual_s is not None  # a call of the engine has begun for it
            self.moment = "pause" if paused else "queue"
        self._close()


def _moment(answer: Answer) -> str:
    if answer.finish_reason != "cancelled":
        return "end"
    if answer.token_ids:
        return "decode"
    return "prefill" if answer.timings.prefill else "vision"


def same_as_fresh(model: pulse_edge.Model, bundle: Path | None) -> bool:
    """Whether greedy answers have the text and tokens of a model that has seen nothing else."""
    images = [None, page(), page(1), encoded(page(2), "PNG")]
    rng = np.random.default_rng(0)
    for number in rng.permutation(2 * len(images)):
        request = (images[number // 2], (Q1, Q2)[number % 2])
        answer = model.ask(*request, max_new_tokens=WHOLE)
        alone = pulse_edge.load(bundle, threads=1).ask(*request, max_new_tokens=WHOLE)
        if (answer.text, answer.token_ids) != (alone.text, alone.token_ids):
            return False
    return True


def main() -> int:
    from pulse_export.pipeline import export

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="default: a tiny one, made here")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=1)
    options = parser.parse_args()
    runner.PIECE = PIECE
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle
        if bundle is None:
            bundle = Path(folder) / "bundle"
            checkpoint = tiny.make_checkpoint(Path(folder) / "checkpoint")
            export(checkpoint, bundle, precision=options.precision)
        model = pulse_edge.load(bundle, threads=1, slots=options.slots)
        cancels = RandomCancels(model, options.seed)
        cancels.run(options.count)
        same = same_as_fresh(model, bundle)
    print(dict(cancels.moments), "same" if same else "ANOTHER ANSWER")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
