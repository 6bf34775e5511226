"""Channels: lead, scale, unit and time, drawn right or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError

from support.dicom_files import Read, channel, dataset, ecg, group, millivolts

CODES = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)


def channels(changed: str | None = None, **values: Any) -> list[Any]:
    """Definitions of 12 channels; `values` of the lead `changed`, or of all."""
    return [channel(lead, **(values if changed in (lead, None) else {})) for lead in LEADS]


def text(definition: Any, keyword: str, value: str) -> None:
    """Store a number that pydicom itself refuses to write."""
    definition.add_new(keyword, "LO", value)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("nV", 1e6), ("uV", 1e3), ("mV", 1.0), ("V", 1e-3)],
)
def test_units(read: Read, unit: str, factor: float) -> None:
    definitions = channels(unit=unit, ChannelSensitivity=f"{0.005 * factor:g}")
    assert np.allclose(read(dataset(group(ecg(), definitions))).signals, millivolts(ecg()))


@pytest.mark.parametrize("unit", ["\xb5V", "\u03bcV"])
def test_units_with_the_letter_mu(read: Read, unit: str) -> None:
    definitions = channels()
    for definition in definitions:
        item = definition.ChannelSensitivityUnitsSequence[0]
        item.SpecificCharacterSet = "ISO_IR 192"
        item.CodeValue = unit
    assert np.allclose(read(dataset(group(ecg(), definitions))).signals, millivolts(ecg()))


@pytest.mark.parametrize("unit", ["MV", "UV", "mm", "mm[Hg]", "kV", "pV", "[uV]", "1", "mv"])
def test_other_units_are_refused(read: Read, unit: str) -> None:
    with pytest.raises(RecordingError, match=r"channel 9 \(V3\) is in .*expected one of nV, uV"):
        read(dataset(group(ecg(), channels("V3", unit=unit))))


@pytest.mark.parametrize(
    ("sensitivity", "unit"),
    [
        ("0", "uV"),
        ("-5", "uV"),
        ("nan", "uV"),
        ("inf", "uV"),
        ("-inf", "uV"),
        ("5", "V"),
        ("5", "mV"),
        ("1e9", "uV"),
        ("0.5", "nV"),
        ("1e-12", "uV"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(read: Read, sensitivity: str, unit: str) -> None:
    definitions = channels("aVL", unit=unit)
    text(definitions[4], "ChannelSensitivity", sensitivity)
    with pytest.raises(
        RecordingError,
        match=rf"channel 5 \(aVL\) has a Channel Sensitivity of .* {unit}, .*1e-06 to 1 mV",
    ):
        read(dataset(group(ecg(), definitions)))


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf"])
def test_a_correction_factor_that_cannot_be_is_refused(read: Read, factor: str) -> None:
    definitions = channels()
    text(definitions[0], "ChannelSensitivityCorrectionFactor", factor)
    with pytest.raises(RecordingError, match=r"\(I\) has .*Correction Factor .*; expected over 0"):
        read(dataset(group(ecg(), definitions)))


@pytest.mark.parametrize("factor", [None, "", "1", "0.5", "2"])
def test_correction_factors(read: Read, factor: str | None) -> None:
    definitions = channels(
        ChannelSensitivityCorrectionFactor=factor,
        ChannelSensitivity=f"{5 / float(factor or 1):g}",
    )
    assert np.allclose(read(dataset(group(ecg(), definitions))).signals, millivolts(ecg()))


def test_a_baseline_is_in_the_channels_unit(read: Read) -> None:
    record = read(dataset(group(ecg(), channels("V2", ChannelBaseline="500"))))
    assert np.allclose(record.signals[7], millivolts(ecg())[7] + 0.5)


@pytest.mark.parametrize("baseline", ["nan", "inf"])
def test_a_baseline_that_is_no_number_is_refused(read: Read, baseline: str) -> None:
    definitions = channels()
    text(definitions[7], "ChannelBaseline", baseline)
    with pytest.raises(RecordingError, match=r"\(V2\) has a Channel Baseline of .*a number"):
        read(dataset(group(ecg(), definitions)))


@pytest.mark.parametrize("baseline", [-40, -8, -5.5, 5.5, 10.24, 40, 300, 2000])
@pytest.mark.parametrize("changed", ["I", "V5"])
def test_an_offset_outside_the_range_is_refused(read: Read, changed: str, baseline: float) -> None:
    definitions = channels(changed, ChannelBaseline=f"{1000 * baseline:g}")
    with pytest.raises(
        RecordingError, match=rf"lead {changed} lies between .* mV; expected -5 to 5 mV"
    ):
        read(dataset(group(ecg(), definitions)))


@pytest.mark.parametrize("baseline", [-4.5, -2, 2, 4.5])
def test_a_lead_outside_its_row_is_refused(read: Read, baseline: float) -> None:
    definitions = channels("V5", ChannelBaseline=f"{1000 * baseline:g}")
    with pytest.raises(RecordingError, match=r"lead V5 lies .*mostly outside its row of -1\.8 to"):
        draw_page(read(dataset(group(ecg(), definitions))))


@pytest.mark.parametrize("sensitivity", ["0.005", "0.01"])
def test_a_unit_that_makes_everything_flat_is_refused(read: Read, sensitivity: str) -> None:
    with pytest.raises(RecordingError, match=r"the largest lead, V1, spans .* 0\.01 mV"):
        read(dataset(group(ecg(), channels(ChannelSensitivity=sensitivity))))


# ---- leads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["2:{}", "5.6.3-9-{}", "mdc-number", "MDC_ECG_LEAD_{lead}", "{lead}"]
)
@pytest.mark.parametrize("name", ["Ableitung nach Plan", "Derivazione", "x", ""])
def test_a_code_tells_the_lead_whatever_its_name(read: Read, code: str, name: str) -> None:
    definitions = [
        channel(
            name, str(131072 + number) if code == "mdc-number" else code.format(number, lead=lead)
        )
        for number, lead in zip(CODES, LEADS, strict=True)
    ]
    record = read(dataset(group(ecg(), definitions)))
    assert record.leads == LEADS
    assert record.notes == ()


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "Lead {}",
        "Lead-{}",
        "LEAD_{}",
        "lead:{}",
        "ECG Lead {}",
        "MDC_ECG_LEAD_{}",
        "{} (Einthoven)",
        " {}\0",
        "Ableitung {}",
        "D\u00e9rivation {}",
    ],
)
def test_names_tell_the_lead(read: Read, form: str) -> None:
    definitions = [channel(form.format(lead)) for lead in LEADS]
    for definition in definitions:
        definition.ChannelSourceSequence[0].SpecificCharacterSet = "ISO_IR 192"
    assert read(dataset(group(ecg(), definitions))).leads == LEADS


def test_chest_leads_named_c(read: Read) -> None:
    definitions = [channel(lead.replace("V", "C") if lead[0] == "V" else lead) for lead in LEADS]
    record = read(dataset(group(ecg(), definitions)))
    assert (record.leads, record.missing, record.notes) == (LEADS, (), ())


def test_a_label_names_a_channel_without_a_source(read: Read) -> None:
    definitions = channels()
    for definition, lead in zip(definitions, LEADS, strict=True):
        del definition.ChannelSourceSequence
        definition.ChannelLabel = lead.lower()
    assert read(dataset(group(ecg(), definitions))).leads == LEADS


@pytest.mark.parametrize(
    ("place", "code", "name"),
    [
        (0, "2:2", "Lead I"),
        (3, "5.6.3-9-65", "aVR"),
        (6, "2:9", "V1"),
        (11, "131081", "V6"),
    ],
)
def test_a_code_and_a_name_of_different_leads_are_refused(
    read: Read, place: int, code: str, name: str
) -> None:
    signals = {lead: row for lead, row in ecg().items() if lead != "II"}
    definitions = [channel(lead) for lead in signals]
    where = list(signals).index(LEADS[place])
    definitions[where] = channel(name, code)
    with pytest.raises(RecordingError, match=f"has the code {code} of .* but the name"):
        read(dataset(group(signals, definitions)))


@pytest.mark.parametrize("code", ["2:0", "5.6.3-9-0", "131072", "99:1", "ABC"])
def test_a_code_of_no_lead_leaves_it_to_the_name(read: Read, code: str) -> None:
    definitions = [channel(lead, code) for lead in LEADS]
    assert read(dataset(group(ecg(), definitions))).leads == LEADS


@pytest.mark.parametrize("name", ["-aVR", "Lead -aVR", "aVR inverted", "minus aVR"])
def test_an_inverted_lead_is_listed_and_not_drawn(read: Read, name: str) -> None:
    signals = {(name if lead == "aVR" else lead): row for lead, row in ecg().items()}
    record = read(dataset(group(signals)))
    assert record.missing == ("aVR",)
    assert record.notes[:2] == ("Not recorded: aVR.", f"Found but not drawn: {name}.")


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew", "shift"),
    [
        ({"ChannelTimeSkew": "0.2"}, 50),
        ({"ChannelTimeSkew": "0.004"}, 1),
        ({"ChannelSampleSkew": "25"}, 25),
        ({"ChannelSampleSkew": "25", "ChannelTimeSkew": "0.1"}, 25),
        ({"ChannelOffset": "-0.1"}, 25),
    ],
)
def test_a_skewed_channel_is_moved_and_said(read: Read, skew: dict[str, str], shift: int) -> None:
    record = read(dataset(group(ecg(), channels("V4", **skew))))
    expected = millivolts(ecg())[9]
    assert np.isnan(record.signals[9, :shift]).all()
    assert np.allclose(record.signals[9, shift:2500], expected[: 2500 - shift])
    assert np.allclose(record.signals[0, :2500], millivolts(ecg())[0])
    assert f"V4 was moved by its skew of {4 * shift} ms." in record.notes


def test_a_channel_before_its_group_moves_the_others(read: Read) -> None:
    record = read(dataset(group(ecg(), channels("V4", ChannelTimeSkew="-0.2"))))
    assert np.allclose(record.signals[9, :2451], millivolts(ecg())[9, :2451])
    assert np.allclose(record.signals[0, 50:2501], millivolts(ecg())[0, :2451])


@pytest.mark.parametrize("skew", ["0", "0.001", "-0.0015", "0.0001"])
def test_the_skew_of_a_converter_is_less_than_a_sample(read: Read, skew: str) -> None:
    record = read(dataset(group(ecg(), channels("V4", ChannelTimeSkew=skew))))
    assert np.allclose(record.signals, millivolts(ecg()))
    assert record.notes == ()


@pytest.mark.parametrize(
    "skew",
    [
        {"ChannelTimeSkew": "11"},
        {"ChannelTimeSkew": "-1e9"},
        {"ChannelSampleSkew": "90000"},
        {"ChannelOffset": "60"},
    ],
)
def test_a_skew_longer_than_a_page_is_refused(read: Read, skew: dict[str, str]) -> None:
    with pytest.raises(RecordingError, match=r"\(V4\) has a skew of .* expected -10 to 10 s"):
        read(dataset(group(ecg(), channels("V4", **skew))))


def test_two_skews_that_differ_are_refused(read: Read) -> None:
    skew = {"ChannelTimeSkew": "0.1", "ChannelSampleSkew": "10"}
    with pytest.raises(RecordingError, match=r"\(V4\) has a Channel Time Skew of 0.1 s and"):
        read(dataset(group(ecg(), channels("V4", **skew))))


@pytest.mark.parametrize("skew", ["nan", "inf"])
def test_a_skew_that_is_no_number_is_refused(read: Read, skew: str) -> None:
    definitions = channels()
    text(definitions[9], "ChannelTimeSkew", skew)
    with pytest.raises(RecordingError, match=r"\(V4\) has a skew of"):
        read(dataset(group(ecg(), definitions)))


def test_a_skew_of_all_channels_moves_them_all(read: Read) -> None:
    record = read(dataset(group(ecg(), channels(ChannelTimeSkew="0.2"))))
    assert np.isnan(record.signals[:, :50]).all()
    assert np.allclose(record.signals[:, 50:2501], millivolts(ecg())[:, :2451])
