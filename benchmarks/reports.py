"""Generated ECG reports with known truth, in two styles, to try the statement parser on.

`nano` are the reports that pulse-nano was trained to write. `free` are in the manner of PULSE and
of PTB-XL: their wordings were written down by themselves, not taken from the parser's table, and
some are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pulse_edge.panels.findings import BY_NAME, broader_findings
from pulse_edge.panels.statements import Status
from pulse_edge.simulation.population import sample_spec
from pulse_edge.simulation.questions import Findings, report

WORDINGS: dict[str, tuple[str, ...]] = {
    "sinus rhythm": ("sinus rhythm", "normal sinus rhythm", "a regular sinus rhythm", "NSR"),
    "sinus bradycardia": ("sinus bradycardia", "marked sinus bradycardia", "slow sinus rate"),
    "sinus tachycardia": ("sinus tachycardia", "a sinus tachycardia"),
    "sinus arrhythmia": ("sinus arrhythmia", "respiratory sinus arrhythmia"),
    "atrial fibrillation": (
        *("atrial fibrillation", "AF", "atrial fibrillation with rapid ventricular response"),
        *("AFib", "coarse atrial fibrillation", "fibrillation of the atria"),
    ),
    "atrial flutter": ("atrial flutter", "typical atrial flutter", "atrial flutter with 2:1 block"),
    "ventricular paced rhythm": ("ventricular paced rhythm", "a ventricular-paced rhythm"),
    "first-degree AV block": (
        *("first-degree AV block", "first degree atrioventricular block", "1st degree AV block"),
        *("AV block, first degree", "I° AV block", "an AV block of the first degree"),
    ),
    "second-degree AV block": (
        "second-degree AV block",
        "Mobitz type I AV block",
        "Wenckebach block",
    ),
    "third-degree AV block": (
        "third-degree AV block",
        "complete heart block",
        "3rd degree AV block",
    ),
    "left bundle branch block": (
        *("left bundle branch block", "LBBB", "complete left bundle-branch block"),
        "block of the left bundle branch",
    ),
    "right bundle branch block": ("right bundle branch block", "RBBB", "a complete RBBB"),
    "incomplete right bundle branch block": (
        *("incomplete right bundle branch block", "incomplete RBBB", "IRBBB"),
        "partial right bundle branch block",
    ),
    "left anterior fascicular block": (
        *("left anterior fascicular block", "LAFB", "left anterior hemiblock"),
    ),
    "intraventricular conduction delay": (
        *("intraventricular conduction delay", "non-specific intraventricular conduction block"),
        "IVCD",
    ),
    "premature ventricular contractions": (
        *("premature ventricular contractions", "frequent PVCs", "ventricular extrasystoles"),
        *("ventricular premature complexes", "premature ventricular contraction(s)"),
        "isolated ventricular ectopy",
    ),
    "premature atrial contractions": (
        *(
            "premature atrial contractions",
            "PACs",
            "atrial premature beats",
            "atrial extrasystoles",
        ),
    ),
    "ventricular bigeminy": ("ventricular bigeminy", "ventricular bigeminus"),
    "inferior ST elevation": ("inferior ST elevation", "ST elevation in the inferior leads"),
    "anterior ST elevation": (
        "anterior ST-segment elevation",
        "ST elevation in the anterior leads",
    ),
    "ST depression": (
        *("ST depression", "ST-segment depression", "depression of the ST segment"),
        "horizontal ST depression",
    ),
    "T wave inversion": (
        "T wave inversion",
        "inverted T waves",
        "T-wave inversions",
        "negative T waves",
    ),
    "prolonged QT interval": ("a prolonged QT interval", "QTc prolongation", "long QT interval"),
    "myocardial ischemia": (
        "myocardial ischemia",
        "ischemia",
        "ischaemic changes",
        "cardiac ischemia",
    ),
    "inferior myocardial infarction": (
        *("inferior myocardial infarction", "inferior infarct", "inferior wall infarction"),
        "old inferior MI",
    ),
    "anteroseptal myocardial infarction": (
        *("anteroseptal myocardial infarction", "an anteroseptal infarct", "ASMI"),
    ),
    "pathological Q waves": ("pathological Q waves", "pathologic Q waves"),
    "poor R wave progression": ("poor R wave progression", "poor R-wave progression"),
    "left ventricular hypertrophy": (
        *("left ventricular hypertrophy", "LVH", "left-ventricular hypertrophy"),
        "hypertrophy of the left ventricle",
    ),
    "right ventricular hypertrophy": ("right ventricular hypertrophy", "RVH"),
    "left atrial enlargement": ("left atrial enlargement", "left atrial overload", "LAE"),
    "left axis deviation": ("left axis deviation", "leftward axis", "a left axis", "left type"),
    "right axis deviation": ("right axis deviation", "rightward axis"),
    "low QRS voltage": ("low QRS voltage", "low voltage in the limb leads"),
}
STATED = (
    "{x}.",
    "The ECG shows {x}.",
    "There is {x}.",
    "{x} is present.",
    "{x} is noted in leads V1 to V3.",
    "Findings include {x}.",
    "{x} can be seen.",
    "This tracing demonstrates {x}.",
)
STATED_TWO = ("{x} with {y}.", "The ECG reveals {x} and {y}.", "{x}, {y}.", "There is {x}; {y}.")
NEGATED = (
    "No {x}.",
    "There is no evidence of {x}.",
    "No signs of {x} are seen.",
    "{x} is not seen.",
    "{x} is absent.",
    "The tracing does not show {x}.",
    "No findings suggestive of {x}.",
    "{x}: none.",
    "{x} has been ruled out.",
    "There are no obvious signs of {x}.",
    "{x} could be ruled out.",
)
NEGATED_TWO = (
    "No {x} or {y}.",
    "Neither {x} nor {y} is present.",
    "No evidence of {x}, acute injury, or {y}.",
    "There is no {x} and no {y}.",
    "{x} or {y} is not seen.",
    "No {x}, {y}.",
    "Without {x}, {y}, or other changes.",
    "No {x} and {y}.",
)
UNCERTAIN = (
    "Possible {x}.",
    "{x} cannot be excluded.",
    "Consider {x}.",
    "This is suggestive of {x}.",
    "{x} is suspected.",
    "The changes may represent {x}.",
    "The pattern is consistent with {x}.",
    "Probable {x}.",
    "{x} should be considered.",
    "Cannot rule out {x}.",
    "{x} is possible.",
    "Is there {x}?",
    "The differential diagnosis includes {x}.",
    "Compared with the previous ECG, {x} has resolved.",
    "Interpretation is limited by artefacts that mimic {x}.",
)
MIXED = (
    "{x} but no {y}.",
    "{x} without {y}.",
    "Although there is {x}, there is no {y}.",
    "{x} is seen, but {y} is not present.",
    "{x} rather than {y}.",
)
NOISE = (
    "P waves are upright in lead II.",
    "Clinical correlation is advised.",
    "No previous tracing is available for comparison.",
    "Artefact is present in V5.",
    "The R wave amplitude is preserved.",
    "These findings should be correlated with symptoms.",
    "Lead placement appears adequate.",
    "25 mm/s, 10 mm/mV.",
    "The patient was not in pain.",
)
MEASURED: dict[str, tuple[tuple[str, ...], int, int]] = {
    "heart rate": (
        (
            *("The heart rate is {v} bpm.", "Heart rate: {v} beats per minute.", "Rate {v} bpm."),
            *("Ventricular rate of approximately {v}/min.", "HR {v}."),
        ),
        *(40, 160),
    ),
    "PR interval": (
        ("The PR interval is {v} ms.", "PR {v} ms.", "PR interval measures {v} milliseconds."),
        *(120, 330),
    ),
    "QRS duration": (("QRS duration {v} ms.", "The QRS complex is narrow ({v} ms)."), 70, 170),
    "QTc interval": (("QTc {v} ms.", "The corrected QT interval is {v} ms."), 360, 520),
    "QRS axis": (("QRS axis {v}°.", "The axis is {v} degrees."), -60, 120),
}
DECOYS = (  # ranges, limits and other rates, which are no measurements of this ECG
    "A normal PR interval is 120-200 ms.",
    "The QRS is under 120 ms.",
    "The atrial rate is 300 bpm.",
    "Normal heart rate is 60 to 100 bpm.",
)


@dataclass
class TrueReport:
    """A report with what it says: finding -> status, and quantity -> value."""

    text: str
    statuses: dict[str, Status]
    values: dict[str, float] = field(default_factory=dict)


def nano_report(rng: np.random.Generator) -> TrueReport:
    """A report in pulse-nano's words."""
    spec = sample_spec(rng)
    truth = Findings.of({**spec.__dict__, "axis": spec.axis})
    said: dict[str, Status] = {truth.rhythm: "stated", truth.axis: "stated"}
    for none, present in (
        ("conduction abnormality", truth.conduction),
        ("ectopic beats", tuple({truth.ectopy} - {"none"})),
        ("ST change", tuple({truth.st} - {"none"})),
    ):
        said |= dict.fromkeys(present, "stated") if present else {none: "negated"}
    if truth.lvh:
        said["left ventricular hypertrophy"] = "stated"
    said["abnormal ECG" if truth.labels else "normal ECG"] = "stated"
    values = {"heart rate": truth.rate, "PR interval": truth.pr, "QRS duration": truth.qrs}
    known = {name: float(value) for name, value in values.items() if value is not None}
    return TrueReport(report(truth), with_broader(said), known)


def free_report(rng: np.random.Generator) -> TrueReport:
    """A report in varied words: statements, negations, hedges, lists and contradictions."""
    names = _pick_findings(rng)
    said: dict[str, Status] = {}
    lines: list[str] = []
    while names:
        kind, frames, statuses = _FRAMES[int(rng.choice(len(_FRAMES), p=_WEIGHTS))]
        if len(names) < len(statuses):
            continue
        taken = [names.pop() for _ in statuses]
        words = [str(rng.choice(WORDINGS[name])) for name in taken]
        lines.append(_sentence(str(rng.choice(frames)), words))
        said |= dict(zip(taken, statuses, strict=True))
        if kind == "conflict":
            lines.append(_sentence(str(rng.choice(NEGATED)), [str(rng.choice(WORDINGS[taken[0]]))]))
    if rng.random() < 0.5:
        overall = "normal" if not {"stated", "conflict"} & set(said.values()) else "abnormal"
        lines.append(
            str(
                rng.choice(
                    [
                        f"{overall} ECG.",
                        f"This is {'an' * (overall[0] == 'a') or 'a'} {overall} ECG.",
                    ]
                )
            )
            .capitalize()
            .replace("ecg", "ECG")
        )
        said[f"{overall} ECG"] = "stated"
    values = _measure(lines, rng)
    lines += [str(line) for line in rng.choice(NOISE, int(rng.integers(0, 3)), replace=False)]
    lines += [str(line) for line in rng.choice(DECOYS, int(rng.integers(0, 2)), replace=False)]
    order = rng.permutation(len(lines))
    return TrueReport(" ".join(lines[int(i)] for i in order), with_broader(said), values)


# (kind, frames, statuses of the findings in a frame), and how often each occurs.
_FRAMES: tuple[tuple[str, tuple[str, ...], tuple[Status, ...]], ...] = (
    ("stated", STATED, ("stated",)),
    ("stated", STATED_TWO, ("stated", "stated")),
    ("negated", NEGATED, ("negated",)),
    ("negated", NEGATED_TWO, ("negated", "negated")),
    ("uncertain", UNCERTAIN, ("uncertain",)),
    ("mixed", MIXED, ("stated", "negated")),
    ("conflict", STATED, ("conflict",)),
)
_WEIGHTS = (0.3, 0.15, 0.17, 0.12, 0.14, 0.09, 0.03)


def with_broader(said: dict[str, Status]) -> dict[str, Status]:
    """The statuses, and those that they imply of broader findings."""
    implied = dict(said)
    for name, status in said.items():
        for broader in broader_findings(BY_NAME[name]):
            if status == "stated":
                implied[broader.name] = "stated"
            elif status in ("uncertain", "conflict") and broader.name not in said:
                implied.setdefault(broader.name, "uncertain")
    return implied


def _pick_findings(rng: np.random.Generator) -> list[str]:
    """Up to eight findings, of which none excludes another."""
    names = [str(name) for name in rng.permutation(list(WORDINGS))[: int(rng.integers(2, 9))]]
    axes = [name for name in names if "axis" in name]
    return [name for name in names if name not in axes[1:]]


def _sentence(frame: str, words: Sequence[str]) -> str:
    text = frame.format(**dict(zip("xy", words, strict=False)))
    return text[0].upper() + text[1:]


def _measure(lines: list[str], rng: np.random.Generator) -> dict[str, float]:
    """Add sentences with measurements to the lines, and return their values."""
    values = {}
    for name, (frames, low, high) in MEASURED.items():
        if rng.random() < 0.4:
            values[name] = float(rng.integers(low, high))
            lines.append(str(rng.choice(frames)).format(v=int(values[name])))
    return values
