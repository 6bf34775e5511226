"""Names and codes of leads."""

from __future__ import annotations

import pytest

from pulse_edge.ecg.leads import LEADS, canonical_lead, lead_of_code, shown_names


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("Lead I (Einthoven)", "I"),
        ("Lead-I", "I"),
        ("Lead-aVR", "aVR"),
        ("LEAD_II", "II"),
        ("lead: III", "III"),
        ("ECG Lead III", "III"),
        ("ECG V3", "V3"),
        ("EKG aVF", "aVF"),
        ("MDC_ECG_LEAD_V1", "V1"),
        ("MDC_ECG_LEAD_AVL", "aVL"),
        ("AVR", "aVR"),
        ("aVr", "aVR"),
        ("aV R", "aVR"),
        ("VL", "aVL"),
        ("vf", "aVF"),
        ("D1", "I"),
        ("D2", "II"),
        ("DIII", "III"),
        ("D I", "I"),
        ("C1", "V1"),
        ("c6", "V6"),
        ("V 4", "V4"),
        ("V05", "V5"),
        (" II\0", "II"),
        ("\xa0V2 ", "V2"),
        ("\u2161", "II"),
        ("Ableitung aVF", "aVF"),
        ("Brustwandableitung V4", "V4"),
        ("D\u00e9rivation I", "I"),
        ("derivaci\u00f3n II", "II"),
        ("Derivazione V1", "V1"),
        ("Deriva\u00e7\u00e3o D3", "III"),
        ("Avledning V6", "V6"),
    ],
)
def test_usual_spellings(name: str, lead: str) -> None:
    assert canonical_lead(name) == lead


@pytest.mark.parametrize(
    "name",
    [
        "-aVR",
        "Lead -aVR",
        "Lead - I",
        "minus aVR",
        "aVR inverted",
        "-I",
        "V7",
        "V3R",
        "V0",
        "V10",
        "C7",
        "V1-V2",
        "I II",
        "IIII",
        "IV",
        "D4",
        "1",
        "L1",
        "X",
        "MCL1",
        "ES",
        "Lead",
        "II calibration",
        "MDC_ECG_LEAD_V3R",
        "",
    ],
)
def test_other_leads_keep_their_names(name: str) -> None:
    assert canonical_lead(name) == name


@pytest.mark.parametrize(
    ("number", "lead"), list(zip((1, 2, 61, 62, 63, 64, *range(3, 9)), LEADS, strict=True))
)
def test_codes_of_every_scheme(number: int, lead: str) -> None:
    for code in (f"2:{number}", f"5.6.3-9-{number}", str(131072 + number), lead):
        assert lead_of_code(code) == lead


def test_codes_of_other_leads_and_schemes() -> None:
    for code in ("2:9", "5.6.3-9-65", "131081"):
        assert lead_of_code(code) == ""
    for code in ("2:0", "131072", "P9-1", "", "2:", "5.6.3-9-", "1"):
        assert lead_of_code(code) is None


def test_names_in_messages_are_short_and_print() -> None:
    assert shown_names(["V7", "a\x1b[31m\n", ""]) == "V7, a?[31m?, unnamed"
    assert shown_names(["x" * 100]) == "x" * 24
    assert shown_names([str(n) for n in range(40)]).endswith(", 11 and 28 more")
    assert shown_names(LEADS).count(",") == 11
