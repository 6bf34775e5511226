"""The table of findings that a report is searched for, each with its phrases.

A phrase is a regular expression over whole words, in any case; a space in it stands for spaces or
hyphens. Acronyms are matched in the case that is written here, because "AF" is a finding and "af"
is not. Of phrases that overlap, the longest counts: "LAFB" is no "AF", and "incomplete left bundle
branch block" is no "left bundle branch block".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_AV = r"(?:av|a v|atrioventricular|atrio ventricular)"
_FIRST = r"(?:first|1st|i|1)"
_SECOND = r"(?:second|2nd|ii|2)"
_THIRD = r"(?:third|3rd|iii|3)"
_BLOCK = r"(?:conduction )?(?:heart )?blocks?"
_ECG = r"(?:ecg|ekg|electrocardiogram|tracing)"
_IS = r"(?:is|are) (?:also |mildly |slightly |markedly )?"
_BEATS = r"(?:contraction|complexe?|beat|ectopic|systole|depolarization)s?(?:\(s\))?"
_INFARCT = r"(?:wall )?(?:myocardial )?infarct(?:ion)?s?"
_ST = r"st (?:segment )?"
_QT = r"qtc?(?: interval)?"


@dataclass(frozen=True)
class Finding:
    """A row of the table.

    Attributes:
        name: as results name it.
        phrases: regular expressions, see this module's docstring.
        acronyms: whole words, in this case.
        broader: the finding that this one is a kind of. Who states the narrower one states the
            broader one, and who negates the broader one contradicts the narrower one.
    """

    name: str
    phrases: tuple[str, ...]
    acronyms: tuple[str, ...] = ()
    broader: str | None = None


def _block(name: str, degree: str, *more: str, acronyms: tuple[str, ...] = ()) -> Finding:
    phrases = (
        rf"{degree} degree (?:{_AV} )?{_BLOCK}",
        rf"{degree}° (?:{_AV} )?{_BLOCK}",
        rf"{_AV} block,? (?:of )?(?:the )?{degree} degree",
        *more,
    )
    return Finding(name, phrases, acronyms, broader="AV block")


def _infarct(place: str, words: str, acronyms: tuple[str, ...] = ()) -> Finding:
    phrases = (rf"{words} {_INFARCT}", rf"{words} mi", rf"{_INFARCT} of the {words} wall")
    return Finding(f"{place} myocardial infarction", phrases, acronyms, "myocardial infarction")


def _st_elevation(place: str) -> Finding:
    phrases = (
        rf"{place} (?:wall )?{_ST}elevations?",
        rf"{_ST}elevations? (?:is seen |are seen )?in (?:the )?{place} (?:leads|wall)",
    )
    return Finding(f"{place} ST elevation", phrases, broader="ST elevation")


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
            rf"pr interval {_IS}prolonged",
        ),
    ),
    Finding("short PR interval", ("short(?:ened)? pr(?: interval)?", rf"pr interval {_IS}short")),
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

REPOLARIZATION = (
    Finding(
        "ST change", (rf"{_ST}(?:changes?|abnormalit(?:y|ies)|deviations?|shifts?|alterations?)",)
    ),
    Finding(
        "ST-T change",
        (
            r"st t (?:wave )?(?:changes?|abnormalit(?:y|ies)|alterations?)",
            r"st and t wave (?:changes?|abnormalit(?:y|ies))",
        ),
    ),
    Finding(
        "ST elevation",
        (
            rf"{_ST}elevations?",
            rf"st segments? {_IS}elevated",
            "elevated st segments?",
            "elevations? of the st segments?",
        ),
        ("STE",),
        broader="ST change",
    ),
    *(_st_elevation(place) for place in ("anterior", "inferior", "lateral")),
    Finding(
        "ST depression",
        (
            rf"{_ST}depressions?",
            rf"st segments? {_IS}depressed",
            "depressed st segments?",
            "depressions? of the st segments?",
        ),
        ("STD",),
        broader="ST change",
    ),
    Finding("T wave abnormality", (r"t wave (?:abnormalit(?:y|ies)|changes?|alterations?)",)),
    Finding(
        "T wave inversion",
        ("t wave inversions?", "(?:inverted|negative) t waves?", rf"t waves? {_IS}inverted"),
        ("INVT", "TWI"),
        broader="T wave abnormality",
    ),
    Finding(
        "flat T waves",
        (
            "t wave flattening",
            "(?:flat|flattened|low) t waves?",
            rf"t waves? {_IS}(?:flat|flattened)",
        ),
        broader="T wave abnormality",
    ),
    Finding("early repolarization", ("early repolari[sz]ation(?: pattern)?",)),
    Finding(
        "prolonged QT interval",
        (rf"(?:prolonged|long) {_QT}", rf"{_QT} prolongation", rf"{_QT} {_IS}prolonged"),
        ("LNGQT",),
    ),
    Finding(
        "myocardial ischemia",
        ("(?:myocardial |subendocardial )?ischa?emia", "ischa?emic (?:st t |st |t wave )?changes?"),
        ("ISC",),
    ),
    Finding("pericarditis", ("pericarditis",)),
)

INFARCTION = (
    Finding(
        "myocardial infarction",
        ("(?:myocardial )?infarct(?:ion)?s?", "heart attack"),
        ("MI", "STEMI", "NSTEMI"),
    ),
    _infarct("inferior", "inferior", ("IMI",)),
    _infarct("anterior", "anterior", ("AMI",)),
    _infarct("anteroseptal", "antero ?septal", ("ASMI",)),
    _infarct("anterolateral", "antero ?lateral", ("ALMI",)),
    _infarct("inferolateral", "infero ?lateral", ("ILMI",)),
    _infarct("lateral", "lateral", ("LMI",)),
    _infarct("septal", "septal"),
    _infarct("posterior", "posterior", ("PMI",)),
    Finding("pathological Q waves", ("(?:pathologic|pathological|abnormal|significant) q waves?",)),
    Finding("poor R wave progression", ("(?:poor|reduced|delayed) r (?:wave )?progression",)),
)

CHAMBERS = (
    Finding("ventricular hypertrophy", ("(?:ventricular )?hypertrophy",)),
    *(
        Finding(
            f"{side} ventricular hypertrophy",
            (rf"{side} ventricular hypertrophy", rf"hypertrophy of the {side} ventricle"),
            (f"{side[0].upper()}VH",),
            broader="ventricular hypertrophy",
        )
        for side in ("left", "right")
    ),
    Finding(
        "voltage criteria for left ventricular hypertrophy",
        (
            r"voltage criteria (?:\(\w+\) )?(?:for|of) (?:left ventricular hypertrophy|lvh)",
            "(?:left ventricular hypertrophy|lvh) (?:by|on|per) voltage(?: criteria)?",
        ),
        ("VCLVH",),
    ),
    *(
        Finding(
            f"{side} atrial enlargement",
            (rf"{side} atrial (?:enlargement|overload|hypertrophy|dilatation|abnormality)",),
            (f"{side[0].upper()}AE",),
        )
        for side in ("left", "right")
    ),
    Finding("low QRS voltage", ("low (?:qrs )?voltages?",), ("LVOLT",)),
)

AXIS = (
    Finding(
        "normal axis",
        ("normal (?:electrical |frontal |qrs |cardiac |heart )?axis", rf"axis {_IS}normal"),
    ),
    Finding("left axis deviation", ("left(?:ward)? axis(?: deviation)?",)),
    Finding("right axis deviation", ("right(?:ward)? axis(?: deviation)?",)),
    Finding("extreme axis deviation", ("extreme (?:right |left )?axis(?: deviation)?",)),
)

OVERALL = (
    Finding(
        "normal ECG",
        (rf"normal {_ECG}", rf"{_ECG} (?:is )?within normal limits", rf"{_ECG} is normal"),
    ),
    Finding("otherwise normal ECG", (rf"otherwise normal {_ECG}", rf"{_ECG} is otherwise normal")),
    Finding("borderline ECG", (rf"borderline (?:normal |abnormal )?{_ECG}",)),
    Finding(
        "abnormal ECG",
        (rf"(?:abnormal|pathological) {_ECG}", rf"{_ECG} is (?:abnormal|not normal)"),
    ),
)

FINDINGS = (
    *RHYTHM,
    *CONDUCTION_FINDINGS,
    *ECTOPY_FINDINGS,
    *REPOLARIZATION,
    *INFARCTION,
    *CHAMBERS,
    *AXIS,
    *OVERALL,
)
BY_NAME = {finding.name: finding for finding in FINDINGS}

# Findings of which a report can state one at most. Who states two of a group contradicts himself.
EXCLUSIVE = (
    ("normal ECG", "abnormal ECG"),
    ("normal ECG", "otherwise normal ECG"),
    ("normal axis", "left axis deviation"),
    ("normal axis", "right axis deviation"),
    ("left axis deviation", "right axis deviation"),
)


@dataclass(frozen=True)
class Phrase:
    """Where a text holds a phrase of a finding: characters `start` to `stop`."""

    finding: Finding
    start: int
    stop: int


def broader_findings(finding: Finding) -> Iterator[Finding]:
    """The findings that this one is a kind of, nearest first."""
    while finding.broader is not None:
        finding = BY_NAME[finding.broader]
        yield finding


def find_phrases(text: str) -> list[Phrase]:
    """The phrases in a text, in its order. None overlaps another; the longest wins."""
    found = [
        Phrase(finding, match.start(), match.end())
        for finding, pattern in _patterns()
        for match in pattern.finditer(text)
    ]
    taken = bytearray(len(text))
    kept: list[Phrase] = []
    for phrase in sorted(found, key=lambda each: (each.start - each.stop, each.start)):
        if not any(taken[phrase.start : phrase.stop]):
            taken[phrase.start : phrase.stop] = b"\1" * (phrase.stop - phrase.start)
            kept.append(phrase)
    return sorted(kept, key=lambda each: each.start)


@cache
def _patterns() -> tuple[tuple[Finding, re.Pattern[str]], ...]:
    """A pattern for each phrase: in one for all, a match would hide those that overlap it."""
    return tuple((finding, pattern) for finding in FINDINGS for pattern in _of(finding))


def _of(finding: Finding) -> Iterator[re.Pattern[str]]:
    for phrase in finding.phrases:
        words = phrase.replace(" ", r"[ \-\u2010-\u2013]+")
        words = words.replace("]+?", "]*")  # `a ?b`: an optional space
        yield re.compile(rf"(?<![\w\-])(?:{words})(?!\w|-like)", re.I)
    if finding.acronyms:
        listed = "|".join(map(re.escape, finding.acronyms))
        yield re.compile(rf"(?<![\w\-])(?:{listed})(?!\w|-like)")
