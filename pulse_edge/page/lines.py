"""Parallel lines at equal distances in a picture: their direction and their pitch.

A family of lines is a row of peaks in the spectrum of the picture, at the multiples of the
reciprocal of its pitch, along its normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Floats = NDArray[np.float64]

_SKEW = 12.0  # degrees to either side that are searched
_STEP = 0.1
_ALONG = 8  # px that are averaged along the lines
_PITCHES = (6.5, 130.0)  # px
_HIGHEST = 0.46  # cycles/px
_SIGNIFICANT = 20.0  # power over the median; the largest of 30,000 of pure noise is 15 to 20
_HARMONICS = 12
_MISSING = 2.5  # nepers that a harmonic costs which is not there
_PEAKS = 10
_RANGE = 100.0  # of the strongest peak's power, which the others have at least
_WINDOW = 31  # bins
_BEAT = 4.0  # nepers
_DOMINANT = 2.0  # power over that of the next peak
_STRONGEST = 5.0  # nepers that one peak counts at most


@dataclass(frozen=True)
class Lines:
    """A family of lines.

    Attributes:
        pitch: px from line to line, along the normal.
        tilt: degrees between the normal and the axis, by `atan(across / along)` of the frequency.
        strength: nepers of power over the noise, summed over the peaks.
        peaks: power over noise of the harmonics 1, 2, ... of the pitch; 1 where there is no peak.
    """

    pitch: float
    tilt: float
    strength: float
    peaks: tuple[float, ...]


@dataclass(frozen=True)
class _Ray:
    """Power over noise along one direction of the spectrum."""

    power: Floats
    unit: float  # cycles/px of a bin, along the normal
    tilt: float


def find_lines(plane: Plane) -> tuple[Lines, ...]:
    """Families of lines that cross the columns of a picture, the likeliest first.

    They differ in their pitch only: which of the peaks is the first harmonic. None if there are
    no such lines.

    Args:
        plane: float32 [height, width], of mean 0. Transpose it for lines that cross the rows.
    """
    ray = _best_ray(_spectrum(plane))
    if ray is None:
        return ()
    powers = ray.power.tolist()  # a few bins at a time are faster in a list
    found = [
        lines for pitch in _candidates(ray) if (lines := _lines_of(ray, powers, pitch)) is not None
    ]
    return tuple(sorted(found, key=lambda lines: -lines.strength))


def _spectrum(plane: Plane) -> tuple[NDArray[np.float32], int, int]:
    """(power over noise [frequency along y, frequency along x], samples in y, samples in x)."""
    narrow = _narrowed(plane)
    height, columns = narrow.shape
    rows = _fast(height)
    across = _fast(columns)
    narrow = narrow * np.hanning(height)[:, None].astype(np.float32)
    narrow = narrow * np.hanning(columns).astype(np.float32)
    spectrum = np.fft.fft(np.fft.rfft(narrow, rows, axis=0), across, axis=1)
    power: NDArray[np.float32] = np.asarray(np.abs(spectrum) ** 2, np.float32)
    floor = 1e-12 + 1e-7 * float(power.max())
    middle = sorted(((across - 1) // 2, across // 2))
    medians = np.partition(power, middle, axis=1)[:, middle].mean(axis=1)
    noise = np.maximum(_running_median(medians), floor)
    noise32 = noise.astype(np.float32)
    return np.asarray(power / noise32[:, None], np.float32), rows, across


def _narrowed(plane: Plane) -> Plane:
    """Means of pixels along the lines [height, columns]. Twice as fast as `mean` is."""
    height, width = plane.shape
    columns = max(1, width // _ALONG)
    used = plane[:, : columns * _ALONG]
    if plane.flags.c_contiguous:
        even = np.full(_ALONG, 1 / _ALONG, np.float32)
        means: Plane = np.ascontiguousarray(used).reshape(-1, _ALONG) @ even
        return means.reshape(height, columns)
    turned: Plane = used.T.reshape(columns, _ALONG, height).mean(axis=1)
    return np.ascontiguousarray(turned.T)


def _fast(length: int) -> int:
    """A length of 2, 3 and 5 only, which the transform likes."""
    best = 1 << max(1, (length - 1).bit_length())
    for three in (1, 3, 9):
        for five in (1, 5, 25):
            rest = -(-length // (three * five))
            best = min(best, three * five << max(0, (rest - 1).bit_length()))
    return best


def _best_ray(spectrum: tuple[NDArray[np.float32], int, int]) -> _Ray | None:
    """The direction with the most power in peaks; None if there is no peak."""
    power, rows, across = spectrum
    first = max(2, math.floor(rows / _PITCHES[1]))
    last = math.ceil(rows * _HIGHEST)
    if last <= first + 8 or across < 8:
        return None
    bins = np.arange(last)
    tilts = np.deg2rad(np.arange(-_SKEW, _SKEW + _STEP / 2, _STEP))
    # Frequency across in cycles/px is tan(tilt) times the one along; a bin is 1 / (8 columns).
    places = np.rint(np.tan(tilts)[:, None] * bins / rows * (across * _ALONG)).astype(int)
    reach = across // 2 - 1
    values = power[bins, np.clip(places, -reach, reach)]
    values = np.where(np.abs(places) <= reach, values, 1)
    peaks = np.log(np.maximum(values[:, first:] / _SIGNIFICANT, 1))
    scores = np.minimum(peaks, _STRONGEST).sum(axis=1)
    best = int(scores.argmax())
    if scores[best] <= 0:
        return None
    near = np.flatnonzero(scores >= 0.8 * scores[best])
    near = near[np.abs(near - best) <= 4]
    ray = values[near].max(axis=0).astype(np.float64)
    ray[:first] = 1
    ray = ray / np.maximum(1.0, _running_median(ray))
    tilt = _refined_tilt(power, ray, places[best], rows, across)
    return _Ray(ray, 1 / (rows * math.cos(math.radians(tilt))), tilt)


def _running_median(values: NDArray[np.floating]) -> Floats:
    """What traces and texts leave beside the peaks of lines."""
    half = _WINDOW // 2
    padded = np.pad(values, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.median(windows, axis=1), np.float64)


def _refined_tilt(
    power: NDArray[np.float32], ray: Floats, place: NDArray[np.int_], rows: int, across: int
) -> float:
    """Degrees, by the centres of the strongest peaks."""
    strongest = np.argsort(ray)[::-1][:6]
    sums = np.zeros(2)
    for row in strongest:
        if ray[row] < _SIGNIFICANT:
            break
        near = [int(place[row]) + offset for offset in (-3, -2, -1, 0, 1, 2, 3)]
        values = power[row, near].astype(np.float64)
        centre = int(values[1:-1].argmax()) + 1
        column = near[centre] + _vertex(*values[centre - 1 : centre + 2])
        tangent = column / (across * _ALONG) / (row / rows)
        weight = math.log(ray[row]) * row**2
        sums += weight * tangent, weight
    return math.degrees(math.atan(sums[0] / sums[1])) if sums[1] else 0.0


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through three logarithms has its vertex, -0.5 to 0.5."""
    a, b, c = (math.log(max(value, 1e-9)) for value in (left, middle, right))
    curve = a - 2 * b + c
    return 0.0 if curve >= 0 else max(-0.5, min(0.5, (a - c) / (2 * curve)))


def _candidates(ray: _Ray) -> list[float]:
    """First harmonics in bins that some peak could have."""
    power = ray.power
    inner = power[1:-1]
    tops = np.flatnonzero((inner >= power[:-2]) & (inner > power[2:]) & (inner > _SIGNIFICANT)) + 1
    tops = tops[np.argsort(power[tops])[::-1][:_PEAKS]]
    low, high = 1 / (_PITCHES[1] * ray.unit), 1 / (_PITCHES[0] * ray.unit)
    out: list[float] = []
    firsts: set[int] = set()
    for top in tops:
        place = top + _vertex(*power[top - 1 : top + 2])
        for harmonic in range(1, _HARMONICS + 1):
            first = place / harmonic
            if low <= first <= high or (harmonic == 1 and first > high):
                key = round(math.log(first) * 300)  # the same within 0.3 %
                if key not in firsts:
                    firsts.add(key)
                    out.append(first)
    return out


def _lines_of(ray: _Ray, powers: list[float], first: float) -> Lines | None:
    """Lines whose first harmonic is at this bin; None if few of its harmonics are there.

    Args:
        ray: of the lines.
        powers: of the ray.
        first: bin of the first harmonic.
    """
    peaks: list[float] = []
    place_sum = weight_sum = 0.0
    least = max(_SIGNIFICANT, float(ray.power.max()) / _RANGE)
    strength = 0.0
    total = 0.0
    for harmonic in range(1, _HARMONICS + 1):
        place = harmonic * first
        reach = 1.0 + 0.004 * place
        if place + reach >= len(powers) - 2:
            break
        low = max(1, math.ceil(place - reach))
        top = max(range(low, math.floor(place + reach) + 1), key=powers.__getitem__)
        value = powers[top]
        peaks.append(max(1.0, value))
        level = math.log(max(1.0, value) / least)
        total += max(-_MISSING, min(_STRONGEST, level - 1))
        strength = max(strength, total)
        if level > 0:
            exact = top + _vertex(*powers[top - 1 : top + 2])
            place_sum += level * exact * harmonic
            weight_sum += level * harmonic**2
    if strength > 0 and _is_beat(peaks):
        strength -= _BEAT
    if strength <= 0 or not weight_sum:
        return None
    return Lines(1 / (place_sum / weight_sum * ray.unit), ray.tilt, strength, tuple(peaks))


def _is_beat(peaks: list[float]) -> bool:
    """Whether lower harmonics may come from fine lines that fall between pixels.

    One harmonic is then far stronger than the others. In a grid that may be the fifth: the lines of
    1 mm.
    """
    strongest = int(np.argmax(peaks)) + 1
    if strongest in (1, 5):
        return False
    others = [peak for number, peak in enumerate(peaks, 1) if number % strongest]
    return bool(others) and max(others) * _DOMINANT < peaks[strongest - 1]
