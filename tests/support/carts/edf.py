"""EDF and EDF+."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from support.carts.signals import OTHER, PERSON, RATE, SECRET, STEP, Signals

_ANNOTATION = 60  # bytes of a record


def edf_file(
    signals: Signals,
    *,
    rate: int = RATE,
    step: float = STEP,
    unit: str = "uV",
    seconds: float = 1.0,
    kind: str = "EDF+C",
    onsets: Sequence[float] | None = None,
    count: int | None = None,
    label: str = "ECG {}",
) -> bytes:
    """A file of whole data records.

    Args:
        signals: counts by lead.
        rate: samples per second.
        step: of a count, in `unit`.
        unit: of all leads.
        seconds: of a record.
        kind: EDF+C, EDF+D or "" for EDF.
        onsets: when each record begins.
        count: of records, as the header says; None is the right one.
        label: of a lead.
    """
    per = round(rate * seconds)
    records = len(next(iter(signals.values()))) // per
    names = [label.format(lead) for lead in signals] + ([_LABEL] if kind else [])
    total = len(names)
    limit = f"{32767 * step:.6g}"
    heads = [
        (16, names),
        (80, [f"electrode of {PERSON}"] * total),
        (8, [unit] * len(signals) + [""] * bool(kind)),
        (8, [f"-{limit}"] * len(signals) + ["-1"] * bool(kind)),
        (8, [limit] * len(signals) + ["1"] * bool(kind)),
        (8, ["-32767"] * total),
        (8, ["32767"] * total),
        (80, ["HP:0.05Hz LP:150Hz N:50Hz"] * total),
        (8, [str(per)] * len(signals) + [str(_ANNOTATION // 2)] * bool(kind)),
        (32, [""] * total),
    ]
    head = (
        _text("0", 8)
        + _text(f"{SECRET} F 13-FEB-1987 {PERSON}", 80)
        + _text(f"Startdate 13-FEB-1987 {SECRET} {OTHER} X", 80)
        + b"13.02.8709.10.00"
        + _text(256 * (1 + total), 8)
        + _text(kind, 44)
        + _text(records if count is None else count, 8)
        + _text(f"{seconds:g}", 8)
        + _text(total, 4)
    )
    head += b"".join(_text(value, width) for width, values in heads for value in values)
    body = b""
    for number in range(records):
        for row in signals.values():
            body += row[number * per : (number + 1) * per].astype("<i2").tobytes()
        if kind:
            onset = number * seconds if onsets is None else onsets[number]
            note = f"+{onset:g}\x14\x14\0+{onset:g}\x14seen by {PERSON}\x14\0"
            body += note.encode().ljust(_ANNOTATION, b"\0")
    return head + body


_LABEL = "EDF Annotations"


def _text(value: object, width: int) -> bytes:
    return str(value).encode().ljust(width)[:width]


def step_of(step: float = STEP) -> np.float64:
    """The step that the header's numbers say, in the unit."""
    limit = float(f"{32767 * step:.6g}")
    return np.float64(limit / 32767)
