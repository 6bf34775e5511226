"""Random looks of a simulated page.

Layouts, headers and colours, and images without an ECG. Every choice is drawn from a generator that
the caller seeds, so that the same seed gives the same page. The order of the draws is part of that
promise: a line moved is another held-out set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pulse_edge.ecg.drawing import draw_grid
from pulse_edge.ecg.layout import Color, PageStyle
from pulse_edge.simulation.ecg import Ecg, EcgSpec
from pulse_edge.simulation.noise import Noise, add_noise
from pulse_edge.simulation.population import sample_spec
from pulse_edge.simulation.simulator import simulate


def sample_style(rng: np.random.Generator) -> PageStyle:
    """Layout, scales and proportions of a page at 200 dpi; colours come later, see `PaperLook`."""
    layout = str(
        rng.choice(["3x4", "3x4", "3x4", "3x4", "3x4", "3x4", "3x4", "3x4", "6x2", "12x1"])
    )
    style = PageStyle(layout=layout)
    if rng.random() < 0.5:
        return style
    width, height = rng.uniform(10.8, 11.8), rng.uniform(8.0, 9.0)
    speed = 50 if rng.random() < 0.04 else 25
    gain = int(rng.choice([5, 20])) if rng.random() < 0.08 else 10
    strips = (
        (("II", "V1", "II")[int(rng.integers(3))],)
        if layout == "6x2" and rng.random() < 0.5
        else None
    )
    return replace(
        style,
        speed=speed,
        gain=gain,
        width_in=float(width),
        height_in=float(height),
        strips=strips,
        label_mm=float(rng.uniform(-8, -5)),
        trace_pt=float(rng.uniform(0.6, 1.1)),
        text_pt=float(rng.uniform(9, 12)),
        show_calibration=bool(rng.random() < 0.9),
        show_separators=bool(rng.random() < 0.7),
        show_scale=bool(rng.random() < 0.9),
    )


def sample_header(rng: np.random.Generator) -> str | None:
    """Text above the traces, as machines print it; None for most pages."""
    if rng.random() < 0.65:
        return None
    lines = [
        f"ID {rng.integers(1000, 999999)}",
        f"{rng.choice(['Male', 'Female'])} {rng.integers(18, 95)} years",
        f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.20{rng.integers(10, 26)}",
        "Simulated recording",
        f"{rng.choice(['40', '100', '150'])} Hz filter",
        "Ward " + str(rng.integers(1, 12)),
    ]
    count = int(rng.integers(1, 4))
    return "   ".join(str(line) for line in rng.permutation(lines)[:count])


@dataclass(frozen=True)
class PaperLook:
    """Colours of a page in 0..1, and its disturbances."""

    paper: Color = (1, 1, 1)
    ink: Color = (0, 0, 0)
    major: Color = (1, 0, 0)
    minor: Color = (0.996, 0.875, 0.859)
    noise: float = 0.0  # standard deviation of pixel noise
    shade: float = 0.0  # darkening from one edge to the other
    tilt: float = 0.0  # direction of the shade, degrees


def sample_look(rng: np.random.Generator) -> PaperLook:
    """Colours and disturbances; nearly half of the pages have the default ones."""
    look = PaperLook()
    if rng.random() < 0.45:
        return look
    tint = rng.uniform(0.86, 1.0)
    paper = (1.0, float(rng.uniform(tint, 1)), float(tint))
    hue = np.array(
        [
            (1, 0, 0),
            (0.9, 0.35, 0.3),
            (0.3, 0.45, 0.9),
            (0.25, 0.65, 0.35),
            (0.5, 0.5, 0.5),
            (0.85, 0.5, 0.1),
        ]
    )[int(rng.integers(6))]
    strength = rng.uniform(0.35, 1.0)
    major, minor = (
        (1 - s * (1 - hue)) * paper for s in (strength, strength * rng.uniform(0.1, 0.4))
    )
    if rng.random() < 0.12:
        major = minor = np.array(paper)
    dark = rng.uniform(0, 0.3)
    ink = (dark, dark, float(dark + rng.uniform(0, 0.35) * (rng.random() < 0.4)))
    return PaperLook(
        paper,
        ink,
        tuple(major.tolist()),
        tuple(minor.tolist()),
        float(rng.uniform(0, 0.04)),
        float(rng.uniform(0, 0.3) * (rng.random() < 0.5)),
        float(rng.uniform(0, 360)),
    )


def shown_ectopy(ecg: Ecg) -> str:
    """The ectopy label, unless every premature beat fell outside of the recording."""
    return ecg.spec.ectopy if ((ecg.kind == 1) | (ecg.kind == 2)).any() else "none"


def make_ecg(
    seed: int,
    index: int,
    noise: Noise = Noise(),  # noqa: B008
    spec: EcgSpec | None = None,
    hz: int = 250,
) -> Ecg:
    """Page `index` of the set `seed`: the same pair gives the same recording."""
    spec = sample_spec(np.random.default_rng([seed, index, 0])) if spec is None else spec
    number = int(np.random.default_rng([seed, index, 1]).integers(2**31))
    return add_noise(simulate(spec, number, hz), number, noise)


def no_ecg(rng: np.random.Generator) -> Image.Image:
    """An image without any ECG: empty sheet, plain colour, noise, or a photograph-like picture."""
    width = int(rng.integers(700, 1400))
    height = int(width * rng.uniform(0.72, 1.0))
    kind = int(rng.integers(5))
    if kind == 0:
        style = PageStyle(dpi=100)
        look = sample_look(rng)
        style = replace(style, paper=look.paper, grid_major=look.major, grid_minor=look.minor)
        return draw_grid(style)
    if kind == 1:
        colored = rng.random() < 0.5
        shade = rng.integers(0, 256, 3) if colored else np.repeat(rng.choice([0, 128, 255]), 3)
        return Image.new("RGB", (width, height), tuple(int(v) for v in shade))
    if kind == 2:
        coarse = int(rng.choice([1, 1, 2, 4, 8]))
        shape = (height // coarse, width // coarse, 3 if rng.random() < 0.5 else 1)
        noise = np.broadcast_to(rng.integers(0, 256, shape, dtype=np.uint8), (*shape[:2], 3))
        return Image.fromarray(np.ascontiguousarray(noise)).resize((width, height))
    # A photograph's spectrum: octaves of smooth noise with falling amplitude, and objects with
    # edges.
    out = np.zeros((height // 2, width // 2, 3), np.float32)
    for octave in range(1, 7):
        cells = rng.random((2**octave, 2**octave, 3), dtype=np.float32)
        image = Image.fromarray((cells * 255).astype(np.uint8)).resize((width // 2, height // 2))
        out += np.asarray(image, np.float32) / 2**octave
    y, x = np.mgrid[: height // 2, : width // 2]
    for _ in range(int(rng.integers(0, 7))):
        sizes = [height / 2, width / 2, height / 6, width / 6]
        cy, cx, ry, rx = rng.random(4) * sizes + [0, 0, 8, 8]
        power = rng.choice([2, 8])
        inside = np.abs((y - cy) / ry) ** power + np.abs((x - cx) / rx) ** power < 1
        out[inside] = rng.integers(0, 256, 3) * 0.8 + 0.2 * out[inside]
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8)).resize((width, height))
