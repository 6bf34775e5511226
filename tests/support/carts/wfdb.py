"""WFDB: a header, and a file of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.carts.signals import OTHER, PERSON, RATE, SECRET, STEP, Signals


def wfdb_files(
    folder: Path,
    signals: Signals,
    *,
    form: int = 16,
    rate: float = RATE,
    gain: str = f"{1000 / STEP:g}(0)/mV",
    name: str = "r01",
    file: str | None = None,
    checksums: bool = True,
    length: int | None = None,
    extra: str = "",
) -> Path:
    """Write a record.

    Args:
        folder: for both files.
        signals: counts by lead.
        form: of the samples: 8, 16, 24, 32, 61, 80, 160 or 212.
        rate: samples per second.
        gain: counts of a unit, the baseline and the unit.
        name: of the record.
        file: of samples, as the header says it.
        checksums: whether they are right.
        length: samples of each lead, as the header says.
        extra: after the format.

    Returns:
        The header.
    """
    count = len(next(iter(signals.values())))
    said = count if length is None else length
    file = f"{name}.dat" if file is None else file
    lines = [f"{name} {len(signals)} {rate:g} {said} 09:10:00 13/02/1987"]
    for lead, row in signals.items():
        checksum = (int(row.sum()) + (0 if checksums else 1)) & 0xFFFF
        lines.append(f"{file} {form}{extra} {gain} 16 0 {row[0]} {checksum} 0 {lead}")
    lines += [f"# {PERSON}, {OTHER}", f"# <age>: 39  <sex>: F  <id>: {SECRET}"]
    header = folder / f"{name}.hea"
    header.write_text("\n".join(lines) + "\n")
    frames = np.stack(list(signals.values()), axis=1).ravel()
    if form == 8:
        rows = [np.diff(row, prepend=row[0]) for row in signals.values()]
        frames = np.stack(rows, axis=1).ravel()
    (folder / f"{name}.dat").write_bytes(_stored(frames, form))
    return header


def _stored(values: NDArray[np.int64], form: int) -> bytes:
    if form == 212:
        pairs = np.append(values, np.zeros(len(values) % 2, np.int64)).reshape(-1, 2) & 0xFFF
        first, second = pairs.T
        parts = (first & 0xFF, first >> 8 | second >> 8 << 4, second & 0xFF)
        return np.stack(parts, axis=1).astype(np.uint8).tobytes()
    if form == 24:
        return values.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    types = {8: "i1", 16: "<i2", 32: "<i4", 61: ">i2"}
    if form in types:
        return values.astype(types[form]).tobytes()
    return (values + (128 if form == 80 else 32768)).astype("u1" if form == 80 else "<u2").tobytes()
