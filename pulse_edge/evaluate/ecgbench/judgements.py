"""What a judge said of the answers: read from its replies, and kept a line each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Judgement:
    """What the judge said of one answer.

    Attributes:
        question_id: of the answer.
        scores: by aspect, 0 to 10.
        broken: whether the gold is no report.
    """

    question_id: str
    scores: Mapping[str, float]
    broken: bool

    @property
    def mean(self) -> float:
        """Mean of all aspects, 0 to 1: an extra aspect counts, as with the authors."""
        return sum(self.scores.values()) / len(self.scores) / 10


def read_judgement(reply: str) -> dict[str, float]:
    """Scores of a judge's reply, which is JSON `{aspect: {"Score": 0-10, …}}`, perhaps in a fence.

    Args:
        reply: the text.

    Returns:
        By aspect; empty if the reply is not that.
    """
    start = reply.find("{")
    try:
        said = json.loads(reply[start : reply.rfind("}") + 1])
        scores = {aspect: float(each["Score"]) for aspect, each in said.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return scores if all(0 <= score <= 10 for score in scores.values()) else {}


class JudgementFile:
    """Judgements of one judge on one configuration, a line each, written at once.

    Attributes:
        judgements: by question.
    """

    def __init__(self, run: Path, config: str, identity: str) -> None:
        """Open the file, or begin it.

        Args:
            run: folder of the run.
            config: name of the configuration.
            identity: of the judge and its instructions.
        """
        # Not `.jsonl`: `read_run` takes such a file for answers.
        self._path = run / config / f"judge-{identity}.judgements"
        self.judgements = {each.question_id: each for each in self._read()}

    def _read(self) -> Iterator[Judgement]:
        if not self._path.exists():
            return
        for line in self._path.read_text("utf-8").split("\n"):
            try:
                record = json.loads(line)
                yield Judgement(record["question_id"], record["scores"], record["broken"])
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill: it is asked again

    def add(self, judgement: Judgement) -> None:
        """Keep a judgement, on the disk before this returns.

        Args:
            judgement: a new one.
        """
        record = {
            "question_id": judgement.question_id,
            "scores": dict(judgement.scores),
            "broken": judgement.broken,
        }
        self._path.parent.mkdir(exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            # A leading line feed ends a line that a kill cut off.
            file.write("\n" + json.dumps(record))
            file.flush()
            os.fsync(file.fileno())
        self.judgements[judgement.question_id] = judgement
