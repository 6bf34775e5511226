"""Questions in free words, and later turns, about held-out simulated pages.

    pulse-edge eval --task wording BUNDLE [BUNDLE ...] --pages 200

The wordings are those of `pulse_edge.simulation.wording_table`, which no training uses. An answer
is right if it is the sentence that the page's truth gives, with numbers within tolerances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.evaluate.scoring import bootstrap, share
from pulse_edge.evaluate.task import Ask
from pulse_edge.simulation.cases import SEED, heldout_case, heldout_indices
from pulse_edge.simulation.intents import TOPIC_INTENTS, is_letter, reply_right
from pulse_edge.simulation.wordings import Spoken, conversation, first_turns

CONVERSATIONS = 2  # a page
ALL = "all turns"
LETTERS = "letter without options"
KINDS = (
    "topic",
    "yes or no",
    "report",
    "beyond the page",
    "turn about the one before",
    "other topic in a later turn",
)


class Said(NamedTuple):
    """One turn of one model: its kind of `KINDS`, the turn, the answer."""

    kind: str
    turn: Spoken
    text: str


Replies = list[list[Said]]  # of each model, about one case


@dataclass
class WordingScores:
    """Of one model: by kind, whether each turn was right; and whether each was a lone letter."""

    right: dict[str, list[bool]] = field(default_factory=dict)
    letters: list[bool] = field(default_factory=list)

    def add(self, said: Said) -> None:
        """Score a turn.

        Args:
            said: the turn and its answer.
        """
        right = any(reply_right(said.text, expected) for expected in said.turn.right)
        self.right.setdefault(said.kind, []).append(right)
        self.letters.append(is_letter(said.text))


@dataclass(frozen=True)
class FreeWording:
    """The task: `pages` held-out pages of a set, and 5 % as many images without an ECG."""

    pages: int
    seed: int = SEED
    max_new_tokens: int = 160  # the longest report has about 90

    def cases(self) -> Sequence[int]:
        """See `Task.cases`."""
        return heldout_indices(self.pages)

    def ask(self, case: int, models: Sequence[Ask]) -> Replies:
        """See `Task.ask`. Later turns follow the model's own answers."""
        page = heldout_case(case, self.seed)
        rng = np.random.default_rng([self.seed, abs(case), 8])
        singles = first_turns(page.truth, rng)
        talks = [conversation(page.truth, rng) for _ in range(CONVERSATIONS)]
        return [_ask_model(page.image, singles, talks, model) for model in models]

    def score(self, replies: Iterable[Replies]) -> list[WordingScores]:
        """See `Task.score`."""
        scores: list[WordingScores] = []
        for models in replies:
            scores = scores or [WordingScores() for _ in models]
            for each, turns in zip(scores, models, strict=True):
                for said in turns:
                    each.add(said)
        return scores

    def report(self, names: Sequence[str], scores: list[WordingScores]) -> dict[str, Any]:
        """See `Task.report`: by bundle its figures, with the number of turns."""
        return {
            "pages": self.pages,
            "seed": self.seed,
            "notice": "simulated pages only; " + NOTICE,
            "scores": {
                name: wording_summary(each) for name, each in zip(names, scores, strict=True)
            },
        }

    def table(self, report: dict[str, Any]) -> str:
        """See `Task.table`: Markdown."""
        results = report["scores"]
        lines = ["| | " + " | ".join(results) + " |", "| --- |" + " --- |" * len(results)]
        for name in (*KINDS, ALL, LETTERS):
            cells = [
                f"{cell['value']:.3f} ({cell['low']:.3f}-{cell['high']:.3f})"
                for cell in (result[name] for result in results.values())
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _ask_model(
    image: Any, singles: list[Spoken], talks: list[list[Spoken]], model: Ask
) -> list[Said]:
    out = [Said(_kind_of(turn), turn, model(image, turn.text)) for turn in singles]
    for talk in talks:
        turns: list[tuple[str, str]] = []
        for number, turn in enumerate(talk):
            text = model(image, turn.text, tuple(turns))
            kind = KINDS[3 + number] if number else _kind_of(turn)
            out.append(Said(kind, turn, text))
            turns.append((turn.text, text))
    return out


def _kind_of(turn: Spoken) -> str:
    if turn.intent in TOPIC_INTENTS:
        return "topic"
    return {"report": "report", "beyond": "beyond the page"}.get(turn.intent, "yes or no")


def wording_summary(
    scores: WordingScores, draws: int = 300, seed: int = 0
) -> dict[str, dict[str, float]]:
    """By figure: its value, the 95 % interval by bootstrap over turns, and the number of turns.

    Args:
        scores: of one model.
        draws: of the bootstrap.
        seed: of those draws.
    """
    everything = [right for turns in scores.right.values() for right in turns]
    figures: dict[str, list[bool]] = {kind: scores.right.get(kind, []) for kind in KINDS}
    figures |= {ALL: everything, LETTERS: scores.letters}
    out: dict[str, dict[str, float]] = {}
    for name, values in figures.items():
        low, high = bootstrap(share, values, draws, seed)
        out[name] = {"value": share(values), "low": low, "high": high, "turns": len(values)}
    return out
