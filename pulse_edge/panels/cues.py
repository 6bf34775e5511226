"""Words that negate or hedge a phrase, and how far they reach.

The rules are conservative. A negation counts if it stands before the phrase with nothing but
known words between ("no evidence of acute ..."), if it opens a list that "or" or "nor" closes, or
if it follows the phrase directly ("... is not seen"). Where a negation may or may not reach a
phrase, the phrase is uncertain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Polarity = Literal["stated", "negated", "uncertain"]
LONGEST_SENTENCE = 1000  # characters; what a longer one means is uncertain

# A negation or a hedge before one of these says nothing about what follows.
_BOUNDARY = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|nevertheless|except(?:ing)?(?: for)?"
    r"|other than|apart from|aside from|besides)\b"
    r"|,\s*(?:and\s+)?(?:there|it|this|which|with)\b"
    r"|(?:,|\band)\s+the\s+(?:[\w-]+\s+){1,3}(?:is|are|shows?|has|have|was|were)\b"
    r"|\band\s+(?:there|it|this)\b",
    re.I,
)
_HEDGE = re.compile(
    r"\b(?:possib(?:le|ly|ility|ilities)|probab(?:le|ly|ility)|(?:un)?like(?:ly|lihood)|chance"
    r"|suspect(?:ed|s)?|suspicio(?:n|us)|may|might|could|would|consider(?:ed|ation|ing)?"
    r"|question(?:able)?|equivocal|borderline|concern(?:s|ing)?|rais(?:e|es|ing)|differential"
    r"|diagnos\w+|versus|vs|appears?|seems?|looks? like|resembl\w+|similar to|simulat\w+|mimic\w*"
    r"|history|previous(?:ly)?|prior (?:ecgs?|tracings?|stud(?:y|ies))|compared|risk|if|unless"
    r"|whether|rul(?:e[sd]?|ing) out|r/o|exclu(?:des?|ding|sion)|insufficient|little|hardly"
    r"|unchanged|resol(?:ved|ution)|preclud\w+|prevent\w*|assess\w*|evaluat\w*|mask\w*|obscur\w*"
    r"|impossible|unable|difficult|limited|such as|e\.g|for example|as (?:seen )?in"
    r"|recommend\w*|advi[sc]\w+|typical(?:ly)? (?:of|in)|associated with|patients?|symptoms?"
    r"|treat\w*|monitor\w*|screen\w*|work ?-?up|secondary to|due to|caused by|correlat\w*"
    r"|can (?:be|cause|indicate|occur|mean)|can(?:not|['’]t| not) (?:be )?(?:rule|exclude)\w*"
    r"|not (?:exclude|rule)\w*|no (?:\w+ )?changes? (?:in|from|since|compared|of)"
    r"|not (?:certain|clear)\w*)\b"
    r"|\?",
    re.I,
)
# Hedges that a negation before them turns into words of its own: "no findings that suggest".
_INFERENCE = re.compile(
    r"\b(?:suggest(?:s|ed|ing|ive|ion)?|indicat(?:es?|ed|ing|ive|ions?)|consistent|compatible"
    r"|concerning|suspicious|characteristic)\b",
    re.I,
)
_NEGATION = re.compile(
    r"\b(?:no longer|no|not(?! only)|non(?= (?!specific))|without|absence of|absent|lack of|lacks?"
    r"|negative for|unremarkable for|free (?:of|from)|devoid of|neither|nor|never|rather than"
    r"|instead of|cannot|(?:does|do|is|are|was|were|can) ?n['’]t|denies|fail(?:s|ed)? to)\b",
    re.I,
)
_OTHERS = re.compile(r"\s+(?:other|additional|further)\b", re.I)  # "no other ...": of the rest
_FILLER = re.compile(
    r"(?:\b(?:evidence|signs?|suggestion|indications?|features?|findings?|criteria|patterns?"
    r"|presence|episodes?|of|for|to|with|any|either|the|a|an|that|in|on|this|it|there|is|are|be|been"
    r"|have|has|do|does|shows?|showing|shown|seen?|demonstrate[sd]?|reveal(?:s|ed)?|meets?|met"
    r"|present|suggest(?:s|ed|ing|ive)?|indicat(?:es?|ing|ive)|consistent|compatible|concerning"
    r"|suspicious|acute|significant|definite|definitive|obvious|clear|convincing|diagnostic"
    r"|pathological|major|visible|apparent|notable|remarkable|overt|identified|noted|detected"
    r"|observed|recorded|ecg|ekg|tracing|recording|electrocardiogra(?:m|phic))\b|\s)*",
    re.I,
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|shows?|seen|noted|present|with|and|plus)\b|&", re.I
)
_OR = re.compile(r"\b(?:or|nor)\b|/", re.I)
_CLOSED_LIST = re.compile(r"[^;:]*?(?:\b(?:or|nor)\b|/)", re.I)
_ALTERNATIVE_AFTER = re.compile(r"\s*,?\s*(?:(?:and/)?or|vs\.?|versus)\b|\s*/", re.I)
_ALTERNATIVE_BEFORE = re.compile(r"(?:\b(?:or|vs\.?|versus)\s+|/\s*)(?:(?:a|an|the)\s+)?$", re.I)
_LINK = re.compile(r"\s*(?:,|,?\s*\b(and|or|nor)\b|/)\s*(?:(?:a|an|the|any)\s+)?", re.I)

# After a phrase: "in leads V1 to V3", "(mild)".
_PLACE = r"(?:\s*\([^)]*\))?(?:\s+(?:in|on|at|from|across|over)\b[^,;:]{0,40}?)?\s*"
_SEEN = (
    r"(?:seen|present|noted|observed|identified|evident|detected|visible|apparent|found|shown"
    r"|demonstrated|appreciated|recorded|met|fulfilled|satisfied|there)"
)
_COMPANY = re.compile(
    r"\s+with\s(?:[^,;:]|:\d){1,60}?(?=\s(?:is|are|was|were|has|have|can|cannot|could|would|might"
    r"|should|must|may|not|absent)\b|:\s)",
    re.I,
)
_HEDGED_AFTER = re.compile(
    rf"{_PLACE}(?:,?\s*\(?(?:possibl[ey]|probabl[ey]|(?:un)?likely)\b|\(?\?"
    r"|(?:is|are|was|were|remains?|seems?|appears?)\s+(?:also\s+|only\s+|most\s+|very\s+)?"
    r"(?:possible|probable|(?:un)?likely|suspected|questionable|uncertain|unclear|borderline"
    r"|equivocal|suggested|not (?:certain|clear\w*|definit\w*|significant|excluded|ruled out))\b"
    r"|(?:should|must|may|might|could|would|need\w*)\b"
    r"|(?:was|were|is|are|has|have|had)\s+(?:been\s+)?(?:considered|converted|terminated)\b"
    r"|(?:considered|converted|terminated)\b"
    r"|(?:is|are|was|were)\s+to\s+be\b"
    r"|can(?:not|['’]t| not)\s+be\s+(?:\w+ly\s+)?(?:ruled|excluded)"
    r"|(?:not|never)\s+(?:excluded|ruled out))",
    re.I,
)
_NEGATED_AFTER = re.compile(
    rf"{_PLACE}(?:(?:is|are|was|were|has been|have been)\s+"
    rf"(?:not\s+(?:clearly\s+)?{_SEEN}|no longer|absent|negative|excluded|ruled out)\b"
    rf"|not\s+{_SEEN}\b|can(?:not|['’]t| not)\s+be\s+{_SEEN}\b|absent\b"
    r"|(?:can be\s+|,?\s*\(?)(?:ruled out|excluded)\b"
    r"|[:–-]\s*(?:no|none|absent|negative)\s*(?:[.,;!)]|$)"
    r"|(?:(?:has|have)\s+)?(?:resolved|disappeared)\b)",
    re.I,
)
_DOUBTFUL_AFTER = re.compile(
    rf"{_PLACE}(?:(?:is|are|was|were|does|do|did|has|have|can)\s*)?(?:not|n['’]t|impossible)\b"
    r"|,?\s*not\b",
    re.I,
)


@dataclass(frozen=True)
class Clause:
    """A sentence and the phrases in it: (start, stop) of each, counted in the sentence."""

    text: str
    phrases: tuple[tuple[int, int], ...]

    def polarity(self, index: int) -> Polarity | None:
        """How the sentence puts a phrase; None if it speaks of others only ("no other ...")."""
        if len(self.text) > LONGEST_SENTENCE:
            return "uncertain"
        start, stop = self.phrases[index]
        begin = max((end for at, end in self._boundaries if at < start), default=0)
        before = self.text[min(start, begin) : start]
        after = self.text[stop:]
        reached = _negation_before(before, after)
        if reached is None:
            return None
        hedged = bool(_HEDGE.search(before))
        hedged = hedged or (reached != "negated" and bool(_INFERENCE.search(before)))
        follows = self._following[index]
        if hedged or "uncertain" in (reached, follows) or self.text.rstrip().endswith("?"):
            return "uncertain"
        if reached == follows == "negated":  # a double negation
            return "uncertain"
        if "negated" in (reached, follows):
            return "negated"
        if _ALTERNATIVE_AFTER.match(after) or _ALTERNATIVE_BEFORE.search(before):
            return "uncertain"
        return "stated"

    @cached_property
    def _boundaries(self) -> list[tuple[int, int]]:
        return [match.span() for match in _BOUNDARY.finditer(self.text)]

    @cached_property
    def _following(self) -> list[Polarity]:
        """What follows each phrase, also behind a list that it opens: "A or B is not seen"."""
        following: list[Polarity] = []
        for index in range(len(self.phrases) - 1, -1, -1):
            stop = self.phrases[index][1]
            polarity = _polarity_after(self.text[stop:])
            if polarity == "stated" and following and following[-1] != "stated":
                link = _LINK.fullmatch(self.text[stop : self.phrases[index + 1][0]])
                if link is not None:
                    closed = (link[1] or "").lower() in ("or", "nor")
                    polarity = following[-1] if closed else "uncertain"
            following.append(polarity)
        return following[::-1]


def _polarity_after(after: str) -> Polarity:
    company = _COMPANY.match(after)
    if company is not None:  # "A with B is not seen": of both, or of the pair?
        rest = _polarity_after(after[company.end() :])
        return "stated" if rest == "stated" else "uncertain"
    if _HEDGED_AFTER.match(after):
        return "uncertain"
    if _NEGATED_AFTER.match(after):
        return "negated"
    return "uncertain" if _DOUBTFUL_AFTER.match(after) else "stated"


def _negation_before(before: str, after: str) -> Polarity | None:
    """Whether the last negation before a phrase reaches it."""
    hedged = [(hedge.start(), hedge.end()) for hedge in _HEDGE.finditer(before)]
    cues = [
        cue
        for cue in _NEGATION.finditer(before)
        if not any(start <= cue.start() < end for start, end in hedged)
    ]
    if not cues:
        return "stated"
    cue = cues[-1]
    gap = before[cue.end() :]
    if _OTHERS.match(gap):
        return None
    if len(cues) > 1 and _FILLER.fullmatch(before[cues[-2].end() : cue.start()]):
        return "uncertain"  # "not without ..."
    if _FILLER.fullmatch(gap):
        return "negated"
    if _VERB.search(gap):
        return "uncertain"
    last = list(_OR.finditer(gap))
    if last:
        return "negated" if "," not in gap[last[-1].end() :] else "uncertain"
    closing = _CLOSED_LIST.match(after)
    if "," in gap and closing and not (_VERB.search(closing[0]) or _BOUNDARY.search(closing[0])):
        return "negated"
    return "uncertain"
