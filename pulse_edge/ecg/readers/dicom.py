"""DICOM waveforms (PS3.3 A.34.3 and C.10.9)."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.ecg.recording import LEADS, Recording, canonical_lead
from pulse_edge.errors import RecordingError

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
