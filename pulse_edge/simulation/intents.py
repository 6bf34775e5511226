"""What a question in free words asks for, and the sentence that answers it.

An intent is a name: a topic of `questions.QUESTIONS`, "report", one of `MEASURED`, "beyond" (the
page does not tell), "greeting", or "is " and one of `CHECKED`. A later turn may also ask "which",
"sure", "that normal" or "where" of the turn before.
"""

from __future__ import annotations

import re

from pulse_edge.simulation.ecg import AXES, CONDUCTION, RHYTHMS, SECOND
from pulse_edge.simulation.questions import CANNOT, LABELS, NO_ECG, Findings, answer, report

UNKNOWN = "I cannot tell that from this ECG."
HELP = "Ask me about this ECG."
SURE = "As far as I can tell, yes."

TOPIC_INTENTS = (
    "rate",
    "rhythm",
    "pr",
    "qrs",
    "axis",
    "conduction",
    "ectopy",
    "st",
    "lvh",
    "normal",
)
MEASURED = (
    "regular",
    "irregular",
    "regularity",
    "abnormal",
    "verdict",
    "fast",
    "slow",
    "long PR",
    "wide QRS",
)
MEASURED_TOPICS = {  # of those that are not about the rhythm
    "abnormal": "normal",
    "verdict": "normal",
    "fast": "rate",
    "slow": "rate",
    "long PR": "pr",
    "wide QRS": "qrs",
}
# group -> the findings in it
GROUPS = {
    "bundle branch block": CONDUCTION[3:],
    "AV block": CONDUCTION[:3],
    "ectopic beats": (
        "premature ventricular contractions",
        "ventricular bigeminy",
        "premature atrial contractions",
    ),
    "ST elevation": ("anterior ST elevation", "inferior ST elevation", "lateral ST elevation"),
}
CHECKED = ("sinus rhythm", *LABELS, *AXES, *GROUPS)
CHECKS = tuple(f"is {name}" for name in CHECKED)
# Intents of later turns that depend on the turn before.
FOLLOW_UPS = ("which", "sure", "that normal", "where")

LONG_PR_MS = 200
WIDE_QRS_MS = 120
FAST_BPM = 100
SLOW_BPM = 60
SHORT_PR_MS = 120


def reply(intent: str, f: Findings | None, before: str = "") -> str:
    """The right answer.

    Args:
        intent: see this module.
        f: what the page shows; None: it shows no ECG.
        before: the intent of the turn before, for one of `FOLLOW_UPS`.

    Raises:
        ValueError: there is no such intent.
    """
    if intent == "greeting":
        return HELP
    if f is None:
        return NO_ECG
    if intent in FOLLOW_UPS:
        return _follow_up(intent, f, before)
    if intent == "beyond":
        return UNKNOWN
    if intent == "report":
        return report(f)
    if intent in MEASURED:
        return _measured(intent, f)
    if intent.startswith("is "):
        return _finding_checked(intent.removeprefix("is "), f)
    return answer(intent, f)


# Topics whose answers exclude each other: one of them answers a question for another one.
EXCLUSIVE = ("rhythm", "axis", "st", "ectopy", "lvh")


def right_replies(intent: str, f: Findings | None, before: str = "") -> tuple[str, ...]:
    """All sentences that answer rightly: `reply`, and for a check the statement of its topic if
    that leaves nothing open ("No ST change." denies any ST elevation).

    Args:
        intent: see this module.
        f: what the page shows; None: no ECG.
        before: the intent of the turn before.
    """
    first = reply(intent, f, before)
    topic = topic_of(intent)
    if f is None or not intent.startswith("is "):
        return (first,)
    statement = answer(topic, f)
    if topic in EXCLUSIVE or statement.startswith("No "):
        return first, statement
    return (first,)


def _measured(intent: str, f: Findings) -> str:
    if intent in ("regular", "irregular", "regularity"):
        truth = "irregular" if _is_irregular(f) else "regular"
        verdict = "" if intent == "regularity" else f"{_yes(intent == truth)}, "
        return f"{verdict}{'the' if verdict else 'The'} rhythm is {truth}."
    if intent in ("abnormal", "verdict"):
        verdict = f"{_yes(bool(f.labels))}, this" if intent == "abnormal" else "This"
        return f"{verdict} is {'an abnormal' if f.labels else 'a normal'} ECG."
    if intent in ("fast", "slow"):
        yes = f.rate > FAST_BPM if intent == "fast" else f.rate < SLOW_BPM
        return f"{_yes(yes)}, the heart rate is {f.rate} bpm."
    if intent == "wide QRS":
        return f"{_yes(f.qrs >= WIDE_QRS_MS)}, the QRS duration is {f.qrs} ms."
    if f.pr is None:
        return answer("pr", f)
    return f"{_yes(f.pr > LONG_PR_MS)}, the PR interval is {f.pr} ms."


def _is_irregular(f: Findings) -> bool:
    irregular = f.rhythm in ("atrial fibrillation", "sinus arrhythmia")
    return irregular or f.ectopy != "none" or SECOND in f.conduction


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _finding_checked(name: str, f: Findings) -> str:
    if name in RHYTHMS:
        sinus = name == RHYTHMS[0] and f.rhythm.startswith("sinus")
        return f"{_yes(sinus or name == f.rhythm)}, the rhythm is {f.rhythm}."
    if name in AXES:
        return f"{_yes(name == f.axis)}, {f.axis}."
    if name == "ectopic beats":  # "Are there ectopic beats?" is a fixed form, with this answer
        return answer("ectopy", f)
    present = [label for label in GROUPS.get(name, (name,)) if label in f.labels]
    if not present:
        return f"No {name}."
    return f"Yes, {' and '.join(present)}."


def topic_of(intent: str) -> str:
    """The topic of `QUESTIONS` to which an intent belongs; "" if it has none.

    Args:
        intent: see this module.
    """
    if intent in TOPIC_INTENTS:
        return intent
    if intent in MEASURED:
        return MEASURED_TOPICS.get(intent, "rhythm")
    name = intent.removeprefix("is ")
    names = {
        "rhythm": RHYTHMS,
        "axis": AXES,
        "conduction": (*CONDUCTION, "bundle branch block", "AV block"),
        "ectopy": (*GROUPS["ectopic beats"], "ectopic beats"),
        "st": (*GROUPS["ST elevation"], "ST elevation", "ST depression"),
        "lvh": ("left ventricular hypertrophy",),
    }
    return next((topic for topic, group in names.items() if name in group), "")


def _follow_up(intent: str, f: Findings, before: str) -> str:
    if intent == "sure":
        return SURE
    topic = topic_of(before)
    if intent == "where":
        return answer("st", f)
    if intent == "which":
        return answer(topic, f) if topic not in ("", "normal") else UNKNOWN
    if topic == "rate":
        return f"{_yes(SLOW_BPM <= f.rate <= FAST_BPM)}, the heart rate is {f.rate} bpm."
    if topic == "pr" and f.pr is not None:
        return f"{_yes(SHORT_PR_MS <= f.pr <= LONG_PR_MS)}, the PR interval is {f.pr} ms."
    if topic == "qrs":
        return f"{_yes(f.qrs < WIDE_QRS_MS)}, the QRS duration is {f.qrs} ms."
    return answer("normal", f)


RATE_BPM = 5  # tolerances of numbers
INTERVAL_MS = 20


def reply_right(text: str, expected: str) -> bool:
    """Whether an answer says what is expected: the same words, with numbers within tolerances.

    A refusal may be worded as `UNKNOWN` or as `CANNOT`.

    Args:
        text: of the model.
        expected: see `reply`.
    """
    words, numbers = _split(text)
    right_words, right_numbers = _split(expected)
    if expected in (UNKNOWN, CANNOT):
        return text.strip() in (UNKNOWN, CANNOT)
    if not right_words.startswith(
        ("Yes,", "No,", "No ")
    ):  # "Yes" before a statement does not change it
        words = words.removeprefix("Yes, ")
    if words.lower() != right_words.lower():
        return False
    tolerances = [RATE_BPM if unit == "bpm" else INTERVAL_MS for _, unit in right_numbers]
    return all(
        abs(said[0] - true[0]) <= tolerance
        for said, true, tolerance in zip(numbers, right_numbers, tolerances, strict=True)
    )


def _split(text: str) -> tuple[str, list[tuple[int, str]]]:
    """Words with numbers taken out, and the numbers with their units."""
    numbers = [(int(value), unit) for value, unit in re.findall(r"(\d+) (bpm|ms)", text)]
    return re.sub(r"\d+ (bpm|ms)", r"# \1", text).strip(), numbers


LETTER = re.compile(r"\s*[A-D]\.(\s|$)")


def is_letter(text: str) -> bool:
    """Whether an answer chooses an option by its letter.

    Args:
        text: of the model.
    """
    return bool(LETTER.match(text))
