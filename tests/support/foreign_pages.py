"""ECG pages by a second program, which shares no code with `pulse_edge.simulation` and
`pulse_edge.ecg.drawing`, and on which nothing is trained.

Beats are a heart vector (x, y, z) whose waves are Gaussians of the phase of the heart cycle, seen
through Dower's matrix (Sameni et al., "Multichannel ECG and noise modeling", 2007; Dower 1968). RR
intervals have the two spectral peaks of McSharry's ECGSYN. Pillow draws the pages.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Floats = NDArray[np.float64]

HZ = 360
SECONDS = 12.0  # of signal; pages show less
RHYTHMS = (
    "sinus rhythm",
    "sinus bradycardia",
    "sinus tachycardia",
    "sinus arrhythmia",
    "atrial fibrillation",
    "atrial flutter",
    "ventricular paced rhythm",
)
WEIGHTS = (0.3, 0.14, 0.16, 0.1, 0.16, 0.08, 0.06)
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
DOWER = np.array(
    [
        (0.632, -0.235, 0.059),  # I
        (0.235, 1.066, -0.132),  # II
        (-0.515, 0.157, -0.917),  # V1
        (0.044, 0.164, -1.387),
        (0.882, 0.098, -1.277),
        (1.213, 0.127, -0.601),
        (1.125, 0.127, -0.086),
        (0.831, 0.076, 0.230),  # V6
    ]
)


@dataclass(frozen=True)
class ForeignPage:
    """A page and what it shows: a rhythm of `RHYTHMS`, and the mean rate in bpm."""

    image: Image.Image
    rhythm: str
    rate: float


def foreign_page(number: int, seed: int = 7001) -> ForeignPage:
    """Page `number` of a set. The same arguments give the same page."""
    rng = np.random.default_rng([seed, number])
    rhythm = str(rng.choice(RHYTHMS, p=WEIGHTS))
    peaks = _r_peaks(rhythm, rng)
    signals = _add_noise(_twelve_leads(rhythm, peaks, rng), rng)
    image, shown = _draw(signals, rng)
    seen = peaks[(peaks >= 0) & (peaks < shown)]
    rate = 60 * (len(seen) - 1) / (seen[-1] - seen[0])
    return ForeignPage(_photographed(image, rng), rhythm, float(rate))


def _r_peaks(rhythm: str, rng: np.random.Generator) -> Floats:
    """Times of the R peaks in seconds, from before the recording to its end."""
    low, high = {
        "sinus rhythm": (62, 97),
        "sinus bradycardia": (40, 57),
        "sinus tachycardia": (104, 150),
        "sinus arrhythmia": (60, 88),
        "atrial fibrillation": (60, 145),
        "atrial flutter": (70, 150),
        "ventricular paced rhythm": (60, 80),
    }[rhythm]
    mean = 60 / rng.uniform(low, high)
    if rhythm == "atrial flutter":
        mean = int(rng.integers(2, 5)) * 60 / rng.uniform(270, 320)
    count = int(SECONDS / mean) + 6
    if rhythm == "atrial fibrillation":
        shape = rng.uniform(16, 36)  # a gamma distribution: coefficient of variation 0.17 to 0.25
        intervals = np.maximum(0.32, rng.gamma(shape, mean / shape, count))
    elif rhythm in ("atrial flutter", "ventricular paced rhythm"):
        intervals = mean * (1 + rng.normal(0, 0.003, count))
    else:
        beats = np.arange(count) * mean
        breath, slow = rng.uniform(0.18, 0.3), rng.uniform(0.08, 0.12)
        depth = rng.uniform(0.15, 0.24) if rhythm == "sinus arrhythmia" else rng.uniform(0, 0.02)
        phase = rng.uniform(0, 2 * np.pi, 2)
        swing = depth * np.sin(2 * np.pi * breath * beats + phase[0])
        swing += rng.uniform(0, 0.012) * np.sin(2 * np.pi * slow * beats + phase[1])
        intervals = mean * (1 + swing + rng.normal(0, 0.004, count))
    return np.cumsum(intervals) - rng.uniform(1, 2) * mean


# Waves of the heart vector: phase of the centre (radians of a cycle of one second), width, and
# amplitudes of x (left), y (down), z (back) in mV.
WAVES = {
    "P": ((-1.05, 0.13, 0.09, 0.14, 0.03),),
    "QRS": (
        (-0.14, 0.055, -0.1, 0.02, -0.16),
        (0.0, 0.075, 1.0, 0.9, 0.35),
        (0.14, 0.07, -0.18, -0.15, 0.75),
    ),
    "T": ((1.55, 0.36, 0.16, 0.13, -0.18), (1.85, 0.21, 0.2, 0.14, -0.14)),
}


def _vector(rhythm: str, rng: np.random.Generator) -> dict[str, list[tuple[float, ...]]]:
    """One person's waves: the table with other angles, sizes and widths."""
    turn = np.deg2rad(rng.uniform(-35, 30))
    turned = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    out: dict[str, list[tuple[float, ...]]] = {}
    size = rng.uniform(0.6, 1.3)
    wide = rhythm == "ventricular paced rhythm"
    for name, waves in WAVES.items():
        own = np.array(waves)
        own[:, 0] *= rng.uniform(0.9, 1.12)
        own[:, 1] *= rng.uniform(0.8, 1.25) * (1.9 if wide and name == "QRS" else 1)
        own[:, 2:] *= rng.uniform(0.75, 1.25, own[:, 2:].shape) * size
        own[:, 2:4] = own[:, 2:4] @ turned.T
        if wide and name == "QRS":
            own[:, 0] *= 2.0
            own[:, 2:] *= (0.5, -1.3, 0.9)
        if wide and name == "T":
            own[:, 2:] *= (-0.8, -1.6, -1.2)
        out[name] = [tuple(row) for row in own.tolist()]
    return out


def _twelve_leads(rhythm: str, peaks: Floats, rng: np.random.Generator) -> Floats:
    """(12, samples) in mV."""
    time = np.arange(int(SECONDS * HZ)) / HZ
    vector = np.zeros((3, len(time)))
    person = _vector(rhythm, rng)
    no_p = rhythm in ("atrial fibrillation", "atrial flutter", "ventricular paced rhythm")
    for number, peak in enumerate(peaks):
        before = peak - peaks[number - 1] if number else np.diff(peaks).mean()
        for name, waves in person.items():
            if name == "P" and no_p:
                continue
            # The phase of P and T follows the root of the cycle (Bazett), that of QRS does not.
            stretch = 1.0 if name == "QRS" else np.sqrt(min(before, 1.25))
            for centre, width, *amplitude in waves:
                at, sigma = centre * stretch / (2 * np.pi), width * stretch / (2 * np.pi)
                bump = np.exp(-0.5 * ((time - peak - at) / sigma) ** 2)
                vector += np.array(amplitude)[:, None] * bump
        if rhythm == "ventricular paced rhythm":
            onset = round((peak - 0.075) * HZ)
            if 0 <= onset < len(time) - 2:
                vector[:, onset : onset + 2] += np.array([(-0.3,), (0.8,), (0.5,)])
    leads = DOWER @ vector + _atria(rhythm, time, peaks, rng)
    one, two = leads[:2]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limb, leads[2:]])


def _atria(rhythm: str, time: Floats, peaks: Floats, rng: np.random.Generator) -> Floats:
    """(8, samples) fibrillatory or flutter waves on I, II, V1..V6."""
    strength = np.array([0.5, 1.0, 1.3, 0.9, 0.6, 0.4, 0.4, 0.4])[:, None]
    if rhythm == "atrial fibrillation":  # Stridh's model: a saw-tooth of harmonics, modulated
        f = rng.uniform(5, 7.5)
        phase = 2 * np.pi * f * time + rng.uniform(0.1, 0.4) / 0.2 * np.sin(2 * np.pi * 0.2 * time)
        level = rng.uniform(0.02, 0.07) * (1 + 0.4 * np.sin(2 * np.pi * 0.25 * time))
        saw = np.sum([np.sin(k * phase) / k for k in range(1, 4)], axis=0)
        waves: Floats = strength * level * saw
        return waves
    if rhythm == "atrial flutter":
        mean = float(np.diff(peaks).mean())
        ratio = round(mean * 295 / 60)
        phase = np.interp(time, peaks, np.arange(len(peaks))) * ratio * 2 * np.pi
        saw = np.sum([np.sin(k * phase) / k**1.3 for k in range(1, 6)], axis=0)
        strength = strength * np.array([0.5, 1.2, -0.8, -0.3, 0.3, 0.3, 0.3, 0.3])[:, None]
        return np.asarray(-rng.uniform(0.1, 0.17) * strength * saw)
    return np.zeros((8, len(time)))


def _add_noise(leads: Floats, rng: np.random.Generator) -> Floats:
    """Wander as a random walk, muscle noise in bursts, and quantization."""
    count = leads.shape[1]
    walk = np.cumsum(rng.normal(0, 1, (12, count // 40 + 2)), axis=1)
    walk -= walk.mean(1, keepdims=True)
    walk /= np.abs(walk).max(1, keepdims=True) + 1e-9
    at = np.arange(count) / 40
    wander = np.stack([np.interp(at, np.arange(len(row)), row) for row in walk])
    smooth = np.ones(HZ // 2) / (HZ // 2)
    wander = np.stack([np.convolve(row, smooth, "same") for row in wander])
    muscle = rng.normal(0, 1, (12, count))
    muscle = muscle - np.roll(muscle, 1, axis=1) * 0.6
    envelope = 0.4 + 0.6 * (np.sin(np.arange(count) / HZ * rng.uniform(0.5, 2)) > 0.3)
    noisy = leads + rng.uniform(0, 0.12) * wander + rng.uniform(0, 0.02) * muscle * envelope
    quantized: Floats = np.round(noisy / 0.005) * 0.005
    return quantized


@dataclass(frozen=True)
class _Paper:
    background: tuple[int, int, int]
    major: tuple[int, int, int]
    minor: tuple[int, int, int]
    pen: tuple[int, int, int]


PAPERS = (
    _Paper((255, 247, 245), (232, 150, 150), (248, 214, 212), (20, 20, 24)),
    _Paper((255, 255, 255), (205, 205, 205), (235, 235, 235), (0, 0, 0)),
    _Paper((250, 252, 245), (130, 190, 140), (214, 234, 214), (10, 20, 60)),
    _Paper((255, 236, 228), (222, 98, 84), (240, 178, 166), (40, 30, 30)),
    _Paper((246, 248, 255), (130, 160, 220), (208, 220, 246), (0, 0, 90)),
    _Paper((255, 250, 228), (214, 160, 84), (240, 216, 170), (60, 20, 20)),
)


def _draw(signals: Floats, rng: np.random.Generator) -> tuple[Image.Image, float]:
    """The page, and the seconds of its longest trace."""
    width = int(rng.integers(1250, 2300))
    height = int(width / rng.uniform(1.22, 1.62))
    paper = PAPERS[int(rng.integers(len(PAPERS)))]
    seconds = float(rng.choice([10.0, 10.0, 9.6, 8.0]))
    left, right = width * rng.uniform(0.02, 0.08), width * rng.uniform(0.015, 0.05)
    mm = (width - left - right) / (25 * seconds)
    image = Image.new("RGB", (width, height), paper.background)
    draw = ImageDraw.Draw(image)
    head = height * rng.uniform(0.05, 0.17)
    foot = height * rng.uniform(0.02, 0.06)
    if rng.random() < 0.93:
        _grid(draw, mm, paper, (0, int(head * rng.uniform(0, 0.9)), width, height))
    columns, strips = ((4, 1), (4, 1), (4, 1), (4, 0), (4, 3), (2, 0), (2, 1))[int(rng.integers(7))]
    rows = 12 // columns
    pitch = (height - head - foot) / (rows + strips)
    pen = max(1, round(mm * rng.uniform(0.2, 0.45)))
    font = ImageFont.load_default(max(9.0, mm * rng.uniform(2.2, 4.2)))
    for number in range(12):
        column, row = divmod(number, rows)
        begin = column * seconds / columns
        x = left + begin * 25 * mm
        y = head + (row + 0.55) * pitch
        part = slice(int(begin * HZ), int((begin + seconds / columns) * HZ))
        _line(draw, signals[number, part], (x, y), mm, (pen, paper.pen))
        where = (x + mm, y - pitch * rng.uniform(0.34, 0.4))
        draw.text(where, LEADS[number], fill=paper.pen, font=font)
    for strip in range(strips):
        lead = (1, 6, 10)[strip]
        y = head + (rows + strip + 0.55) * pitch
        _line(draw, signals[lead, : int(seconds * HZ)], (left, y), mm, (pen, paper.pen))
        draw.text((left + mm, y - 0.4 * pitch), LEADS[lead], fill=paper.pen, font=font)
    _head(draw, width, head, paper, rng)
    return image, seconds


def _grid(
    draw: ImageDraw.ImageDraw, mm: float, paper: _Paper, box: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = box
    for step, color, width in ((1, paper.minor, 1), (5, paper.major, max(1, round(mm / 4)))):
        for at in np.arange(left, right, step * mm):
            draw.line([(at, top), (at, bottom)], fill=color, width=width)
        for at in np.arange(top, bottom, step * mm):
            draw.line([(left, at), (right, at)], fill=color, width=width)


def _line(
    draw: ImageDraw.ImageDraw,
    volts: Floats,
    origin: tuple[float, float],
    mm: float,
    pen: tuple[int, tuple[int, int, int]],
) -> None:
    x = origin[0] + np.arange(len(volts)) / HZ * 25 * mm
    y = origin[1] - volts * 10 * mm
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    draw.line(points, fill=pen[1], width=pen[0], joint="curve")


def _head(
    draw: ImageDraw.ImageDraw, width: int, head: float, paper: _Paper, rng: np.random.Generator
) -> None:
    """Boxes and lines of text, as carts print them. No value in them is true."""
    font = ImageFont.load_default(max(9.0, head * rng.uniform(0.12, 0.2)))
    if rng.random() < 0.3:
        draw.rectangle((2, 2, width - 3, head * 0.9), outline=paper.pen, width=2)
    texts = ("Test patient", "ID 0000", "25 mm/s  10 mm/mV", "0.15-40 Hz", "Simulated", "Draft")
    for number, text in enumerate(rng.permutation(texts)[: int(rng.integers(1, 6))]):
        column, row = divmod(number, 2)
        place = (width * (0.03 + 0.3 * column), head * (0.1 + 0.35 * row))
        draw.text(place, str(text), fill=paper.pen, font=font)


def _photographed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half of the pages: slightly turned, seen from the side, unevenly lit, compressed."""
    if rng.random() < 0.5:
        return image
    width, height = image.size
    image = image.rotate(
        rng.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=(120, 110, 100)
    )
    slip = rng.uniform(-0.012, 0.012, 8) * width
    corners = np.array([0, 0, 0, height, width, height, width, 0], np.float64) + slip
    image = image.transform(
        image.size,
        Image.Transform.QUAD,
        tuple(corners.tolist()),
        Image.Resampling.BICUBIC,
        fillcolor=(120, 110, 100),
    )
    light = np.linspace(rng.uniform(0.65, 1), 1, width)[None, :, None]
    light = light * np.linspace(1, rng.uniform(0.75, 1), height)[:, None, None]
    lit = np.asarray(image, np.float64) * light + rng.normal(0, 3, (height, width, 1))
    image = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 1.6)) * width / 2000))
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=int(rng.integers(40, 90)))
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")
