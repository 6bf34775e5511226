"""Samples of a DICOM channel as numbers, and those that no ECG can have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]

# (WaveformSampleInterpretation, WaveformBitsAllocated) -> numpy's type without its byte order.
FORMS = {
    ("SB", 8): "i1",
    ("UB", 8): "u1",
    ("SS", 16): "i2",
    ("US", 16): "u2",
    ("SL", 32): "i4",
    ("UL", 32): "u4",
}
_CONVERTERS = (8, 10, 12, 14, 16, 18, 20, 24)  # bits of the converters in use
_MID_SCALE = 1 / 16  # of the full range, around its middle
# A swapped reading is smoother by far more than this; a signal whose low byte is 0 is not.
_SMOOTHER = 4
_ROUGH = 0.7  # of a signal's deviation, from sample to sample; noise has 1.4, an ECG 0.1


def stored_values(raw: Integers, stored: int, refuse: Callable[[str], Exception]) -> Integers:
    """Samples by their `stored` low bits: the bits above them are the sign's, or 0.

    Args:
        raw: samples as allocated, without padding.
        stored: WaveformBitsStored.
        refuse: makes an error of a reason.

    Raises:
        Exception: what `refuse` makes, if samples do not fit the bits stored.
    """
    allocated = 8 * raw.dtype.itemsize
    if stored < 1:
        raise refuse(f"stores {stored} bits; expected 1 to {allocated}")
    if stored >= allocated or not raw.size:
        return raw
    least, most = int(raw.min()), int(raw.max())
    half = 1 << (stored - 1)
    if raw.dtype.kind == "u":
        if most < 2 * half:
            return raw
        raise refuse(f"has the sample {most:,}; expected 0 to {2 * half - 1:,} in {stored} bits")
    if -half <= least and most < half:
        return raw
    if least >= 0 and most < 2 * half:  # not sign-extended
        return np.where(raw >= half, raw.astype(np.int64) - 2 * half, raw)
    raise refuse(
        f"has samples from {least:,} to {most:,}; expected {-half:,} to {half - 1:,} in "
        f"{stored} bits"
    )


def recorded(raw: Integers, padding: int | None, shortest: int) -> NDArray[np.bool_]:
    """Which samples of a channel are no padding.

    Carts write a padding value that a signal takes as well, 0 above all. That value, and any inside
    the signal's range, counts as padding only in runs.

    Args:
        raw: samples as allocated.
        padding: the WaveformPaddingValue, or None.
        shortest: samples of a run.
    """
    kept = np.full(len(raw), True) if padding is None else raw != padding
    if padding is None or kept.all() or not kept.any():
        return kept
    if padding != 0 and not raw[kept].min() < padding < raw[kept].max():
        return kept
    turns = np.flatnonzero(np.diff(np.concatenate([[True], kept, [True]]).astype(np.int8)))
    for first, last in zip(turns[0::2], turns[1::2], strict=True):
        if last - first < shortest:
            kept[first:last] = True
    return kept


def offset_binary(values: Integers, stored: int) -> str | None:
    """Whether unsigned samples without a baseline ride on an offset: an ECG has negative values.

    Args:
        values: unsigned samples, without padding.
        stored: WaveformBitsStored.

    Returns:
        What is wrong, or None.
    """
    if not values.size:
        return None
    least, middle, most = (float(value) for value in np.percentile(values, (1, 50, 99)))
    rides = least > most - least
    ranges = [float(1 << bits) for bits in {*_CONVERTERS, stored} if bits <= 32]
    at_middle = any(abs(middle - full / 2) <= _MID_SCALE * full and most < full for full in ranges)
    if not rides and not at_middle:
        return None
    return (
        f"has unsigned samples of {least:,.0f} to {most:,.0f} and no Channel Baseline: offset "
        "binary; expected a baseline, or signed samples"
    )


def looks_swapped(raw: Integers) -> bool:
    """Whether samples of several bytes are smooth in the other byte order, and noise in this one.

    Args:
        raw: [channels, samples].
    """
    if raw.dtype.itemsize == 1 or raw.shape[1] < 3:
        return False
    given = raw.astype(np.float64)
    other = raw.byteswap().astype(np.float64)
    jumps = np.diff(given, axis=1)
    rough = np.sqrt((jumps**2).mean()) > _ROUGH * np.sqrt(given.var(axis=1).mean())
    smoother = _SMOOTHER * np.abs(np.diff(other, axis=1)).sum() < np.abs(jumps).sum()
    return bool(rough and smoother)
