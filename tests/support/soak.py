"""Hundreds of requests of every kind; resident memory must not grow.

    PYTHONPATH=tests python -m support.soak --minutes 10 [--model BUNDLE]

Prints resident memory after warm-up and at the end; exits 1 when it grew by 5 MB or more.
"""

from __future__ import annotations

import argparse
import gc
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import pulse_edge
from pulse_edge.page.source import ImageSource

from support import tiny

BAR = 5.0  # MB
SIZES = ((220, 170), (165, 128), (300, 100), (70, 140), (56, 56), (5000, 10), (1, 1), (640, 480))
QUESTIONS = (
    "What is the rate?",
    "Is the rhythm regular?",
    "Please write a clinical report based on this ECG image.",
)


def resident() -> float:
    """MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def page(rng: np.random.Generator) -> ImageSource:
    """A random image as an array, a PIL image or an encoded file."""
    width, height = SIZES[rng.integers(len(SIZES))]
    array = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        return array
    if kind == 1:
        return Image.fromarray(array)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, rng.choice(["PNG", "JPEG", "BMP"]))
    return buffer.getvalue()


def one_round(model: pulse_edge.Model, rng: np.random.Generator) -> int:
    """Several requests: two questions about a page, one cancelled, a chat, two that fail.

    Returns how many.
    """
    image = page(rng)
    for question in rng.choice(QUESTIONS, 2):
        model.ask(image, str(question), max_new_tokens=int(rng.integers(1, 40)))
    model.ask(
        image,
        QUESTIONS[0],
        max_new_tokens=20,
        temperature=1.0,
        top_p=0.9,
        seed=int(rng.integers(1000)),
        stop=("e",),
    )
    with model.stream(image, QUESTIONS[2]) as stream:
        next(stream, None)
    chat = model.chat(image)
    chat.ask(QUESTIONS[0], max_new_tokens=8)
    chat.ask(QUESTIONS[1], max_new_tokens=8)
    for wrong in (b"no image", "/nowhere.png"):
        try:
            model.ask(wrong, QUESTIONS[0])
        except pulse_edge.PulseEdgeError:
            continue
        raise AssertionError(f"{wrong!r} was answered")
    try:
        model.ask(image, "rate " * 3000)
    except pulse_edge.PulseEdgeError:
        return 9
    raise AssertionError("a prompt that does not fit was answered")


def soak(model: pulse_edge.Model, seconds: float, warm_up: float) -> tuple[float, float, int]:
    """(resident MB after warm-up, at the end, requests)."""
    rng, done, before = np.random.default_rng(0), 0, 0.0
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < warm_up + seconds:
        if not before and elapsed >= warm_up:
            before = resident()
        done += one_round(model, rng)
    return before or resident(), resident(), done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", help="a bundle; without it a tiny random one is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = arguments.model
        if bundle is None:
            from pulse_export.pipeline import export

            checkpoint = tiny.make_checkpoint(Path(scratch) / "tiny", context=1024)
            bundle = export(checkpoint, Path(scratch) / "bundle", precision="int8").path
        seconds = arguments.minutes * 60
        before, after, done = soak(pulse_edge.load(bundle), seconds * 0.9, seconds * 0.1)
    print(
        f"{done} requests in {arguments.minutes:g} min: "
        f"{before:.1f} MB after warm-up, {after:.1f} MB at the end"
    )
    return int(after - before >= BAR)


if __name__ == "__main__":
    sys.exit(main())
