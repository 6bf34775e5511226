"""Findings of rhythm, conduction and ectopy: rows of the table in `findings.py`."""

from __future__ import annotations

from pulse_edge.panels.finding import COPULA, Finding

_AV = r"(?:av|a v|atrioventricular|atrio ventricular)"
_FIRST = r"(?:first|1st|i|1)"
_SECOND = r"(?:second|2nd|ii|2)"
_THIRD = r"(?:third|3rd|iii|3)"
_BLOCK = r"(?:conduction )?(?:heart )?blocks?"
_BEATS = r"(?:contraction|complexe?|beat|ectopic|systole|depolarization)s?(?:\(s\))?"


def _block(name: str, degree: str, *more: str, acronyms: tuple[str, ...] = ()) -> Finding:
    phrases = (
        rf"{degree} degree (?:{_AV} )?{_BLOCK}",
        rf"{degree}° (?:{_AV} )?{_BLOCK}",
        rf"{_AV} block,? (?:of )?(?:the )?{degree} degree",
        *more,
    )
    return Finding(name, phrases, acronyms, broader="AV block")


RHYTHM = (
    Finding("sinus rhythm", ("(?:normal |regular )?sinus rhythm",), ("SR", "NSR")),
    Finding("sinus bradycardia", ("sinus bradycardia",), ("SBRAD",)),
    Finding("sinus tachycardia", ("sinus tachycardia",), ("STACH",)),
    Finding("sinus arrhythmia", ("sinus arr?hythmia",), ("SARRH",)),
    Finding("atrial fibrillation", ("atrial fibrillations?", "a ?fib"), ("AF", "AFIB")),
    Finding("atrial flutter", ("atrial flutter", "a flutter"), ("AFL", "AFLT")),
    Finding("paced rhythm", ("paced rhythm", "pacemaker rhythm", "pacing rhythm"), ("PACE",)),
    Finding(
        "ventricular paced rhythm",
        ("(?:ventricular|ventricularly|v) (?:paced|pacing|pacemaker) rhythm",),
        broader="paced rhythm",
    ),
    Finding("supraventricular tachycardia", ("supraventricular tachycardia",), ("SVT", "PSVT")),
    Finding("ventricular tachycardia", ("ventricular tachycardia",), ("VT",)),
    Finding("junctional rhythm", ("junctional (?:escape )?rhythm",)),
    Finding("ectopic atrial rhythm", ("ectopic atrial rhythm",)),
)

CONDUCTION_FINDINGS = (
    Finding(
        "conduction abnormality",
        (r"conduction (?:abnormalit(?:y|ies)|disturbances?|defects?|disorders?)",),
    ),
    Finding(
        "AV block",
        (rf"{_AV} {_BLOCK}", "heart blocks?"),
        ("AVB",),
        broader="conduction abnormality",
    ),
    _block("first-degree AV block", _FIRST, acronyms=("1AVB", "IAVB", "I-AVB", "1dAVb")),
    _block(
        "second-degree AV block",
        _SECOND,
        rf"mobitz (?:type )?(?:ii|i|1|2)(?: (?:{_SECOND} degree )?{_AV} block)?",
        rf"wenckebach(?: (?:{_AV} )?block| phenomenon)?",
        acronyms=("2AVB",),
    ),
    _block(
        "third-degree AV block",
        _THIRD,
        rf"complete (?:{_AV}|heart) {_BLOCK}",
        "complete heart block",
        acronyms=("3AVB", "CHB"),
    ),
    Finding(
        "bundle branch block",
        ("bundle branch blocks?",),
        ("BBB",),
        broader="conduction abnormality",
    ),
    *(
        Finding(
            f"{side} bundle branch block",
            (rf"(?:complete )?{side} bundle branch blocks?(?: \(complete\))?",),
            (f"{side[0].upper()}BBB", f"C{side[0].upper()}BBB"),
            broader="bundle branch block",
        )
        for side in ("left", "right")
    ),
    *(
        Finding(
            f"incomplete {side} bundle branch block",
            (
                rf"(?:incomplete|partial) {side} bundle branch blocks?",
                rf"(?:incomplete|partial) {side[0]}bbb",
                rf"{side} bundle branch block,? \(?(?:incomplete|partial)\)?",
                rf"{side[0]}bbb,? \(?(?:incomplete|partial)\)?",
            ),
            (f"I{side[0].upper()}BBB", f"i{side[0].upper()}BBB"),
            broader="bundle branch block",
        )
        for side in ("left", "right")
    ),
    *(
        Finding(
            f"left {place} fascicular block",
            (rf"left {place} (?:fascicular block|hemi ?block)",),
            (f"L{place[0].upper()}FB", f"L{place[0].upper()}HB"),
            broader="conduction abnormality",
        )
        for place in ("anterior", "posterior")
    ),
    Finding(
        "intraventricular conduction delay",
        (r"intra ?ventricular conduction (?:delays?|disturbances?|defects?|blocks?|disorders?)",),
        ("IVCD",),
        broader="conduction abnormality",
    ),
    Finding(
        "prolonged PR interval",
        (
            "prolonged pr(?: interval)?",
            "pr (?:interval )?prolongation",
            rf"pr interval {COPULA}prolonged",
        ),
    ),
    Finding(
        "short PR interval", ("short(?:ened)? pr(?: interval)?", rf"pr interval {COPULA}short")
    ),
    Finding("pre-excitation", ("pre ?excitation", "wolff parkinson white(?: syndrome)?"), ("WPW",)),
)

ECTOPY_FINDINGS = (
    Finding("ectopic beats", (rf"(?:ectopic|premature) {_BEATS}", "ectopy", "extrasystoles?")),
    Finding(
        "premature ventricular contractions",
        (
            rf"(?:premature ventricular|ventricular premature|ventricular ectopic) {_BEATS}",
            "ventricular (?:extrasystoles?|ectopy|ectopics)",
            "pvcs?|vpcs?|vpbs?",
        ),
        ("VES",),
        broader="ectopic beats",
    ),
    Finding(
        "premature atrial contractions",
        (
            rf"(?:premature atrial|atrial premature|atrial ectopic) {_BEATS}",
            "atrial (?:extrasystoles?|ectopy|ectopics)",
        ),
        ("PAC", "PACs", "APC", "APCs", "APB", "APBs"),
        broader="ectopic beats",
    ),
    Finding(
        "supraventricular premature beats",
        (
            rf"(?:premature supraventricular|supraventricular (?:premature|ectopic)) {_BEATS}",
            "supraventricular (?:extrasystoles?|ectopy)",
        ),
        ("SVES",),
        broader="ectopic beats",
    ),
    Finding("bigeminy", ("bigemin(?:y|us)", "bigeminal (?:pattern|rhythm)"), ("BIGU",)),
    Finding("ventricular bigeminy", ("ventricular bigemin(?:y|us)",), broader="bigeminy"),
    Finding("trigeminy", ("trigemin(?:y|us)", "trigeminal (?:pattern|rhythm)"), ("TRIGU",)),
)
