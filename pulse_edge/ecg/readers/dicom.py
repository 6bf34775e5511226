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

# (WaveformSampleInterpretation, WaveformBitsAllocated) -> numpy's type without its byte order.
_SAMPLES = {
    ("SB", 8): "i1",
    ("UB", 8): "u1",
    ("SS", 16): "i2",
    ("US", 16): "u2",
    ("SL", 32): "i4",
    ("UL", 32): "u4",
}
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}  # UCUM codes
# The last number of a lead's code in the schemes MDC ("2:61") and SCPECG ("5.6.3-9-61"); PS3.16 CID
# 3001.
_LEAD_CODES = dict(zip((1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), LEADS, strict=True))


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are those of DICOM: a preamble of 128 bytes, then a mark."""
    return head[128:132] == b"DICM"


def read_dicom(path: Path) -> Recording:
    """Read the rhythm recording of a DICOM file.

    Raises:
        RecordingError: the file is damaged or holds no such recording.
        ImportError: pydicom is not installed.
    """
    import pydicom

    try:
        # pydicom's warnings quote what the file holds, a patient's name included.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _from_dataset(pydicom.dcmread(path), str(path))
    except RecordingError:
        raise
    except Exception as error:  # pydicom parses on access, and damaged files raise nearly anything
        reason = str(error).split("\n")[0][:100]
        raise RecordingError(
            f"{path}: not a readable DICOM file: {type(error).__name__}: {reason}"
        ) from error


def _from_dataset(dataset: Any, source: str) -> Recording:
    """The rhythm recording of a DICOM file, in mV."""
    groups = dataset.get("WaveformSequence") or []
    if not groups:
        kind = dataset.get("Modality", "unknown")
        raise RecordingError(
            f"{source}: a DICOM file ({kind}) without a waveform; expected a 12-lead ECG"
        )
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
    rate = float(group.get("SamplingFrequency") or math.inf)
    seconds = (group.get("NumberOfWaveformSamples") or 0) / rate
    recorded = group.get("WaveformOriginality") != "DERIVED"
    return not _is_median_beat(group), recorded, leads, seconds


def _from_group(group: Any, order: str, source: str) -> Recording:
    """A multiplex group as a recording. `order`: byte order as numpy writes it."""

    def need(item: Any, keyword: str, what: str = "the waveform") -> Any:
        value = item.get(keyword)
        if value is None or value == "":
            words = re.sub("(?<!^)(?=[A-Z])", " ", keyword)
            raise RecordingError(f"{source}: {what} has no {words}")
        return value

    form = str(need(group, "WaveformSampleInterpretation"))
    bits = int(need(group, "WaveformBitsAllocated"))
    if (form, bits) not in _SAMPLES:
        known = ", ".join(f"{name}/{size}" for name, size in _SAMPLES)
        raise RecordingError(f"{source}: samples are {form}/{bits} bits; expected one of {known}")
    count = int(need(group, "NumberOfWaveformChannels"))
    length = int(need(group, "NumberOfWaveformSamples"))
    channels = need(group, "ChannelDefinitionSequence")
    if len(channels) != count:
        raise RecordingError(f"{source}: {count} channels, but {len(channels)} channel definitions")
    data = need(group, "WaveformData")
    dtype = np.dtype(order + _SAMPLES[form, bits])
    if count * length == 0:
        raise RecordingError(f"{source}: the recording holds no samples")
    if len(data) < count * length * dtype.itemsize:
        raise RecordingError(
            f"{source}: cut off: {len(data)} bytes for {count} channels of {length} samples"
        )
    raw = np.frombuffer(data, dtype, count * length).reshape(length, count).T
    signals = raw.astype(np.float64)
    for number, channel in enumerate(channels):
        what = f"channel {number + 1} ({_lead(channel)})"
        sensitivity = float(need(channel, "ChannelSensitivity", what))
        unit = str(need(channel, "ChannelSensitivityUnitsSequence", what)[0].get("CodeValue", ""))
        if unit not in _MILLIVOLTS:
            units = ", ".join(_MILLIVOLTS)
            raise RecordingError(f"{source}: {what} is in {unit!r}; expected one of {units}")
        factor = channel.get("ChannelSensitivityCorrectionFactor")
        sensitivity *= 1.0 if factor is None else float(factor)
        baseline = float(channel.get("ChannelBaseline") or 0)
        signals[number] = (signals[number] * sensitivity + baseline) * _MILLIVOLTS[unit]
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        signals[raw == np.frombuffer(padding, dtype, 1)] = np.nan
    rate = float(need(group, "SamplingFrequency"))
    leads = tuple(_lead(channel) for channel in channels)
    return Recording(signals.astype(np.float32), rate, leads, source)


def _lead(channel: Any) -> str:
    """A channel's lead.

    By code if the scheme is known, because names come in any language; else by name.
    """
    source = (channel.get("ChannelSourceSequence") or [{}])[0]
    code = re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d+)", str(source.get("CodeValue", "")))
    if code and int(code[1]) in _LEAD_CODES:
        return _LEAD_CODES[int(code[1])]
    return canonical_lead(
        str(source.get("CodeMeaning") or channel.get("ChannelLabel") or "unnamed")
    )
