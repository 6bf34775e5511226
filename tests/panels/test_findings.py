"""The table of findings: its phrases, acronyms, and which of two that overlap counts."""

from __future__ import annotations

import random
import re

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


def one_by_one(text: str) -> list[tuple[str, int, int]]:
    """Phrases as the table defines them, each searched for on its own."""
    found = []
    for finding in FINDINGS:
        patterns = [(words.replace(" ", r"[ \-\u2010-\u2013]+"), re.I) for words in finding.phrases]
        if finding.acronyms:
            patterns.append(("|".join(map(re.escape, finding.acronyms)), re.NOFLAG))
        for words, flags in patterns:
            pattern = rf"(?<![\w\-])(?:{words.replace(']+?', ']*')})(?!\w|-like)"
            found += [(finding.name, *each.span()) for each in re.finditer(pattern, text, flags)]
    kept: list[tuple[str, int, int]] = []
    for name, start, stop in sorted(found, key=lambda each: (each[1] - each[2], each[1])):
        if not any(start < end and begin < stop for _, begin, end in kept):
            kept.append((name, start, stop))
    return sorted(kept, key=lambda each: each[1])


@pytest.mark.parametrize("seed", range(20))
def test_phrases_are_found_together_as_one_by_one(seed: int) -> None:
    draw = random.Random(seed)
    own = [word for each in FINDINGS for word in (each.name, *each.acronyms, *each.name.split())]
    words = [*own, "-like", "-Like", "no", "old", "degree", "1st", "II", "type", "\u2011", "ä", "-"]
    between = (" ", " ", "-", "  ", ". ", "; ", "", "\n")
    text = "".join(draw.choice(words) + draw.choice(between) for _ in range(40))
    for each in (text, text.upper(), text.lower()):
        phrases = [
            (phrase.finding.name, phrase.start, phrase.stop) for phrase in find_phrases(each)
        ]
        assert phrases == one_by_one(each)
        assert phrases
