"""DICOM recordings that were damaged, or whose elements were changed.

Samples have no checksum: a turned bit in them is another sample, and nothing else may change. What
the elements say is believed or refused: a file that says the same of its waveforms gives the same
recording. One that says something else of its scale does not give the old one.
"""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import PulseEdgeError

from fuzz.bytes_ import DAMAGE, flip_bits
from fuzz.campaign import SILENT, Counts, Finding, attempt
from fuzz.dicom_files import FORMS, dicom_file, facts_of

DRAWN = 25  # one in so many accepted recordings is drawn, which takes most of the time
NUMBERS = ("0", "-1", "1e-30", "1e30", "0.001", "1000", "nan", "inf", "", "1e308", "65536", "abc")
TEXTS = ("", "I", "V9", "mV", "uV", "\\", "DERIVED", "ORIGINAL", "\x1b[31m", "A" * 64, "µV")
SHORTS = (0, 1, 2, 11, 13, 255, 32767, 65535)
SCALE = ("ChannelSensitivity", "ChannelSensitivityCorrectionFactor", "ChannelBaseline")


class Recordings:
    """The campaign."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "recording.dcm"
        self._seeds = []
        for form in FORMS:
            data = dicom_file(form)
            self._seeds.append((data, self._read(data), facts_of(data), _samples_at(data)))

    def case(self, number: int, rng: random.Random) -> Counts:
        data, sound, facts, (start, end) = self._seeds[number % len(self._seeds)]
        kind = rng.choice([*DAMAGE, "samples", "element", "scale"])
        if kind == "samples":
            changed = data[:start] + flip_bits(data[start:end], rng) + data[end:]
        elif kind in ("element", "scale"):
            changed = change_element(data, rng, kind == "scale")
        else:
            changed = DAMAGE[kind](data, rng)
        found = attempt(lambda: self._read(changed))
        if isinstance(found, PulseEdgeError):
            return {"refused": 1}
        if rng.randrange(DRAWN) == 0:
            attempt(lambda: draw_page(found))
        if kind == "samples":
            return _other_samples(found, sound)
        if same(found, sound):
            if kind == "scale" and facts_of(changed) != facts:
                raise Finding(SILENT, f"another scale gives the same recording ({_shown(changed)})")
            return {"the same": 1}
        if kind == "truncate" or _contradicts(facts_of(changed), facts, found, sound):
            raise Finding(SILENT, f"{kind}: another recording than the file says")
        return {"another": 1}

    def _read(self, data: bytes) -> Recording:
        self._path.write_bytes(data)
        return read_recording(self._path)


def same(one: Recording, other: Recording) -> bool:
    """Whether two recordings draw the same page."""
    return (one.leads, one.rate) == (other.leads, other.rate) and np.array_equal(
        one.signals, other.signals, equal_nan=True
    )


def _contradicts(said: Any, facts: Any, found: Recording, sound: Recording) -> bool:
    """Whether a recording differs from the sound one though its file says the same. Of a file that
    pydicom cannot read, only samples may differ."""
    if said is not None:
        return bool(said == facts)
    return _form(found) != _form(sound)


def _form(recording: Recording) -> tuple[object, ...]:
    return recording.leads, recording.rate, recording.signals.shape


def _other_samples(found: Recording, sound: Recording) -> Counts:
    """Up to three turned bits are up to three other samples, each in one lead."""
    if _form(found) != _form(sound):
        raise Finding(SILENT, "samples: other leads, or another rate or length")
    equal = (found.signals == sound.signals) | (np.isnan(found.signals) & np.isnan(sound.signals))
    if (~equal).sum() > 3:
        raise Finding(SILENT, f"samples: {(~equal).sum()} differ after three bits")
    return {"other samples": 1}


def _samples_at(data: bytes) -> tuple[int, int]:
    """Where the samples of the first group lie."""
    group = pydicom.dcmread(io.BytesIO(data)).WaveformSequence[0]
    start = data.index(group.WaveformData)
    return start, start + len(group.WaveformData)


def _elements(dataset: Any) -> Iterator[tuple[Any, Any]]:
    """(data set, element) of everything in a file but its samples."""
    for element in dataset:
        if element.keyword == "WaveformData":
            continue
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def change_element(data: bytes, rng: random.Random, scale: bool) -> bytes:
    """One element with another value, missing, or repeated. `scale`: one that gives the size of a
    step of the first group, or its unit."""
    dataset: Any = pydicom.dcmread(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scale:
            channel = rng.choice(dataset.WaveformSequence[0].ChannelDefinitionSequence)
            if rng.random() < 0.3:
                unit = rng.choice(("uV", "mV", "V", "nV", "kg", "", "mm[Hg]"))
                channel.ChannelSensitivityUnitsSequence[0].CodeValue = unit
            else:
                channel[rng.choice(SCALE)].value = rng.choice(("2", "-1", "0.5", "1.01", "100"))
        else:
            holder, element = rng.choice(list(_elements(dataset)))
            _change(holder, element, rng)
        file = io.BytesIO()
        try:
            dataset.save_as(file)
        except Exception:  # pydicom does not write every value
            return flip_bits(data, rng)
    return file.getvalue()


def _change(holder: Any, element: Any, rng: random.Random) -> None:
    if rng.random() < 0.25:
        del holder[element.tag]
    elif element.VR == "SQ":
        items = list(element.value)
        if rng.random() < 0.5 and items:
            items.append(rng.choice(items))
        else:
            items = items[: rng.randrange(len(items) + 1)]
        element.value = items
    elif element.VR in ("US", "UL", "SS", "SL"):
        element.value = rng.choice(SHORTS)
    else:
        values = NUMBERS if element.VR in ("DS", "IS") else TEXTS
        try:
            element.value = rng.choice(values)
        except (ValueError, TypeError, OverflowError):
            del holder[element.tag]


def _shown(data: bytes) -> str:
    """The scales of a file's first group."""
    dataset: Any = pydicom.dcmread(io.BytesIO(data))
    channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
    values = {
        (*(str(channel.get(name)) for name in SCALE),
         channel.ChannelSensitivityUnitsSequence[0].CodeValue)
        for channel in channels
    }  # fmt: skip
    return repr(sorted(values))[:200]
