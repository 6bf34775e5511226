"""The held-out cases: pages, their truth, and questions about them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.simulation.noise import Noise
from pulse_edge.simulation.pages import (
    make_ecg,
    no_ecg,
    sample_header,
    sample_look,
    sample_style,
    shown_ectopy,
)
from pulse_edge.simulation.questions import CHOICES, Findings, Item, ask

TOPICS = ("rhythm", "rate", "conduction", "ectopy", "st")
SEED = 99001  # training uses other ones
NOISE = Noise(wander=0.13, white=0.032, hum=0.015, burst=0.12)


@dataclass(frozen=True)
class Case:
    """A held-out image with its truth (None: no ECG) and its questions."""

    image: Image.Image
    truth: Findings | None
    items: tuple[Item, ...]


def heldout_case(index: int, seed: int = SEED) -> Case:
    """A case of the held-out set `seed`.

    `index`: of a page, from 0; below zero, image -1 - `index` of those without an ECG.
    """
    if index < 0:
        rng = np.random.default_rng([seed, -1 - index, 6])
        return Case(no_ecg(rng), None, questions_for(None, rng))
    rng = np.random.default_rng([seed, index, 5])
    ecg = make_ecg(seed, index, NOISE, hz=500)
    look = sample_look(rng)
    style = replace(
        sample_style(rng),
        paper=look.paper,
        ink=look.ink,
        grid_major=look.major,
        grid_minor=look.minor,
    )
    # The simulator's noise is drawn for each lead, so it obeys no law of limb leads.
    recording = Recording(ecg.signal.astype(np.float32), ecg.hz, LEADS, tolerance=math.inf)
    image = draw_page(recording, style, sample_header(rng))
    measured = {"axis": ecg.spec.axis, "rate_bpm": ecg.rate_bpm, "ectopy": shown_ectopy(ecg)}
    truth = Findings.of({**ecg.spec.__dict__, **measured})
    return Case(image, truth, questions_for(truth, rng))


def heldout_indices(count: int, empty: float = 0.05) -> list[int]:
    """`count` pages and then `empty` of that many images without an ECG."""
    return [*range(count), *(-1 - index for index in range(round(count * empty)))]


def heldout(count: int, seed: int = SEED, empty: float = 0.05) -> Iterator[Case]:
    """The cases themselves; the same arguments give the same cases."""
    return (heldout_case(index, seed) for index in heldout_indices(count, empty))


def questions_for(truth: Findings | None, rng: np.random.Generator) -> tuple[Item, ...]:
    """The report, five questions, one detection, one choice of each kind, one that an ECG cannot
    answer."""
    items = [ask(truth, "report", rng), *(ask(truth, "question", rng, topic) for topic in TOPICS)]
    items += [
        ask(truth, "detection", rng),
        *(ask(truth, "choice", rng, topic) for topic in CHOICES),
    ]
    return (*items, ask(truth, "refusal", rng))
