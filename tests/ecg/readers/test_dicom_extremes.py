"""Numbers of a DICOM file at the ends of their range: read or refused, without a warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from pulse_edge.errors import RecordingError

from support.dicom_files import LEADS, Read, channel, dataset, ecg, group

EXTREMES = ("1e-320", "-1", "4294967295", "1e16", "-1e39", "1e300", "-1.7e308", "1e309", "nan")
OF_CHANNELS = (
    *("ChannelSensitivity", "ChannelSensitivityCorrectionFactor", "ChannelBaseline"),
    *("ChannelTimeSkew", "ChannelSampleSkew", "ChannelOffset"),
)
OF_GROUPS = ("SamplingFrequency", "MultiplexGroupTimeOffset")


def text(item: Any, keyword: str, value: str) -> None:
    """Store a number that pydicom itself refuses to write."""
    if keyword in item:
        del item[keyword]
    item.add_new(keyword, "LO", value)


def judged(read: Read, item: Any) -> None:
    """Read a file: with finite signals, or refused; and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            record = read(dataset(item))
        except RecordingError:
            return
    finite = record.signals[np.isfinite(record.signals)]
    assert finite.size == 0 or float(np.abs(finite).max()) < 1e9


@pytest.mark.parametrize("keyword", OF_CHANNELS)
@pytest.mark.parametrize("name", ["V2", "ART"])
def test_any_number_of_a_channel(read: Read, keyword: str, name: str) -> None:
    row = ecg(1)["V1"]
    for unit in ("uV", "V"):
        for value in EXTREMES:
            definitions = [channel("V1"), channel(name, unit=unit)]
            text(definitions[1], keyword, value)
            judged(read, group({"V1": row, name: row}, definitions))


@pytest.mark.parametrize("keyword", OF_GROUPS)
def test_any_number_of_a_group(read: Read, keyword: str) -> None:
    for value in EXTREMES:
        item = group({"V1": ecg(1)["V1"]})
        text(item, keyword, value)
        judged(read, item)


@pytest.mark.parametrize("form", ["SS", "US", "SL", "UL", "SB", "UB"])
def test_samples_at_the_ends_of_their_range(read: Read, form: str) -> None:
    size = {"B": 1, "S": 2, "L": 4}[form[1]]
    dtype = f"<{'i' if form[0] == 'S' else 'u'}{size}"
    ends = np.iinfo(dtype)
    for step in ("1000", "0.001", "1e3"):
        rows = {lead: np.tile([ends.min, ends.max, 0, 1], 250) for lead in LEADS}
        definitions = [channel(lead, ChannelSensitivity=step) for lead in LEADS]
        for definition in definitions:
            definition.WaveformBitsStored = 8 * size
        judged(read, group(rows, definitions, dtype=dtype, form=form))


@pytest.mark.parametrize("value", ["1e30", "-1e39", "1e300", "1.7e308", "1e309", "nan", "-inf"])
@pytest.mark.parametrize("unit", ["nV", "uV", "mV", "V"])
def test_a_baseline_that_no_sample_has_is_refused_by_name(
    read: Read, value: str, unit: str
) -> None:
    definitions = [channel(lead) for lead in LEADS]
    definitions[7] = channel("V2", unit=unit, ChannelSensitivity=f"{0.005 / UNITS[unit]:g}")
    text(definitions[7], "ChannelBaseline", value)
    whole = dataset(group(ecg(1), definitions))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(
            RecordingError, match=r"channel 8 \(V2\) has a Channel Baseline of .*; ex"
        ):
            read(whole)


UNITS = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
