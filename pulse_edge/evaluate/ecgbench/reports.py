"""Reports compared statement by statement, offline. This is not the paper's judge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from pulse_edge.evaluate.ecgbench.reading import Paired
from pulse_edge.evaluate.ecgbench.upstream import gold_text
from pulse_edge.panels.statements import parse_statements

WHAT = (
    "offline comparison of the statements that pulse-edge's parser finds in both reports; it is "
    "not the paper's judge, and its figures are not comparable with the paper's"
)
# Golds that are a translator's question instead of a report.
_BROKEN = re.compile(r"please provide the ECG report|would like translated", re.IGNORECASE)

Pairs = frozenset[tuple[str, str]]


def is_broken_gold(gold: str) -> bool:
    """Whether a gold is no report but a request for one.

    Args:
        gold: its text.
    """
    return _BROKEN.search(gold) is not None


@lru_cache(maxsize=4096)  # most reports of normal ECGs are the same words
def statement_pairs(text: str) -> Pairs:
    """(finding, status) of a report.

    Args:
        text: of the report.
    """
    return frozenset((each.finding, each.status) for each in parse_statements(text))


def compare_reports(paired: Paired) -> dict[str, Any]:
    """Statements of the answers against those of the golds, counted over all items.

    Args:
        paired: items and answers of the report configuration. An item without an answer has no
            statements.

    Returns:
        Precision, recall and F1 of statements, with and without broken golds, and findings that
        differ most often.
    """
    answers = paired.by_question
    rows = []
    for item in paired.items:
        gold = gold_text(item.gold)
        line = answers.get(item.id)
        answer = statement_pairs(line.text or "") if line else frozenset()
        rows.append((is_broken_gold(gold), statement_pairs(gold), answer))
    whole = [(gold, answer) for broken, gold, answer in rows if not broken]
    return {
        "what": WHAT,
        **_statement_figures([(gold, answer) for _, gold, answer in rows]),
        "broken_golds": len(rows) - len(whole),
        "without_broken_golds": _statement_figures(whole),
        "missed": _most(pair for gold, answer in whole for pair in gold - answer),
        "added": _most(pair for gold, answer in whole for pair in answer - gold),
    }


def _statement_figures(rows: Sequence[tuple[Pairs, Pairs]]) -> dict[str, Any]:
    both = sum(len(gold & answer) for gold, answer in rows)
    golds = sum(len(gold) for gold, _ in rows)
    answered = sum(len(answer) for _, answer in rows)
    return {
        "precision": both / answered if answered else None,
        "recall": both / golds if golds else None,
        "f1": 2 * both / (golds + answered) if golds + answered else None,
        "statements": {"both": both, "golds": golds, "answers": answered},
    }


def _most(pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    counted = Counter(f"{finding}: {status}" for finding, status in pairs)
    return dict(sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:10])
