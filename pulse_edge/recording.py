"""A 12-lead ECG recording, and how one is read from a file. A new file format is one row of `READERS`."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import RecordingError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True, eq=False)
class Recording:
    """Simultaneous leads of one ECG.

    `signals`: float32 [leads, samples], mV; NaN (or infinity) where nothing was recorded. `rate`: samples per
    second. `leads`: a name per row; the usual spellings of the 12 standard leads become those of `LEADS`,
    other leads are kept but not drawn. `source`: where it came from, for messages. Raises `RecordingError`.
    """

    signals: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    source: str = ""

    def __post_init__(self) -> None:
        where = self.source or "recording"
        signals = np.asarray(self.signals)
        if signals.ndim != 2 or signals.dtype.kind not in "fiu":
            got = f"{signals.dtype} {list(signals.shape)}"
            raise RecordingError(f"{where}: signals are {got}; expected real numbers [leads, samples]")
        if signals.shape[0] == 0:
            raise RecordingError(f"{where}: the recording holds no leads")
        if signals.shape[1] == 0:
            raise RecordingError(f"{where}: the recording holds no samples")
        if not 1 <= self.rate <= 1e6:
            raise RecordingError(f"{where}: a sampling rate of {self.rate} Hz; expected 1 to 1,000,000")
        leads = tuple(canonical_lead(name) for name in self.leads)
        if len(leads) != signals.shape[0]:
            raise RecordingError(f"{where}: {len(leads)} lead names for {signals.shape[0]} signals")
        if twice := sorted({lead for lead in leads if leads.count(lead) > 1}):
            raise RecordingError(f"{where}: more than one signal is named {', '.join(twice)}")
        with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which is a gap
            object.__setattr__(self, "signals", np.ascontiguousarray(signals, dtype=np.float32))
        object.__setattr__(self, "rate", float(self.rate))
        object.__setattr__(self, "leads", leads)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.signals.shape[1] / self.rate)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the 12 standard leads that are absent, or hold no finite sample."""
        there = {lead for lead, row in zip(self.leads, self.signals, strict=True) if np.isfinite(row).any()}
        return tuple(lead for lead in LEADS if lead not in there)


_LEAD_NAME = re.compile(
    r"(?:MDC_ECG_LEAD_|(?:ECG\s+)?lead[\s_:]*)?(III|II|I|aV[RLF]|V[1-6])\s*(?:\(.*\))?", re.IGNORECASE
)
_BY_LOWER = {lead.lower(): lead for lead in LEADS}


def canonical_lead(name: str) -> str:
    """`"Lead I (Einthoven)"`, `"AVR"`, `"MDC_ECG_LEAD_V1"` -> `"I"`, `"aVR"`, `"V1"`; other names stay."""
    match = _LEAD_NAME.fullmatch(name.strip())
    return _BY_LOWER[match[1].lower()] if match else name.strip()


# ---- files -------------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A file format: how its files' names end, the bytes that mark them at `offset`, and what reads them."""

    name: str
    suffixes: tuple[str, ...]
    offset: int
    magic: bytes
    read: Callable[[Path], Recording]


def is_recording(path: str | PathLike[str]) -> bool:
    """Whether a file looks like a waveform recording, by mark or suffix; reads a few bytes, never raises."""
    return _reader(Path(path)) is not None


def read_recording(path: str | PathLike[str]) -> Recording:
    """Read a recording in one of the formats of `READERS`. Raises `RecordingError`, and nothing else."""
    path = Path(path)
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    reader = _reader(path)
    if reader is None:
        known = ", ".join(f"{row.name} ({' '.join(row.suffixes)})" for row in READERS)
        raise RecordingError(f"{path}: not a waveform recording in a known format; known: {known}")
    return reader.read(path)


def _reader(path: Path) -> Reader | None:
    head = b""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        pass  # the suffix decides; reading it will say what is wrong
    marked = (row for row in READERS if head[row.offset :].startswith(row.magic))
    named = (row for row in READERS if path.suffix.lower() in row.suffixes)
    return next(marked, None) or next(named, None)


# ---- DICOM: PS3.3 C.10.9 (Waveform Module), A.34 (12-lead and general ECG) ---------------------------------

_SAMPLES = {  # (interpretation, bits) -> numpy
    ("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"
}  # fmt: skip
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}  # UCUM codes
# The last number of a lead's code in the schemes MDC ("2:61") and SCPECG ("5.6.3-9-61"); PS3.16 CID 3001.
_LEAD_CODES = dict(zip((1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), LEADS, strict=True))


def _read_dicom(path: Path) -> Recording:
    try:
        import pydicom
    except ImportError as error:
        raise RecordingError(f"{path}: DICOM needs pydicom: pip install 'pulse-edge[ecg]'") from error
    try:
        with warnings.catch_warnings():  # pydicom's warnings quote whatever stands in the file, names included
            warnings.simplefilter("ignore")
            return _from_dataset(pydicom.dcmread(path), str(path))
    except RecordingError:
        raise
    except Exception as error:  # pydicom parses on access, and damaged files raise nearly anything there
        reason = str(error).split("\n")[0][:100]
        raise RecordingError(f"{path}: not a readable DICOM file: {type(error).__name__}: {reason}") from error


def _from_dataset(dataset: Any, source: str) -> Recording:
    """The rhythm recording of a DICOM file, in mV."""
    groups = dataset.get("WaveformSequence") or []
    if not groups:
        kind = dataset.get("Modality", "unknown")
        raise RecordingError(f"{source}: a DICOM file ({kind}) without a waveform; expected a 12-lead ECG")
    rhythm = max(groups, key=_rhythm_rank)
    if _is_median_beat(rhythm):
        raise RecordingError(f"{source}: holds only an averaged beat; expected a rhythm recording")
    _, little_endian = dataset.original_encoding
    return _from_group(rhythm, "<" if little_endian else ">", source)


def _is_median_beat(group: Any) -> bool:
    label = str(group.get("MultiplexGroupLabel", "")).upper()
    return any(word in label for word in ("MEDIAN", "AVERAGE", "REPRESENTATIVE"))


def _rhythm_rank(group: Any) -> tuple[bool, bool, int, float]:
    """Sort key of a multiplex group: recorded before derived, then more leads, then longer."""
    leads = sum(_lead(channel) in LEADS for channel in group.get("ChannelDefinitionSequence") or [])
    seconds = (group.get("NumberOfWaveformSamples") or 0) / float(group.get("SamplingFrequency") or math.inf)
    return not _is_median_beat(group), group.get("WaveformOriginality") != "DERIVED", leads, seconds


def _from_group(group: Any, order: str, source: str) -> Recording:
    """A multiplex group as a recording. `order`: byte order as numpy writes it."""

    def need(item: Any, keyword: str, what: str = "the waveform") -> Any:
        value = item.get(keyword)
        if value is None or value == "":
            raise RecordingError(f"{source}: {what} has no {re.sub('(?<!^)(?=[A-Z])', ' ', keyword)}")
        return value

    form, bits = str(need(group, "WaveformSampleInterpretation")), int(need(group, "WaveformBitsAllocated"))
    if (form, bits) not in _SAMPLES:
        known = ", ".join(f"{name}/{size}" for name, size in _SAMPLES)
        raise RecordingError(f"{source}: samples are {form}/{bits} bits; expected one of {known}")
    count, length = int(need(group, "NumberOfWaveformChannels")), int(need(group, "NumberOfWaveformSamples"))
    channels = need(group, "ChannelDefinitionSequence")
    if len(channels) != count:
        raise RecordingError(f"{source}: {count} channels, but {len(channels)} channel definitions")
    data, dtype = need(group, "WaveformData"), np.dtype(order + _SAMPLES[form, bits])
    if count * length == 0:
        raise RecordingError(f"{source}: the recording holds no samples")
    if len(data) < count * length * dtype.itemsize:
        raise RecordingError(f"{source}: cut off: {len(data)} bytes for {count} channels of {length} samples")
    raw = np.frombuffer(data, dtype, count * length).reshape(length, count).T
    signals = raw.astype(np.float64)
    for number, channel in enumerate(channels):
        what = f"channel {number + 1} ({_lead(channel)})"
        sensitivity = float(need(channel, "ChannelSensitivity", what))
        unit = str(need(channel, "ChannelSensitivityUnitsSequence", what)[0].get("CodeValue", ""))
        if unit not in _MILLIVOLTS:
            raise RecordingError(f"{source}: {what} is in {unit!r}; expected one of {', '.join(_MILLIVOLTS)}")
        factor = channel.get("ChannelSensitivityCorrectionFactor")
        sensitivity *= 1.0 if factor is None else float(factor)
        baseline = float(channel.get("ChannelBaseline") or 0)
        signals[number] = (signals[number] * sensitivity + baseline) * _MILLIVOLTS[unit]
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        signals[raw == np.frombuffer(padding, dtype, 1)] = np.nan
    rate = float(need(group, "SamplingFrequency"))
    return Recording(signals.astype(np.float32), rate, tuple(_lead(channel) for channel in channels), source)


def _lead(channel: Any) -> str:
    """A channel's lead: by code where the scheme is known (names come in any language), else by name."""
    source = (channel.get("ChannelSourceSequence") or [{}])[0]
    code = re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d+)", str(source.get("CodeValue", "")))
    if code and int(code[1]) in _LEAD_CODES:
        return _LEAD_CODES[int(code[1])]
    return canonical_lead(str(source.get("CodeMeaning") or channel.get("ChannelLabel") or "unnamed"))


READERS = (Reader("DICOM", (".dcm", ".dicom"), 128, b"DICM", _read_dicom),)
