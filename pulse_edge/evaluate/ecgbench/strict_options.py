"""Options of ECG-QA as `strict` reads them: whole words, the longest option first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from pulse_edge.evaluate.ecgbench.reading import Paired, Reading
from pulse_edge.evaluate.ecgbench.upstream import prompt_candidates
from pulse_edge.evaluate.scoring import share

_SEPARATORS = re.compile(r"[,;\n]|(?<=\w)\.\s|\s(?:and|or|&)\s", re.IGNORECASE)
_YES_NO = frozenset({"yes", "no", "not sure"})


def plain(text: str) -> str:
    """A text as options are compared: case, spaces, and what stands around it aside.

    Args:
        text: an option or an answer.
    """
    return " ".join(text.split()).strip(" .,;:*\"'`()[]").casefold()


def options_in(text: str, options: Iterable[str]) -> set[str]:
    """Options that a text holds as whole words. A longer option hides those within it.

    Args:
        text: in plain form.
        options: in plain form.
    """
    found = set()
    for option in sorted(set(options), key=len, reverse=True):
        if not option or option not in text:
            continue
        text, times = _whole_option(option).subn("\0", text)
        if times:
            found.add(option)
    return found


@lru_cache(maxsize=4096)
def _whole_option(option: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(option)}(?![\w-])")


@lru_cache(maxsize=4096)
def prompt_options(prompt: str) -> tuple[str, ...]:
    """Options of an ECG-QA prompt in plain form, without empty ones.

    Args:
        prompt: of the item.
    """
    return tuple(dict.fromkeys(filter(None, map(plain, prompt_candidates(prompt)))))


def read_options(text: str, options: Sequence[str]) -> set[str]:
    """Options that an answer states.

    Args:
        text: the answer.
        options: in plain form.
    """
    # An option may hold a separator ("yes or no"), so a whole answer is compared first.
    whole = plain(text)
    if whole in options:
        return {whole}
    found: set[str] = set()
    for part in _SEPARATORS.split(text):
        found |= options_in(plain(part), options)
    return found


def gold_options(gold: str | Sequence[str], options: Sequence[str]) -> frozenset[str]:
    """Options that a gold names.

    Args:
        gold: as the file has it: a string, its characters, or a list of options.
        options: in plain form.
    """
    if not isinstance(gold, str) and (len(gold) == 1 or all(len(part) <= 1 for part in gold)):
        gold = "".join(gold)
    if not isinstance(gold, str):
        return frozenset(filter(None, map(plain, gold)))
    if plain(gold) in options:
        return frozenset({plain(gold)})
    named = [plain(part) for part in re.split(r"[,;]", gold)]
    return frozenset(filter(None, named))


def question_type(options: Sequence[str], prompt: str) -> str:
    """ECG-QA's type of a question: verify, choose or query.

    Args:
        options: in plain form.
        prompt: of the item.
    """
    if _YES_NO.issuperset(options):
        return "verify"
    question = plain(prompt.rpartition("Options:")[0])
    named = sum(option in question for option in options)
    return "choose" if named >= 2 and " or " in question else "query"


def read_strict_options(paired: Paired) -> Reading:
    """The strict reading of ECG-QA.

    Args:
        paired: its items and answers.
    """
    answers = paired.by_question
    stated: list[set[str]] = []
    golds: list[frozenset[str]] = []
    types: dict[str, list[bool]] = {}
    for item in paired.items:
        options = prompt_options(item.prompt)
        line = answers.get(item.id)
        stated.append(read_options(line.text or "" if line else "", options))
        golds.append(gold_options(item.gold, options))
        right = bool(stated[-1]) and stated[-1] == golds[-1]
        types.setdefault(question_type(options, item.prompt), []).append(right)
    return Reading(
        np.array([bool(a) and a == b for a, b in zip(stated, golds, strict=True)], bool),
        None,
        [", ".join(sorted(each)) for each in stated],
        [", ".join(sorted(each)) for each in golds],
        np.array([not each for each in stated], bool),
        notes={"by_type": dict(sorted(option_shares(types).items()))},
    )


def option_shares(right: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, float]]:
    """By name: how many items, and the share of right answers. The most frequent first.

    Args:
        right: by name, whether each item is right.
    """
    order = sorted(right, key=lambda name: (-len(right[name]), name))
    return {name: {"n": len(right[name]), "accuracy": share(list(right[name]))} for name in order}
