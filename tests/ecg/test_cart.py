"""What a cart says, without personal text."""

from __future__ import annotations

import pytest

from pulse_edge.ecg.cart import MAX_LETTERS, MAX_STATEMENTS, cart_report


@pytest.mark.parametrize(
    "text",
    [
        "Confirmed by QUILLFEATHER, Z (42)",
        "Unconfirmed report",
        "Reviewed by: Z. Quillfeather",
        "Overread by Quillfeather",
        "over-read by Quillfeather",
        "Referred by: Dr. Quillfeather",
        "Ordered by Quillfeather",
        "Attending: Quillfeather",
        "Technician: Quillfeather",
        "Patient: Quillfeather, Zephyrine",
        "Name: Quillfeather",
        "Z. Quillfeather, M.D.",
        "Z. Quillfeather MD",
        "Dr Quillfeather",
        "Mrs. Quillfeather",
        "When compared with ECG of 13-FEB-1987",
        "When compared with ECG of 1987-02-13",
        "compared with 13.02.87",
        "case 86753091",
        "Age not entered, assumed to be 50 years old",
        "Interpreted without knowing sex",
    ],
)
def test_statements_that_may_name_somebody_are_left_out(text: str) -> None:
    report = cart_report("made", statements=("Sinus rhythm", text))
    assert report.statements == ("Sinus rhythm",)
    assert report.notes == ("Left out: 1 statement of the cart that may name somebody.",)


@pytest.mark.parametrize(
    "text",
    [
        "Sinus rhythm",
        "*** Acute MI ***",
        "Borderline ECG",
        "Rate 50-99",
        "ST elevation in V1-V3, 0.10 mV",
        "First degree AV block (PR 220 ms)",
        "Left axis deviation",
        "Probable old inferior infarct",
        "Nonspecific intraventricular conduction delay",
        "窦性心律",
    ],
)
def test_findings_are_kept(text: str) -> None:
    assert cart_report("made", statements=(text,)).statements == (text,)


def test_statements_are_one_line_of_letters_that_print() -> None:
    report = cart_report("made", statements=("a\n\tb\x1b[31m\u202e", " ", "x" * 999, *["y"] * 99))
    assert report.statements[0] == "a b [31m"
    assert report.statements[1] == "x" * MAX_LETTERS
    assert len(report.statements) == MAX_STATEMENTS


def test_measurements_are_finite_numbers() -> None:
    values = {"heart rate": 70, "PR interval": float("nan"), "QT interval": "400", "P axis": None}
    assert cart_report("made", measurements=values).measurements == {"heart rate": 70.0}
