"""Channels without a file: the lead, the scale and the skew that a definition says."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.ecg.readers.dicom_channels import channel_of, scale_of, skew_of, words_of
from pulse_edge.errors import RecordingError

from support.dicom_items import definition, dicom_item

pytest.importorskip("pydicom")


def channel(name: str | None = "V1", code: str | None = None, **values: Any) -> Any:
    return channel_of(dicom_item(**definition(name, code, **values)), 7, "file")


@pytest.mark.parametrize(
    ("name", "code", "lead", "doubt"),
    [
        ("V1", None, "V1", None),
        ("V1", "2:3", "V1", None),
        ("anything", "2:3", "V1", None),
        ("V1", "ABC", "V1", None),
        ("X", "ABC", "X", None),
        ("X", "2:9", "X", None),
        (None, "2:3", "V1", None),
        (None, None, "unnamed", None),
        ("V1", "2:4", "V2", "has the code 2:4 of V2, but the name V1; expected one lead"),
        (
            "V1",
            "2:9",
            "V1 (2:9)",
            "has the code 2:9 of another lead, but the name V1; expected one lead",
        ),
    ],
)
def test_the_lead(name: str | None, code: str | None, lead: str, doubt: str | None) -> None:
    made = channel(name, code)
    assert (made.number, made.lead, made.doubt) == (7, lead, doubt)
    assert str(made.refusal("is odd")) == f"file: channel 7 ({lead}) is odd"
    assert made.is_standard == (lead in ("V1", "V2"))


def test_a_label_counts_where_the_source_has_no_meaning() -> None:
    assert channel(None, ChannelLabel="aVR").lead == "aVR"
    assert channel("V1", ChannelLabel="aVR").lead == "V1"
    assert channel(ChannelSourceSequence=None, ChannelLabel="II").lead == "II"
    assert channel(ChannelSourceSequence=None).lead == "unnamed"


@pytest.mark.parametrize(
    ("status", "said"), [(None, None), ("OK", None), ("INVALID", "INVALID"), ("ok", "ok")]
)
def test_the_status(status: str | None, said: str | None) -> None:
    assert channel(ChannelStatus=status).status == said


def scale(**values: Any) -> tuple[float, float]:
    unit = values.pop("unit", "uV")
    return scale_of(channel(ChannelSensitivityUnitsSequence=[{"CodeValue": unit}], **values))


@pytest.mark.parametrize(
    ("values", "step", "baseline"),
    [
        ({}, 0.005, 0),
        ({"unit": "nV", "ChannelSensitivity": 5000}, 0.005, 0),
        ({"unit": "mV", "ChannelSensitivity": 0.005}, 0.005, 0),
        ({"unit": "V", "ChannelSensitivity": 5e-6}, 0.005, 0),
        ({"ChannelSensitivityCorrectionFactor": 2}, 0.01, 0),
        ({"ChannelSensitivityCorrectionFactor": 0.5}, 0.0025, 0),
        ({"ChannelBaseline": -200}, 0.005, -0.2),
        ({"ChannelBaseline": 2, "unit": "mV", "ChannelSensitivity": 0.01}, 0.01, 2),
        ({"unit": "mV", "ChannelSensitivity": 1}, 1, 0),  # the largest step
        ({"unit": "nV", "ChannelSensitivity": 1}, 1e-6, 0),  # and the least
    ],
)
def test_scales(values: dict[str, Any], step: float, baseline: float) -> None:
    assert scale(**values) == pytest.approx((step, baseline))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"ChannelSensitivity": None}, "has no Channel Sensitivity"),
        ({"unit": "mm"}, "is in 'mm'; expected one of nV, uV, "),
        ({"unit": ""}, "is in 'unnamed'; expected one of"),
        ({"unit": "mV", "ChannelSensitivity": 1.001}, "1.001 mV a bit; expected 1e-06 to 1 mV"),
        ({"unit": "nV", "ChannelSensitivity": 0.999}, "9.99e-07 mV a bit; expected 1e-06 to 1"),
        ({"ChannelSensitivityCorrectionFactor": 0}, "Correction Factor 0; expected over 0"),
        ({"ChannelSensitivityCorrectionFactor": "inf"}, "Correction Factor inf; expected over 0"),
        ({"ChannelBaseline": "nan"}, "has a Channel Baseline of nan"),
        ({"ChannelBaseline": "-inf"}, "has a Channel Baseline of -inf"),
    ],
)
def test_scales_that_cannot_be(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordingError) as caught:
        scale(**values)
    assert str(caught.value).startswith("file: channel 7 (V1) ")
    assert problem in str(caught.value)


def test_a_scale_without_a_unit_is_none() -> None:
    with pytest.raises(RecordingError, match=r"has no Channel Sensitivity Units Sequence$"):
        scale_of(channel(ChannelSensitivityUnitsSequence=None))


@pytest.mark.parametrize(
    ("time", "samples", "offset", "seconds"),
    [
        (None, None, None, 0),
        (0.2, None, None, 0.2),
        (-0.2, None, None, -0.2),
        (None, 50, None, 0.5),
        (0, 50, None, 0.5),  # 0 stands for none
        (0.5, 50, None, 0.5),
        (0.5, 0, None, 0.5),
        (1, 100, None, 1),
        (None, None, 0.3, -0.3),
        (0.5, None, 0.3, 0.2),
        (None, 50, 0.3, 0.2),
        (10, None, None, 10),
        (-10, None, None, -10),
    ],
)
def test_skews(
    time: float | None, samples: float | None, offset: float | None, seconds: float
) -> None:
    values: dict[str, Any] = {
        "ChannelTimeSkew": time,
        "ChannelSampleSkew": samples,
        "ChannelOffset": offset,
    }
    assert skew_of(channel(**values), 100) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"ChannelTimeSkew": 1.02, "ChannelSampleSkew": 100},
            "has a Channel Time Skew of 1.02 s and a Channel Sample Skew of 100; expected one",
        ),
        ({"ChannelTimeSkew": 0.98, "ChannelSampleSkew": 100}, "expected one, or equal ones"),
        ({"ChannelTimeSkew": 10.01}, "has a skew of 10.01 s; expected -10 to 10 s"),
        ({"ChannelSampleSkew": -1001}, "has a skew of -10.01 s; expected -10 to 10 s"),
        ({"ChannelTimeSkew": "nan"}, "has a skew of nan s"),
        ({"ChannelOffset": "inf"}, "has a skew of -inf s"),
    ],
)
def test_skews_that_cannot_be(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordingError) as caught:
        skew_of(channel(**values), 100)
    assert problem in str(caught.value)


def test_keywords_as_words() -> None:
    assert words_of("ChannelSensitivity") == "Channel Sensitivity"
    assert words_of("SamplingFrequency") == "Sampling Frequency"


def test_two_skews_may_be_a_sample_apart() -> None:
    for samples in (127, 129):
        made = channel(ChannelTimeSkew=1, ChannelSampleSkew=samples)
        assert skew_of(made, 128) == 1
    with pytest.raises(RecordingError, match="expected one, or equal ones"):
        skew_of(channel(ChannelTimeSkew=1, ChannelSampleSkew=130), 128)


def test_a_baseline_is_at_most_what_32_bits_make() -> None:
    millivolt = {"unit": "mV", "ChannelSensitivity": 0.005}
    for sign in (1, -1):
        assert scale(ChannelBaseline=sign * 2**32, **millivolt)[1] == sign * 2**32
        with pytest.raises(RecordingError, match=r"expected a number from -4.29497e\+09 to 4.29"):
            scale(ChannelBaseline=sign * (2**32 + 1), **millivolt)
