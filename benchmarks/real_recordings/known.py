"""Public recordings of carts: their files, where they are from, and what is known of them.

What is known is what the cart states and measures. Where it lists its statements, a finding that is
not among them counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LISTED = "not among the cart's statements"
ECTOPY = ("ectopic beats", "bigeminy", "trigeminy")


@dataclass(frozen=True)
class KnownRecording:
    """A recording that may lie in several files.

    Attributes:
        title: of its section.
        files: public name by SHA-256.
        source: and licence.
        label: what the cart or the data set states, in its words.
        rhythm: as a finding of the panels; None if nobody states it.
        present: findings that are there -> who says so.
        absent: findings that are not -> who says so.
    """

    title: str
    files: Mapping[str, str]
    source: str
    label: str
    rhythm: str | None = None
    present: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def _unlisted(*findings: str) -> dict[str, str]:
    return dict.fromkeys(findings, LISTED)


KNOWN = (
    KnownRecording(
        "HL7's example",
        {
            "f8f4143c9f602efabd9ca2d89c0ff751740f4c24a2f4e68bb3a1fb13c2c11060": "Example.dcm",
            "c7135a29ef2e36b829d0972f3859eee5b7c2f48e6a99af28b19f3a0e1a91edfe": "Example.scp",
            "36d2e5f74ffe3537f44302b77b6da5abe448246122c857f5c81ea0c55f62fb6b": "Example.xml",
            "4e69b67c1e80a72776f45dc5c5401bbe1d7cbb24c074094080b99483f269baaf": "subject1_0.xml",
        },
        "Refactoring/ECGToolkit, examples (Apache-2.0), and FDA/aecg-python (CC0)",
        "no statement is stored",
    ),
    KnownRecording(
        "Philips Sierra XML 1.03",
        {
            "1482b3eb1e77daedc82d823c08b0f6d6fafe5cde76c1226a278312c68bd21f78": "129DYPRG.XML",
        },
        "sixlettervariables/sierra-ecg-tools, test fixtures (MIT)",
        "Sinus bradycardia. Nonspecific intraventricular conduction delay. Inferior infarct, acute "
        "(LCx). >>> Acute MI <<<",
        "sinus bradycardia",
        {
            "conduction abnormality": "the cart states an intraventricular conduction delay",
            "ST change": "the cart states an acute inferior infarct",
            "ST elevation": "the cart states an acute inferior infarct",
            "abnormal ECG": "the cart states an acute infarct",
        },
        _unlisted(*ECTOPY, "left ventricular hypertrophy", "normal ECG"),
    ),
    KnownRecording(
        "Philips Sierra XML 1.04.01",
        {
            "795abd50290fe7e0bd9341982fec1f4ee131e332a9260e8fe5e70c4db5ea30c2": (
                "2020-5-18_15-48-11.xml"
            ),
        },
        "sixlettervariables/sierra-ecg-tools, test fixtures (MIT)",
        "Sinus rhythm. Abnormal R-wave progression, early transition",
        "sinus rhythm",
        {},
        _unlisted(
            *("conduction abnormality", *ECTOPY, "ST change"),
            "left ventricular hypertrophy",
        ),
    ),
    KnownRecording(
        "pydicom's example",
        {
            "72f1cb0e65e8023321acdaa5425c44125cd507f5aaa148f7fe10516e1d2e688a": "waveform_ecg.dcm",
        },
        "pydicom's wheel, test files (MIT)",
        "RITMO SINUSALE. ECG NORMALE",
        "sinus rhythm",
        {"normal ECG": "the cart states that it is normal"},
        {"abnormal ECG": "the cart states that it is normal"}
        | _unlisted(
            *("conduction abnormality", *ECTOPY, "ST change"),
            "left ventricular hypertrophy",
        ),
    ),
    KnownRecording(
        "A teaching example of Guangxi Medical University",
        {
            "8e1b384b98939d18b10f2b2455e70690706e1de71575aff1eb898870cd77d0d5": (
                "guangxi_teaching_sinus_rhythm.xml"
            ),
            "f9e2cd1d91e9795b67ba0189e566353afdc85ad455d1df545011d4d0ea152eea": (
                "guangxi_teaching_sinus_rhythm.dcm"
            ),
        },
        "ecg2dcm's source distribution, from HexBladeNB/ECG-Master-Studio (MIT)",
        "sinus rhythm; ST elevation, which suggests early repolarization (in Chinese)",
        "sinus rhythm",
        {
            "ST change": "the cart states ST elevation",
            "ST elevation": "the cart states ST elevation",
        },
        _unlisted("conduction abnormality", *ECTOPY, "left ventricular hypertrophy"),
    ),
    KnownRecording(
        "ecg2dcm's synthetic example, which is no patient's",
        {
            "57668d8cc703ecdf98cdd77dfddee46d581699c49c0e27ccea08570629388247": (
                "synthetic_muse.xml"
            ),
            "2e8cbdf071b376d4e9e80edbb80779b984a2e82a233bcd09ec003e515a3a07a2": (
                "synthetic_muse.dcm"
            ),
        },
        "ecg2dcm's source distribution (MIT)",
        "Sinus rhythm (synthetic example)",
        "sinus rhythm",
        {},
        _unlisted(
            *("conduction abnormality", *ECTOPY, "ST change"),
            *("left ventricular hypertrophy", "abnormal ECG"),
        ),
    ),
)
