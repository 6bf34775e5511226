"""Questions, pages and answers that the tests of models share."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pulse_edge
from pulse_edge.answer import Stopwatch
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.page.preparation import Preparation, PreparedPage, pending_page
from pulse_edge.page.source import ImageSource
from pulse_edge.params import Patience
from pulse_edge.worker import Worker

Q1 = "What is the rate?"
Q2 = "What is the rhythm?"
LONG = 300  # tokens; the context of a tiny model has room for them

Pixels = NDArray[np.uint8]


def page(seed: int = 0, size: tuple[int, int] = (150, 110)) -> Pixels:
    """Noise as uint8 [height, width, 3]; `size` is (width, height)."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def encoded(array: Pixels, form: str) -> bytes:
    """The pixels as an image file of a format of Pillow's."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, form)
    return out.getvalue()


def fresh(bundle: Path, *request: Any, **params: Any) -> pulse_edge.Answer:
    """The answer of a model that has seen nothing else."""
    return pulse_edge.load(bundle, threads=1).ask(*request, **{"max_new_tokens": 40} | params)


def usable(model: pulse_edge.Model, bundle: Path) -> bool:
    """Answers as a fresh model does, on the image it knows and on another."""
    return all(
        model.ask(image, Q2, max_new_tokens=40).token_ids == fresh(bundle, image, Q2).token_ids
        for image in (page(), page(1))
    )


def prepared(image: ImageSource, spec: ModelSpec) -> PreparedPage:
    """An image as the tower of a model takes it."""
    how = Preparation(spec)
    return pending_page(image).prepare(how, None, Stopwatch(), Patience(None), Cancellation())


def settled(worker: Worker) -> bool:
    """Whether all requests of a worker have ended; waits for those that end at this moment."""
    deadline = time.monotonic() + 10
    while worker.unfinished and time.monotonic() < deadline:
        time.sleep(0.001)
    return not worker.unfinished


def blocked(model: pulse_edge.Model) -> threading.Event:
    """Occupy the engine's thread until the event is set."""
    free, running = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        running.set()
        free.wait(30)

    threading.Thread(target=lambda: model.run_on_engine(wait), daemon=True).start()
    assert running.wait(30)
    return free
