"""Findings of waves, axis and chambers, and the verdict: rows of the table in `findings.py`."""

from __future__ import annotations

from pulse_edge.panels.finding import COPULA, Finding

_ECG = r"(?:ecg|ekg|electrocardiogram|tracing)"
_INFARCT = r"(?:wall )?(?:myocardial )?infarct(?:ion)?s?"
_ST = r"st (?:segment )?"
_QT = r"qtc?(?: interval)?"


def _infarct(place: str, words: str, acronyms: tuple[str, ...] = ()) -> Finding:
    phrases = (rf"{words} {_INFARCT}", rf"{words} mi", rf"{_INFARCT} of the {words} wall")
    return Finding(f"{place} myocardial infarction", phrases, acronyms, "myocardial infarction")


def _st_elevation(place: str) -> Finding:
    phrases = (
        rf"{place} (?:wall )?{_ST}elevations?",
        rf"{_ST}elevations? (?:is seen |are seen )?in (?:the )?{place} (?:leads|wall)",
    )
    return Finding(f"{place} ST elevation", phrases, broader="ST elevation")


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
            rf"st segments? {COPULA}elevated",
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
            rf"st segments? {COPULA}depressed",
            "depressed st segments?",
            "depressions? of the st segments?",
        ),
        ("STD",),
        broader="ST change",
    ),
    Finding("T wave abnormality", (r"t wave (?:abnormalit(?:y|ies)|changes?|alterations?)",)),
    Finding(
        "T wave inversion",
        ("t wave inversions?", "(?:inverted|negative) t waves?", rf"t waves? {COPULA}inverted"),
        ("INVT", "TWI"),
        broader="T wave abnormality",
    ),
    Finding(
        "flat T waves",
        (
            "t wave flattening",
            "(?:flat|flattened|low) t waves?",
            rf"t waves? {COPULA}(?:flat|flattened)",
        ),
        broader="T wave abnormality",
    ),
    Finding("early repolarization", ("early repolari[sz]ation(?: pattern)?",)),
    Finding(
        "prolonged QT interval",
        (rf"(?:prolonged|long) {_QT}", rf"{_QT} prolongation", rf"{_QT} {COPULA}prolonged"),
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
        ("normal (?:electrical |frontal |qrs |cardiac |heart )?axis", rf"axis {COPULA}normal"),
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
