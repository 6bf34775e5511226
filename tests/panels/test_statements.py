"""Statements of a report: what is stated, negated, uncertain and contradicted, and where."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulse_edge.panels.findings import BY_NAME, FINDINGS, broader_findings, find_phrases
from pulse_edge.panels.statements import (
    STATUSES,
    parse_statements,
    sentences,
    unstated,
    whole_sentences,
)

S, N, U, C = "stated", "negated", "uncertain", "conflict"
AV, BBB, LBBB, RBBB = (
    *("AV block", "bundle branch block"),
    *("left bundle branch block", "right bundle branch block"),
)
AF, LVH, LAD = "atrial fibrillation", "left ventricular hypertrophy", "left axis deviation"
ISCHEMIA, MI, IMI = (
    *("myocardial ischemia", "myocardial infarction"),
    "inferior myocardial infarction",
)

VOLTAGE = "voltage criteria for left ventricular hypertrophy"

SENTENCES: list[tuple[str, dict[str, str]]] = [
    ("Atrial fibrillation.", {AF: S}),
    ("The ECG shows sinus rhythm with LBBB.", {"sinus rhythm": S, LBBB: S}),
    ("Sinus rhythm, left axis deviation, LVH.", {"sinus rhythm": S, LAD: S, LVH: S}),
    # Negations before a phrase, and lists of them
    ("No AV block or bundle branch block.", {AV: N, BBB: N}),
    ("No AV block, bundle branch block, or ectopy.", {AV: N, BBB: N, "ectopic beats": N}),
    ("Neither AV block nor bundle branch block is present.", {AV: N, BBB: N}),
    ("There is no evidence of acute ischemia.", {ISCHEMIA: N}),
    ("No findings suggestive of ischemia.", {ISCHEMIA: N}),
    ("The tracing does not show atrial fibrillation.", {AF: N}),
    ("Sinus rhythm without ischemia or infarction.", {"sinus rhythm": S, ISCHEMIA: N, MI: N}),
    ("LBBB rather than RBBB.", {LBBB: S, RBBB: N}),
    ("Negative for myocardial infarction.", {MI: N}),
    ("No AV block, no ischemia.", {AV: N, ISCHEMIA: N}),
    ("Absence of ST elevation.", {"ST elevation": N}),
    # Negations after it
    ("AV block is not seen.", {AV: N}),
    ("ST elevation in leads II and III is absent.", {"ST elevation": N}),
    ("Myocardial infarction has been ruled out.", {MI: N}),
    ("AV block: none.", {AV: N}),
    ("Bundle branch block or LVH is not seen.", {BBB: N, LVH: N}),
    # Where a negation ends
    ("No AV block; left axis deviation.", {AV: N, LAD: S}),
    ("No AV block. LVH.", {AV: N, LVH: S}),
    ("No AV block, with left axis deviation.", {AV: N, LAD: S}),
    ("No ischemia but LVH.", {ISCHEMIA: N, LVH: S}),
    ("No abnormality except AF.", {AF: S}),
    ("No ischemia is seen, however there is LVH.", {ISCHEMIA: N, LVH: S}),
    ("No ischemia, and the axis is normal.", {ISCHEMIA: N, "normal axis": S}),
    ("Although there is no ischemia, there is LVH.", {ISCHEMIA: N, LVH: S}),
    ("No, this is an abnormal ECG.", {"abnormal ECG": S}),
    # Where it may reach or not
    ("No AV block, left axis deviation.", {AV: N, LAD: U}),
    ("No AV block and LVH.", {AV: N, LVH: U}),
    ("AV block, ischemia and LVH are absent.", {AV: U, ISCHEMIA: U, LVH: N}),
    ("Not without ischemia.", {ISCHEMIA: U}),
    ("No ischemia is absent.", {ISCHEMIA: U}),
    # Hedges
    ("Possible LVH.", {LVH: U}),
    ("Inferior infarct cannot be excluded.", {IMI: U}),
    ("Cannot rule out inferior infarction.", {IMI: U}),
    ("Consider LVH.", {LVH: U}),
    ("Suggestive of ischemia.", {ISCHEMIA: U}),
    ("ST depression, consistent with ischemia.", {"ST depression": S, ISCHEMIA: U}),
    ("LVH is suspected.", {LVH: U}),
    ("Ischemia should be considered.", {ISCHEMIA: U}),
    ("LVH (possible).", {LVH: U}),
    ("AF?", {AF: U}),
    ("Is there LVH?", {LVH: U}),
    ("Atrial fibrillation or atrial flutter.", {AF: U, "atrial flutter": U}),
    ("Compared with the previous ECG, AF is gone.", {AF: U}),
    ("LBBB precludes assessment of ischemia.", {LBBB: S, ISCHEMIA: U}),
    ("No definite, but possible LVH.", {LVH: U}),
    ("Ischemia is unlikely.", {ISCHEMIA: U}),
    # What speaks of a finding without stating it
    ("The QRS is narrow, ruling out bundle branch block.", {BBB: U}),
    ("LBBB makes the diagnosis of myocardial infarction difficult.", {LBBB: S, MI: U}),
    ("Ischemia-like changes.", {}),
    ("ST elevation, as seen in pericarditis.", {"ST elevation": S, "pericarditis": U}),
    ("The voltage criteria for LVH are not fulfilled.", {VOLTAGE: N}),
    ("Atrial fibrillation can be excluded.", {AF: N}),
    ("AF was considered.", {AF: U}),
    ("AF converted to sinus rhythm.", {AF: U, "sinus rhythm": S}),
    ("ST changes and ischemia cannot be assessed.", {"ST change": U, ISCHEMIA: U}),
    ("The PR interval is within normal limits without AV block.", {AV: N}),
    ("The ECG is within normal limits with no evidence of infarction.", {"normal ECG": S, MI: N}),
    ("LBBB, not RBBB.", {LBBB: U, RBBB: N}),
    ("Left axis deviation - no change.", {LAD: S}),
    ("Non sinus rhythm.", {"sinus rhythm": N}),
    ("Non-ST elevation myocardial infarction.", {MI: S}),
    ("The ECG doesn’t show LVH.", {LVH: N}),
    ("No evidence of either LBBB or RBBB.", {LBBB: N, RBBB: N}),
    ("Either LBBB or RBBB.", {LBBB: U, RBBB: U}),
    ("Looks like LBBB.", {LBBB: U}),
    ("This is characteristic of an inferior infarct.", {IMI: U}),
    ("Atrial flutter with 2:1 block could be ruled out.", {"atrial flutter": U}),
    ("LBBB not present.", {LBBB: N}),
    (
        "Without Mobitz type I AV block, LVH, or other changes.",
        {"second-degree AV block": N, LVH: N},
    ),
    ("The PR interval is normal, suggesting no AV block.", {AV: N}),
    (
        "Findings: 1. Sinus rhythm 2. No ST changes 3. LVH",
        {"sinus rhythm": S, "ST change": N, LVH: S},
    ),
    ("Normal ECG vs early repolarization.", {"normal ECG": U, "early repolarization": U}),
    # Neither
    ("No other conduction abnormality.", {}),
    ("Not only AF but also LVH.", {AF: S, LVH: S}),
    ("Non-specific intraventricular conduction delay.", {"intraventricular conduction delay": S}),
    ("P waves are upright.", {}),
    ("", {}),
    # Contradictions
    ("AF. No AF.", {AF: C}),
    ("No AV block. First-degree AV block.", {AV: C, "first-degree AV block": C}),
    ("Normal ECG. Abnormal ECG.", {"normal ECG": C, "abnormal ECG": C}),
    ("Normal axis; left axis deviation.", {"normal axis": C, LAD: C}),
    ("Possible LVH. LVH.", {LVH: U}),
    ("No first-degree AV block. AV block.", {"first-degree AV block": N, AV: S}),
    # Normal, abnormal, and in between
    ("Otherwise normal ECG.", {"otherwise normal ECG": S}),
    ("Not a normal ECG.", {"normal ECG": N}),
    ("Borderline ECG.", {"borderline ECG": S}),
    ("The ECG is not normal.", {"abnormal ECG": S}),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text for text, _ in SENTENCES])
def test_a_sentence_says(text: str, expected: dict[str, str]) -> None:
    broader = {each.name for name in expected for each in broader_findings(BY_NAME[name])}
    parsed = {each.finding: each.status for each in parse_statements(text)}
    own = {name: status for name, status in parsed.items() if name not in broader - expected.keys()}
    assert own == expected


def test_a_narrower_finding_states_the_broader_one() -> None:
    parsed = {each.finding: each for each in parse_statements("First-degree AV block.")}
    assert parsed.keys() == {"first-degree AV block", "AV block", "conduction abnormality"}
    assert {each.status for each in parsed.values()} == {"stated"}
    assert {each.spans for each in parsed.values()} == {((0, 21),)}


def test_a_doubtful_narrower_finding_does_not_weaken_the_broader_one() -> None:
    parsed = {
        e.finding: e.status for e in parse_statements("RBBB. Possible first-degree AV block.")
    }
    assert parsed["conduction abnormality"] == "stated"
    assert parsed["AV block"] == "uncertain"


def test_a_negated_broader_finding_says_nothing_of_narrower_ones() -> None:
    assert {each.finding for each in parse_statements("No AV block.")} == {"AV block"}


def test_silence_is_not_absence() -> None:
    stated = parse_statements("No AV block. LVH.")
    silent = unstated(stated)
    assert {each.status for each in silent} == {"not stated"}
    assert not {each.finding for each in stated} & {each.finding for each in silent}
    assert len({each.finding for each in (*stated, *silent)}) == len(FINDINGS)
    assert all(each.source is None and not each.spans for each in silent)


def test_a_sentence_without_end_is_uncertain() -> None:
    (statement,) = parse_statements("AF " + "and so on " * 120)
    assert (statement.finding, statement.status) == (AF, U)


def test_a_text_that_was_cut_off_loses_its_last_sentence() -> None:
    assert whole_sentences("Sinus rhythm. Atrial fibrillation is") == "Sinus rhythm."
    assert whole_sentences("Atrial fibrillation") == ""
    assert whole_sentences("PR 0.16") == ""
    assert whole_sentences("A.\nB") == "A.\n"


PIECES = st.sampled_from(
    [
        *(text for text, _ in SENTENCES),
        *("no ", "not ", "possible ", " or ", " and ", ", ", ". ", "; ", "\n", "LBBB", "AF", "?"),
        *(finding.name for finding in FINDINGS),
        *("without ", " is not seen", " cannot be excluded", "ä", "\u2028", "—", "0.5"),
    ]
)


@settings(max_examples=120, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=80))
def test_every_span_holds_a_phrase_of_its_finding(text: str) -> None:
    for statement in parse_statements(text, "report"):
        assert statement.status in STATUSES
        assert statement.spans
        assert list(statement.spans) == sorted(set(statement.spans))
        for start, stop in statement.spans:
            assert 0 <= start < stop <= len(text)
            named = {phrase.finding for phrase in find_phrases(text[start:stop])}
            kinds = {
                each.name for finding in named for each in (finding, *broader_findings(finding))
            }
            if statement.status != "conflict":  # whose spans are also of what it contradicts
                assert statement.finding in kinds
    assert "".join(text[start:stop] for start, stop in sentences(text)) == text


def test_a_hedge_elsewhere_does_not_dissolve_a_contradiction() -> None:
    text = "Normal ECG. Abnormal ECG. Normal ECG vs early repolarization."
    found = {each.finding: each.status for each in parse_statements(text)}
    assert (found["normal ECG"], found["abnormal ECG"]) == ("conflict", "conflict")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([text for text, _ in SENTENCES]), min_size=1, max_size=5))
@example(["Normal ECG vs early repolarization.", "Normal ECG. Abnormal ECG."])
def test_sentences_do_not_reach_over_their_ends(texts: list[str]) -> None:
    """What several sentences assert is what they assert one by one, or a contradiction."""
    alone: dict[str, set[str]] = {}
    for text in texts:
        for each in parse_statements(text):
            alone.setdefault(each.finding, set()).add(each.status)
    for statement in parse_statements("\n".join(texts)):
        if statement.status in (S, N):
            assert statement.status in alone[statement.finding]


@pytest.mark.parametrize(
    "text",
    [
        "AF, " * 2000,
        "no AF or " * 1500,
        "at " * 5000,
        "not " * 5000,
        " " * 20000,
        "(" * 20000,
        "heart rate is " + "is  " * 5000,
        "AF with " * 2000 + "is not seen",
        "and the a " * 4000,
    ],
    ids=lambda text: text[:12],
)
def test_a_long_text_takes_no_time(text: str) -> None:
    from pulse_edge.panels.measurements import report_measurements

    begun = time.process_time()
    parse_statements(text)
    report_measurements(text, "report")
    assert time.process_time() - begun < 5
