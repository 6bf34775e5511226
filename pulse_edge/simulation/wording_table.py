"""The table of wordings that measure a model, and are kept out of its training.

A first turn is one of `FIRST`, or a check of `CHECKS_ASKED` about a thing of `THINGS_ASKED`; a
later turn is one of `LATER`. Keys are intents, see `intents`.
"""

from __future__ import annotations

FIRST: dict[str, tuple[str, ...]] = {
    "rate": (
        "How many beats per minute do you count?",
        "I need the bpm for my triage note.",
        "At what speed is the heart going?",
        "What number should I write down for the heart rate?",
        "If you work it out from the R-R intervals, which rate do you get?",
        "Could you read the pulse rate off this strip?",
    ),
    "rhythm": (
        "What rhythm is the patient in?",
        "Name the rhythm for me.",
        "Rhythm interpretation, please.",
        "How would you classify the rhythm on this strip?",
        "I can't work out this rhythm. Can you?",
        "Which heart rhythm was recorded?",
        "I am a student: what kind of rhythm am I looking at?",
        "The monitor alarmed, so I want to know what rhythm that is.",
    ),
    "pr": (
        "PR in milliseconds?",
        "How much time passes from the start of the P wave to the start of the QRS?",
        "I'd like the PR interval, please.",
        "What PR value do you measure?",
        "The cart left the PR field empty, can you fill it in?",
    ),
    "qrs": (
        "How many milliseconds wide is the QRS?",
        "QRS width, please.",
        "What did you get for the QRS duration?",
        "From its beginning to its end, how long does one QRS take?",
    ),
    "axis": (
        "Tell me about the QRS axis.",
        "Heart axis?",
        "Judging by leads I and aVF, what do you say about the axis?",
        "Did you work out the axis, and what is it?",
    ),
    "conduction": (
        "What can you say about the conduction system?",
        "Do you notice a block of some sort, either AV or bundle branch?",
        "Are there conduction problems I should know about?",
        "Please list conduction delays or blocks, if you find any.",
    ),
    "ectopy": (
        "Do some beats come earlier than expected?",
        "Is the patient throwing ectopics?",
        "Which kind of extrasystoles, if any, were recorded?",
        "I felt early beats at the wrist, so what premature complexes do you find here?",
    ),
    "st": (
        "Anything wrong with the ST?",
        "Is the ST shifted up or down in some leads?",
        "Chest pain for one hour: what are the ST segments doing?",
        "Which ST deviation, if any, does this patient have?",
    ),
    "lvh": (
        "Does the voltage meet criteria for LVH?",
        "He has had high blood pressure for years, do you see LVH?",
        "Would you report hypertrophy of the left ventricle?",
    ),
    "normal": (
        "Does this look like a normal ECG to you?",
        "Can I call this tracing normal?",
        "Everything normal on this ECG?",
        "Would you sign it off as a normal ECG?",
    ),
    "abnormal": (
        "Do you find anything abnormal?",
        "Would you grade this recording as abnormal?",
    ),
    "verdict": (
        "Which pile does this ECG go in, normal or abnormal?",
        "I just need the overall call, normal or abnormal.",
    ),
    "report": (
        "Write the report for this ECG.",
        "Please interpret this tracing in full.",
        "Take me through everything you see on this page.",
        "I need a complete read.",
        "Summarise all findings, from the rhythm and the intervals to the ST segments.",
        "What would the full written interpretation say?",
    ),
    "regular": (
        "Is the R-R distance constant?",
        "Do the QRS complexes march out regularly?",
        "Would you say the heart beats regularly?",
    ),
    "irregular": (
        "Do the R-R intervals vary from beat to beat?",
        "The pulse feels uneven to me, is the rhythm really irregular?",
    ),
    "regularity": (
        "Please comment on the regularity of the heartbeat.",
        "Are the R-R intervals even or uneven?",
    ),
    "fast": (
        "Is the heart going too fast?",
        "Are we dealing with a tachycardic patient?",
        "Would you say the heartbeat is rapid?",
    ),
    "slow": (
        "Are we under 60 beats per minute?",
        "Should I call this a low heart rate?",
    ),
    "long PR": (
        "Does the PR interval go beyond 200 ms?",
        "From P to QRS, is it taking longer than it should?",
    ),
    "wide QRS": (
        "Are the QRS complexes broad?",
        "Is this a wide-complex rhythm?",
        "Does the QRS last longer than it should?",
    ),
    "beyond": (
        "What was the troponin this morning?",
        "Which drugs is the patient taking?",
        "How much does she weigh?",
        "Can you tell me his oxygen saturation?",
        "Does this person smoke?",
        "Any allergies I should know about?",
        "I want to know the body temperature.",
        "Is one of the heart valves leaking?",
        "When can the patient go home?",
        "Has anybody in the family had heart disease?",
    ),
}
# {a}: one of `THINGS_ASKED`.
CHECKS_ASKED = (
    "Do you see {a} on this tracing?",
    "My colleague thinks this patient has {a}, do you agree?",
    "Please check whether the trace shows {a}.",
    "Can you confirm {a} for me?",
    "The cart flagged {a}. Is that correct?",
    "Looking at this page, am I dealing with {a}?",
    "Tell me if you find {a} in this recording.",
    "I'm not certain, but would you say this is an ECG with {a}?",
    "Would a cardiologist read {a} here?",
)
THINGS_ASKED: dict[str, tuple[str, ...]] = {
    "sinus rhythm": ("a rhythm that starts in the sinus node", "a sinus mechanism"),
    "sinus bradycardia": ("sinus brady", "a sinus rhythm that is too slow"),
    "sinus tachycardia": ("sinus tach", "a sinus rhythm going faster than normal"),
    "sinus arrhythmia": ("a sinus rhythm that keeps speeding up and slowing down",),
    "atrial fibrillation": (
        "atrial fib",
        "fibrillating atria",
        "an irregularly irregular rhythm without P waves",
    ),
    "atrial flutter": ("A-flutter", "sawtooth flutter waves"),
    "ventricular paced rhythm": (
        "pacing spikes ahead of the QRS",
        "a pacemaker driving the ventricles",
        "paced QRS complexes",
    ),
    "first-degree AV block": ("first degree heart block", "an AV block of grade one"),
    "second-degree AV block": ("2nd degree AVB", "a second degree heart block"),
    "third-degree AV block": (
        "3rd degree heart block",
        "a complete block between atria and ventricles",
    ),
    "left bundle branch block": ("LBBB", "a block in the left bundle"),
    "right bundle branch block": ("RBBB", "a right bundle that does not conduct"),
    "premature ventricular contractions": ("early beats from the ventricles",),
    "ventricular bigeminy": ("bigeminal PVCs", "a PVC after every normal beat"),
    "premature atrial contractions": ("supraventricular extrasystoles", "atrial premature beats"),
    "anterior ST elevation": (
        "an anterior STEMI pattern",
        "ST segments that are raised in the anterior leads",
    ),
    "inferior ST elevation": (
        "elevated ST segments in II, III and aVF",
        "ST elevation of the inferior wall",
    ),
    "lateral ST elevation": (
        "raised ST in the lateral leads",
        "a lateral wall ST elevation",
    ),
    "ST depression": ("depressed ST segments", "ST segments below the baseline"),
    "left ventricular hypertrophy": ("a hypertrophied LV", "a thickened left ventricle"),
    "normal axis": ("an axis within normal limits",),
    "left axis deviation": ("a leftward axis", "an axis that has turned to the left"),
    "right axis deviation": ("a rightward axis", "a heart axis deviated to the right"),
    "bundle branch block": (
        "a BBB on one side or the other",
        "a block in one of the bundle branches",
    ),
    "AV block": ("a heart block at the AV node", "AV block of some kind"),
    "ectopic beats": ("ectopic complexes", "beats that come in too early"),
    "ST elevation": ("ST elevation in some leads", "ST segments above the baseline"),
}
LATER: dict[str, tuple[str, ...]] = {
    "which": (
        "Can you be more specific?",
        "Of which type would that be?",
    ),
    "sure": (
        "Are you confident about that?",
        "Can I rely on that?",
    ),
    "that normal": ("And would you expect that in a healthy person?",),
    "where": (
        "What part of the heart does it concern?",
        "On which wall do you see it?",
    ),
    "rate": (
        "Okay, and how many beats per minute does the heart make?",
        "Thanks, I also need the rate.",
    ),
    "rhythm": (
        "Next, the rhythm please.",
        "Now I'd like to know which rhythm it is.",
    ),
    "pr": ("Then the PR interval, please.",),
    "qrs": ("And in milliseconds, how long is the QRS?",),
    "axis": ("Does the axis deviate, and to which side?",),
    "conduction": ("Do you find any conduction trouble as well?",),
    "ectopy": ("Did you also see extrasystoles?", "And extra beats, are there any?"),
    "st": ("Fine, and the ST segments?", "Now look at the ST, do you find anything there?"),
    "lvh": ("And LVH, do you see that?",),
    "regular": ("Is the rhythm a regular one, then?",),
}
