"""The table of findings: its phrases, acronyms, and which of two that overlap counts."""

from __future__ import annotations

import pytest

from pulse_edge.panels.findings import BY_NAME, EXCLUSIVE, FINDINGS, broader_findings, find_phrases


def names(text: str) -> list[str]:
    return [phrase.finding.name for phrase in find_phrases(text)]


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_a_finding_is_found_by_its_own_name(finding: object) -> None:
    name = getattr(finding, "name", "")
    for text in (name, name.upper(), name.capitalize(), f"({name})", name.replace(" ", "  ")):
        assert names(text) == [name], text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AF", ["atrial fibrillation"]),
        ("af", []),
        ("LAFB", ["left anterior fascicular block"]),
        ("AFL", ["atrial flutter"]),
        ("BAF", []),
        ("incomplete left bundle branch block", ["incomplete left bundle branch block"]),
        ("IRBBB", ["incomplete right bundle branch block"]),
        ("incomplete RBBB", ["incomplete right bundle branch block"]),
        ("CLBBB", ["left bundle branch block"]),
        ("supraventricular tachycardia", ["supraventricular tachycardia"]),
        ("ST-segment elevation", ["ST elevation"]),
        ("inferior ST elevation", ["inferior ST elevation"]),
        ("STEMI", ["myocardial infarction"]),
        ("1AVB", ["first-degree AV block"]),
        ("1st degree A-V block", ["first-degree AV block"]),
        ("AV block of the second degree", ["second-degree AV block"]),
        ("complete heart block", ["third-degree AV block"]),
        ("premature ventricular contraction(s)", ["premature ventricular contractions"]),
        ("abnormal ECG", ["abnormal ECG"]),
        ("otherwise normal EKG", ["otherwise normal ECG"]),
        ("The ECG is within normal limits", ["normal ECG"]),
        ("voltage criteria for LVH", ["voltage criteria for left ventricular hypertrophy"]),
        ("old inferior wall myocardial infarction", ["inferior myocardial infarction"]),
        ("T waves are inverted", ["T wave inversion"]),
        ("The best stand is here: a mitten, an avenue, a stem.", []),
    ],
)
def test_the_longest_phrase_of_whole_words_counts(text: str, expected: list[str]) -> None:
    assert names(text) == expected


def test_broader_findings_and_exclusions_are_of_the_table() -> None:
    assert len(BY_NAME) == len(FINDINGS)
    for finding in FINDINGS:
        assert finding.name not in {each.name for each in broader_findings(finding)}
    assert {name for pair in EXCLUSIVE for name in pair} <= BY_NAME.keys()
    chain = [each.name for each in broader_findings(BY_NAME["first-degree AV block"])]
    assert chain == ["AV block", "conduction abnormality"]
