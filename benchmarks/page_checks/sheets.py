"""Clean ECG pages by two drawing programs, each with the truth about its grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.layout import STRIPS, PageStyle
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.recording import Recording
from pulse_edge.simulation.pages import make_ecg

MM_PER_INCH = 25.4
SHAPES = (("3x4", 0), ("3x4", 1), ("3x4", 3), ("6x2", 0), ("12x1", 0))
GRIDS = ("lines", "thin", "dotted", "major", "minor")
Rgb = tuple[int, int, int]
# Paper, line of 5 mm, line of 1 mm, ink.
PAPERS: tuple[tuple[Rgb, Rgb, Rgb, Rgb], ...] = (
    ((255, 255, 255), (255, 0, 0), (254, 223, 219), (0, 0, 0)),
    ((255, 247, 245), (232, 150, 150), (248, 214, 212), (20, 20, 24)),
    ((255, 255, 255), (190, 190, 190), (228, 228, 228), (0, 0, 0)),
    ((250, 252, 245), (130, 190, 140), (214, 234, 214), (10, 20, 60)),
    ((255, 236, 228), (222, 98, 84), (240, 178, 166), (40, 30, 30)),
    ((246, 248, 255), (130, 160, 220), (208, 220, 246), (0, 0, 90)),
    ((255, 250, 228), (214, 160, 84), (240, 216, 170), (60, 20, 20)),
)


@dataclass(frozen=True)
class Sheet:
    """A clean page, and pixels of a millimetre on it."""

    image: Image.Image
    px_per_mm: float
    kind: str


def own_sheet(number: int, seed: int, dpi: float) -> Sheet:
    """A page by the product's own program.

    Args:
        number: of the page in its set.
        seed: of the set.
        dpi: of the page.
    """
    rng = np.random.default_rng([seed, number, 1])
    layout, strips = SHAPES[number % len(SHAPES)]
    colours = PAPERS[int(rng.integers(len(PAPERS)))]
    paper, major, minor, ink = (tuple(part / 255 for part in colour) for colour in colours)
    style = PageStyle(
        layout=layout,
        strips=STRIPS[strips],
        speed=int(rng.choice([25, 50])),
        gain=int(rng.choice([5, 10, 20])),
        dpi=dpi,
        paper=(paper[0], paper[1], paper[2]),
        grid_major=(major[0], major[1], major[2]),
        grid_minor=(minor[0], minor[1], minor[2]),
        ink=(ink[0], ink[1], ink[2]),
    )
    ecg = make_ecg(seed, number)
    recording = Recording(ecg.signal.astype(np.float32), ecg.hz, LEADS, tolerance=math.inf)
    image = draw_page(recording, style, "Simulated  ID 4711" if rng.random() < 0.5 else None)
    return Sheet(image, style.px_per_mm, f"own {layout}+{strips}")


def pillow_sheet(number: int, seed: int, dpi: float) -> Sheet:
    """A page by Pillow alone: its grid begins anywhere, has margins, and may be of dots.

    Args:
        number: of the page in its set.
        seed: of the set.
        dpi: of the page.
    """
    rng = np.random.default_rng([seed, number, 2])
    layout, strips = SHAPES[number % len(SHAPES)]
    mm = dpi / MM_PER_INCH
    width, height = round(rng.uniform(276, 297) * mm), round(rng.uniform(195, 215) * mm)
    paper, major, minor, ink = PAPERS[int(rng.integers(len(PAPERS)))]
    grid = GRIDS[int(rng.integers(len(GRIDS)))]
    image = Image.new("RGB", (width, height), paper)
    margin = mm * rng.uniform(0, 9, 4)
    box = (margin[0], margin[1] * 2, width - margin[2], height - margin[3])
    draw_squares(image, mm, (major, minor), grid, box)
    ecg = make_ecg(seed, number)
    draw = ImageDraw.Draw(image)
    columns = {"3x4": 4, "6x2": 2, "12x1": 1}[layout]
    rows = 12 // columns
    pitch = (height - 30 * mm) / (rows + strips)
    speed, gain = float(rng.choice([25, 50])), float(rng.choice([5, 10, 20]))
    gain = min(gain, 10.0 if rows + strips <= 6 else 5.0)
    pen = max(1, round(mm * rng.uniform(0.2, 0.4)))
    font = ImageFont.load_default(max(9.0, 3.2 * mm))
    step = 250 / columns
    places = [(n, 13 + n // rows * step, step, n % rows) for n in range(12)]
    places += [((1, 6, 10)[n], 13.0, 250.0, rows + n) for n in range(strips)]
    for lead, left, length, row in places:
        first = round((left - 13) / speed * ecg.hz)
        part = ecg.signal[lead, first : first + round(length / speed * ecg.hz)]
        y = 24 * mm + (row + 0.5) * pitch
        x = (left + np.arange(len(part)) / ecg.hz * speed) * mm
        trace = np.clip(y - part * gain * mm, 3 * mm, height - 3 * mm)
        draw.line(list(zip(x.tolist(), trace.tolist(), strict=True)), fill=ink, width=pen)
        draw.text((left * mm + mm, y - 0.42 * pitch), LEADS[lead], fill=ink, font=font)
    draw.text((15 * mm, 6 * mm), "Simulated  25 mm/s  10 mm/mV", fill=ink, font=font)
    return Sheet(image, mm, f"pillow {layout}+{strips} {grid}")


def draw_squares(
    image: Image.Image,
    mm: float,
    colours: tuple[Rgb, Rgb],
    grid: str,
    box: tuple[float, float, float, float],
) -> None:
    """A grid, drawn at four times the size so that lines lie between pixels, too.

    Args:
        image: gets the grid.
        mm: pixels of a millimetre.
        colours: of the lines of 5 mm and of 1 mm.
        grid: one of `GRIDS`.
        box: left, top, right and bottom of the grid in pixels.
    """
    left, top, right, bottom = box
    across = _cover(image.width, mm, grid, (left, right))
    down = _cover(image.height, mm, grid, (top, bottom))
    pixels = np.asarray(image, np.float32).copy()
    for level, colour in ((1, colours[1]), (0, colours[0])):
        lines = np.maximum(across[level][None, :], down[level][:, None])
        if grid == "dotted" and level == 1:
            lines = np.minimum(across[level][None, :], down[level][:, None])
        lines *= (across[2] > 0)[None, :] * (down[2] > 0)[:, None]
        pixels += lines[..., None] * (np.array(colour, np.float32) - pixels)
    image.paste(Image.fromarray((pixels + 0.5).astype(np.uint8)))


def _cover(
    length: int, mm: float, grid: str, ends: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much lines of 5 mm and of 1 mm cover each pixel, and where the grid is: 0..1."""
    fine = 4
    places = (np.arange(length * fine) + 0.5) / fine
    inside = (places >= ends[0]) & (places <= ends[1])
    thick = {"thin": 0.12, "dotted": 0.3}.get(grid, 0.18) * mm
    out = []
    for step in (5 * mm, mm):
        if (grid, step > mm * 2) in (("major", False), ("minor", True)):
            out.append(np.zeros(length, np.float32))
            continue
        away = np.abs((places - ends[0] + step / 2) % step - step / 2)
        line = (away <= max(thick, 0.8) / 2) & inside
        out.append(line.reshape(length, fine).mean(axis=1, dtype=np.float32))
    return out[0], out[1], inside[::fine].astype(np.float32)
