"""A multiplex group of a DICOM file: channels that were sampled together (PS3.3 C.10.9)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pulse_edge.ecg.coverage import drawn_samples
from pulse_edge.ecg.leads import shown_names
from pulse_edge.ecg.readers.dicom_channels import (
    Channel,
    channel_of,
    scale_of,
    skew_of,
    words_of,
)
from pulse_edge.ecg.readers.dicom_items import DicomItem
from pulse_edge.ecg.readers.dicom_samples import (
    FORMS,
    Integers,
    looks_swapped,
    offset_binary,
    recorded,
    stored_values,
)
from pulse_edge.ecg.recording import check_rate
from pulse_edge.ecg.segments import Segment
from pulse_edge.errors import RecordingError

_AVERAGED = ("MEDIAN", "AVERAGE", "REPRESENTATIVE", "TEMPLATE")

_PADDED = 0.5  # seconds; the shortest run of a padding value that the signal takes as well


class Group(NamedTuple):
    """A multiplex group.

    Attributes:
        number: counted from 1.
        item: of the file.
        source: the file, for messages.
        rate: samples per second.
        length: samples of each channel.
        channels: in the file's order.
        offset: seconds from the file's reference time, or 0.
        derived: whether the cart computed it from other signals.
    """

    number: int
    item: DicomItem
    source: str
    rate: float
    length: int
    channels: tuple[Channel, ...]
    offset: float
    derived: bool

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.length / self.rate

    @property
    def leads(self) -> frozenset[str]:
        """The standard leads in it."""
        return frozenset(channel.lead for channel in self.channels if channel.is_standard)


def is_averaged(item: DicomItem) -> bool:
    """Whether a multiplex group calls itself an averaged beat."""
    label = (item.text("MultiplexGroupLabel") or "").upper()
    return any(word in label for word in _AVERAGED)


def group_of(item: DicomItem, number: int, source: str) -> Group:
    """A multiplex group without its samples.

    Args:
        item: of the WaveformSequence.
        number: of the group, from 1.
        source: the file, for messages.

    Raises:
        RecordingError: it lacks what the samples cannot be read without.
    """
    count = int(_need(item, "NumberOfWaveformChannels", source))
    length = int(_need(item, "NumberOfWaveformSamples", source))
    definitions = item.items("ChannelDefinitionSequence")
    if not definitions:
        raise RecordingError(f"{source}: the waveform has no Channel Definition Sequence")
    if len(definitions) != count:
        raise RecordingError(
            f"{source}: {count} channels, but {len(definitions)} channel definitions"
        )
    if length < 1:
        raise RecordingError(f"{source}: the recording holds no samples")
    rate = _need(item, "SamplingFrequency", source)
    check_rate(rate, source)
    channels = tuple(
        channel_of(definition, place, source) for place, definition in enumerate(definitions, 1)
    )
    offset = (item.number("MultiplexGroupTimeOffset") or 0.0) / 1000
    if not math.isfinite(offset):
        raise RecordingError(
            f"{source}: group {number} has a Multiplex Group Time Offset of {offset:g}; expected "
            "milliseconds"
        )
    derived = item.text("WaveformOriginality") == "DERIVED"
    return Group(number, item, source, rate, length, channels, offset, derived)


def segments_of(group: Group, leads: frozenset[str], start: float) -> Iterator[Segment]:
    """The samples of a group in mV, as far as a page can show them.

    Args:
        group: to read.
        leads: standard leads that are wanted of it; other leads come where they can be read.
        start: seconds from the recording's beginning to the group's.

    Raises:
        RecordingError: the samples are cut off or of an unknown form, or a wanted lead is not an
            ECG's.
    """
    raw, padding = _samples(group)
    for channel, row in zip(group.channels, raw, strict=True):
        if channel.lead in leads:
            yield _segment(group, channel, row, padding, start)
        elif not channel.is_standard:
            try:
                yield _segment(group, channel, row, padding, start)
            except (RecordingError, ValueError):  # a pressure, or what nobody will draw
                nothing = np.full(1, np.nan, np.float32)
                yield Segment(channel.lead, start, group.rate, nothing, 0.0, group.number)


def _samples(group: Group) -> tuple[Integers, int | None]:
    """Samples as allocated, [channels, samples], and the one that stands for none."""
    item, source = group.item, group.source
    form = shown_names([item.text("WaveformSampleInterpretation") or ""])
    bits = int(_need(item, "WaveformBitsAllocated", source))
    if (form, bits) not in FORMS:
        known = ", ".join(f"{name}/{size}" for name, size in FORMS)
        raise RecordingError(f"{source}: samples are {form}/{bits} bits; expected one of {known}")
    dtype = np.dtype(item.order + FORMS[form, bits])
    data = item.data("WaveformData")
    if data is None:
        raise RecordingError(f"{source}: the waveform has no Waveform Data")
    count = len(group.channels)
    if len(data) < count * group.length * dtype.itemsize:
        raise RecordingError(
            f"{source}: cut off: {len(data)} bytes for {count} channels of {group.length} samples"
        )
    shown = min(group.length, drawn_samples(group.rate))
    raw = np.frombuffer(data, dtype, count * shown).reshape(shown, count).T
    if looks_swapped(raw):
        raise RecordingError(
            f"{source}: the bytes of the samples are swapped; expected them in the order of the "
            "transfer syntax"
        )
    value = item.data("WaveformPaddingValue")
    padding = None
    if value is not None and len(value) >= dtype.itemsize:
        padding = int(np.frombuffer(value, dtype, 1)[0])
    return raw, padding


def _segment(
    group: Group, channel: Channel, raw: Integers, padding: int | None, start: float
) -> Segment:
    """A channel in mV."""
    scale = scale_of(channel)
    stored = channel.definition.number("WaveformBitsStored")
    bits = 8 * raw.dtype.itemsize if stored is None else int(stored)
    kept = recorded(raw, padding, math.ceil(_PADDED * group.rate))
    values = stored_values(raw[kept], bits, channel.refusal)
    if raw.dtype.kind == "u" and scale.baseline == 0:
        reason = offset_binary(values, bits)
        if reason is not None:
            raise channel.refusal(reason)
    signal = np.full(len(raw), np.nan, np.float32)
    signal[kept] = values * scale.step + scale.baseline
    begin = start + skew_of(channel, group.rate)
    return Segment(channel.lead, begin, group.rate, signal, scale.step, group.number)


def _need(item: DicomItem, keyword: str, source: str) -> float:
    value = item.number(keyword)
    if value is None:
        raise RecordingError(f"{source}: the waveform has no {words_of(keyword)}")
    return value
