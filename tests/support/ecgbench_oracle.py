"""A second implementation of ECGBench's scorers: plain Python, by scanning and counting.

It shares nothing with the product's: no regular expressions, no numpy, no helper.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from support.ecgbench_texts import CODES, FIXED, NAMES

Row = Mapping[str, Any]
ALNUM = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
OPENING = "([*\"'`"
CLOSING = ").:,;]*\"'`"
FILLERS = {
    *("is", "are", "was", "be", "would", "should", "must", "the", "correct", "best", "most"),
    *("likely", "choice", "option", "letter"),
}


def space_of(config: str) -> tuple[str, ...]:
    return (*(("NORM", "ABNORMAL") if config == "code15-test" else ()), *CODES[config])


# ---- upstream and GEM ----------------------------------------------------------------------------


def authors_gold(config: str, gold: str) -> set[str]:
    if config == "code15-test" and gold in {"NORM", "ABNORMAL"}:
        return {gold}
    return {code for code in CODES[config] if gold.find(code) >= 0}


def authors_labels(config: str, text: str) -> set[str]:
    if config != "code15-test":
        return {code for code in CODES[config] if text.count(code)}
    if "Answer:" in text:
        text = text[text.rindex("Answer:") + 7 :]
    found = {code for code in CODES[config] if text.count(code)}
    if text.count("ABNORMAL"):
        found.add("ABNORMAL")
    elif text.count("NORM"):
        found.add("NORM")
    return found


def authors_letter(text: str) -> str | None:
    if text in list("ABCDEFGH"):
        return text
    dotted = [a for a, b in pairwise(text) if b == "." and "A" <= a <= "H"]
    if dotted:
        return min(dotted)
    phrase = "The correct option is "
    if phrase in text:
        after = text[text.rindex(phrase) + len(phrase) :]
        return after[0] if "A" <= after[0] <= "H" else None
    if "Answer:" in text:
        after = text[text.rindex("Answer:") + 7 :]
        return min((letter for letter in after if "A" <= letter <= "H"), default=None)
    return None


def authors_multi(golds: Sequence[set[str]], stated: Sequence[set[str]]) -> dict[str, Fraction]:
    classes = sorted(set().union(*golds))
    f1s, aucs, wrong = [], [], 0
    for name in classes:
        cells = [(name in gold, name in said) for gold, said in zip(golds, stated, strict=True)]
        tp, fn = cells.count((True, True)), cells.count((True, False))
        fp, tn = cells.count((False, True)), cells.count((False, False))
        f1s.append(Fraction(2 * tp, 2 * tp + fp + fn))
        aucs.append((Fraction(tp, tp + fn) + Fraction(tn, tn + fp)) / 2)
        wrong += fp + fn
    many = len(classes)
    return {
        "f1": sum(f1s, Fraction()) / many,
        "auc": sum(aucs, Fraction()) / many,
        "hamming_loss": Fraction(wrong, many * len(golds)),
    }


def authors_scores(config: str, rows: Sequence[Row], lines: Sequence[Row], gem: bool) -> Any:
    """The authors' figures of answers in the order of their lines."""
    by_id = {row["id"]: row for row in rows}
    if config in CODES:
        pairs = [(by_id[_id(line)]["gold"], _said(line)) for line in lines]
        golds = [authors_gold(config, gold) for gold, _ in pairs]
        return authors_multi(golds, [authors_labels(config, text) for _, text in pairs])
    if config == "ecgqa-test":
        right = sum(_qa_right(by_id[_id(line)], line, gem) for line in lines)
        return {"accuracy": Fraction(right, len(rows))}
    random.seed(42)
    right = 0
    for line in lines:
        letter = authors_letter(_said(line))
        if letter is None:
            letter = random.choice(list("ABCD" if config == "mmmu-ecg" else "ABCDEFGH"))
        right += letter == by_id[_id(line)]["gold"][0]
    return {"accuracy": Fraction(right, len(rows))}


def _qa_right(row: Row, line: Row, gem: bool) -> bool:
    after = row["prompt"].split("Options:")[-1].replace(FIXED, "")
    low = _said(line).lower()
    found = []
    for option in after.split(","):
        option = option.strip()
        if (option.lower() if gem and "text" in line else option) in low:
            found.append(option)
    return set("".join(found) if gem else found) == set(row["gold"])


def _id(line: Row) -> str:
    return str(line["question_id"] if "question_id" in line else line["id"])


def _said(line: Row) -> str:
    return str(line["text"] if "text" in line else line["response"])


# ---- strict --------------------------------------------------------------------------------------


def stands(word: str, text: str, inside: set[str]) -> list[int]:
    """Where a word stands with no character of `inside` next to it."""
    places = []
    for start in range(len(text) - len(word) + 1):
        around = text[max(0, start - 1) : start] + text[start + len(word) :][:1]
        if text.startswith(word, start) and not set(around) & inside:
            places.append(start)
    return places


def strict_labels(config: str, text: str) -> set[str]:
    inside = ALNUM | {"-"}
    low = " ".join(text.lower().split())
    found = set()
    for code in space_of(config):
        name = NAMES.get(code, "") if code in CODES[config] else ""
        if stands(code, text, inside) or (name and stands(name, low, inside)):
            found.add(code)
    return found


def strict_letter(text: str, options: Mapping[str, str]) -> str | None:
    letter = _leading(text) or _final(text)
    if letter:
        return letter if letter in options else None
    found = whole_options(bare(text), options.values())
    letters = [each for each, option in options.items() if option in found]
    return letters[0] if len(letters) == 1 else None


def _leading(text: str) -> str | None:
    start = 0
    while start < len(text) and (text[start].isspace() or text[start] in OPENING):
        start += 1
    letter, rest = text[start : start + 1], text[start + 1 :]
    if not letter or letter not in "ABCDEFGHabcdefgh":
        return None
    if not rest.strip() or rest[0] in CLOSING:
        return letter.upper()
    return letter if rest[0].isspace() and letter in "BCDEFGH" else None


def _final(text: str) -> str | None:
    low, last, letter = text.lower(), -1, None
    for word in ("answer", "option", "choice"):
        for start in range(len(text)):
            if low.startswith(word, start) and not _wordy(text[:start][-1:]):
                end = start + len(word)
                end += text.startswith("s", end)
                found = None if _wordy(text[end : end + 1]) else _letter_after(text, end)
                if found and found[0] > last:
                    last, letter = found
    return letter


def _letter_after(text: str, place: int) -> tuple[int, str] | None:
    while True:
        start = place
        while place < len(text) and (text[place].isspace() or text[place] in ":=*([\"'`-"):
            place += 1
        if start == place or place == len(text):
            return None
        letter, after = text[place], text[place + 1 :]
        if letter in "ABCDEFGH" and not set(after[:1]) & (ALNUM | {"'", "-"}):
            return place, letter
        if letter in "abcdefgh" and (not after.strip() or after[0] in CLOSING):
            return place, letter.upper()
        end = place
        while end < len(text) and _wordy(text[end]):
            end += 1
        if text[place:end].lower() not in FILLERS:
            return None
        place = end


def _wordy(character: str) -> bool:
    return bool(character) and (character.isalnum() or character == "_")


def bare(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:*\"'`()[]")


def whole_options(text: str, options: Iterable[str]) -> set[str]:
    """Options as whole words, the longest first, each character used once."""
    used: set[int] = set()
    found = set()
    inside = {character for character in text if _wordy(character)} | {"-"}
    for option in sorted(filter(None, options), key=lambda each: -len(each)):
        for start in stands(option, text, inside):
            places = set(range(start, start + len(option)))
            if not places & used:
                used |= places
                found.add(option)
    return found


def strict_options(text: str, options: Sequence[str]) -> set[str]:
    if bare(text) in options:
        return {bare(text)}
    for separator in (",", ";"):
        text = text.replace(separator, "\n")
    found = set()
    for line in text.split("\n"):
        part: list[str] = []
        for word in [*line.split(), "and"]:
            if word.lower() in {"and", "or", "&"}:
                found |= whole_options(bare(" ".join(part)), options)
                part = []
            else:
                part.append(word)
                if word[-1] == "." and _wordy(word[-2:-1]):
                    found |= whole_options(bare(" ".join(part)), options)
                    part = []
    return found


def strict_gold(gold: str | Sequence[str]) -> set[str]:
    if not isinstance(gold, str) and any(len(part) > 1 for part in gold):
        parts = [piece for part in gold for piece in ([part] if len(gold) > 1 else part.split(","))]
    else:
        parts = "".join(gold).split(",")
    return {bare(part) for part in parts}


def strict_scores(config: str, rows: Sequence[Row]) -> tuple[dict[str, Fraction], int]:
    """Strict figures, and how many answers are not readable."""
    if config in CODES:
        return _strict_multi(config, rows)
    right = nothing = 0
    for row in rows:
        if config == "ecgqa-test":
            listed = row["prompt"].split("Options:")[-1].replace(FIXED, "")
            options = [bare(option) for option in listed.split(",") if option.strip()]
            found = strict_options(row["text"], options)
            right += bool(found) and found == strict_gold(row["gold"])
            nothing += not found
        else:
            lines = row["prompt"].split("\n")[1:]
            letter = strict_letter(row["text"], {line[0]: bare(line[3:]) for line in lines})
            right += letter == row["gold"][0]
            nothing += letter is None
    return {"accuracy": Fraction(right, len(rows))}, nothing


def _strict_multi(config: str, rows: Sequence[Row]) -> tuple[dict[str, Fraction], int]:
    golds = [strict_labels(config, row["gold"]) for row in rows]
    stated = [strict_labels(config, row["text"]) for row in rows]
    figures = authors_multi([*golds], [*stated])  # every class of the space occurs in these rows
    assert set().union(*golds) == set(space_of(config))
    figures["balanced_accuracy"] = figures.pop("auc")
    exact = sum(gold == said for gold, said in zip(golds, stated, strict=True))
    figures["accuracy"] = Fraction(exact, len(rows))
    return figures, stated.count(set())
