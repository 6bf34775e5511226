"""The answers of a RUN: ours, upstream's, GEM's and the baselines' lines, by question."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.guarded import open_regular, reason

FINAL = "step-final.jsonl"


@dataclass(frozen=True)
class AnswerLine:
    """One line of an answers file.

    Attributes:
        question_id: of the question.
        text: the answer; None if the line has neither `text` nor `response`.
        prompt: as the line has it; None if it has none.
        baseline: whether the answer stood in `response`, as the baselines write it.
        turns: of an arena conversation, its answers.
        metadata: ours, or whatever the line has.
        model: `model_id`; "" if the line has none.
    """

    question_id: str
    text: str | None
    prompt: str | None
    baseline: bool
    turns: tuple[str, ...]
    metadata: Mapping[str, Any]
    model: str = ""

    @property
    def whole(self) -> str:
        """All that was answered, as one text."""
        return "\n".join(self.turns) if self.turns else self.text or ""


@dataclass(frozen=True)
class Answers:
    """The answers to one configuration, in the order of their file.

    Attributes:
        lines: one for each question: the last line, if a question has several.
        duplicates: lines that a later line of the same question replaced.
        truncated: whether an unfinished last line was left out.
    """

    lines: tuple[AnswerLine, ...]
    duplicates: int
    truncated: bool


@dataclass(frozen=True)
class RunAnswers:
    """The answers of a RUN.

    Attributes:
        name: that heads its column.
        folder: where it lies.
        answers: by configuration.
    """

    name: str
    folder: Path
    answers: Mapping[str, Answers]

    @property
    def model(self) -> str:
        """The `model_id` of all lines; "" if they have none, or several."""
        models = {line.model for each in self.answers.values() for line in each.lines}
        return models.pop() if len(models) == 1 else ""

    @property
    def precision(self) -> str | None:
        """Of the bundle that answered; None if the lines do not say."""
        lines = (line for each in self.answers.values() for line in each.lines)
        said = (line.metadata.get("precision") for line in lines)
        named = {each for each in said if isinstance(each, str)}
        return named.pop() if len(named) == 1 else None


def read_run(path: str | os.PathLike[str], name: str | None = None) -> RunAnswers:
    """Read the answers of a RUN.

    Args:
        path: folder with `<config>/step-final.jsonl`, another single file in `<config>/`, or
            `<config>.jsonl`.
        name: of its column; None: the folder's name.

    Raises:
        ParameterError: there are no answers, or a file is not as one of the writers leaves it.
    """
    folder = Path(path)
    found = {config: _answers_path(folder, config) for config in CONFIGURATIONS}
    answers = {config: read_answers(file) for config, file in found.items() if file}
    if not answers:
        raise ParameterError(
            f"{folder}: holds no answers; it needs <config>/{FINAL}, with <config> one of "
            f"{', '.join(CONFIGURATIONS)}"
        )
    return RunAnswers(name or folder.resolve().name, folder, answers)


def _answers_path(folder: Path, config: str) -> Path | None:
    final = folder / config / FINAL
    if final.is_file():
        return final
    flat = folder / f"{config}.jsonl"
    others = sorted((folder / config).glob("*.jsonl")) + ([flat] if flat.is_file() else [])
    if len(others) > 1:
        raise ParameterError(
            f"{folder}: {config} has {len(others)} answers files and no {FINAL}; leave one of "
            + ", ".join(str(path.relative_to(folder)) for path in others)
        )
    return others[0] if others else None


def read_answers(path: Path) -> Answers:
    """Read an answers file.

    Args:
        path: of JSON lines; CRLF, a byte order mark and empty lines are no matter.

    Raises:
        ParameterError: it cannot be read, or a line is no answer.
    """
    lines: dict[str, AnswerLine] = {}
    duplicates = 0
    truncated = False
    for number, line, last in _numbered(_text_of(path)):
        try:
            record = json.loads(line)
        except ValueError:
            if not last:
                raise ParameterError(
                    f"{path}, line {number}: is not JSON; remove the line or run again"
                ) from None
            truncated = True
            continue
        answer = _answer_line(record, f"{path}, line {number}")
        # Replaced lines go, so that the position is the last line's, whose answer counts.
        duplicates += lines.pop(answer.question_id, None) is not None
        lines[answer.question_id] = answer
    return Answers(tuple(lines.values()), duplicates, truncated)


def _text_of(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"{path}: is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: cannot be read ({reason(error)})") from None


def _numbered(text: str) -> Iterator[tuple[int, str, bool]]:
    """(number, line, whether it is an unfinished last line). Only a line feed ends a line: answers
    may hold other separators."""
    parts = text.split("\n")
    for number, line in enumerate(parts, 1):
        if line.strip():
            yield number, line, number == len(parts)


def _answer_line(record: Any, where: str) -> AnswerLine:
    if not isinstance(record, dict):
        raise ParameterError(f"{where}: is not a JSON object; run again or remove the line")
    question = record.get("question_id", record.get("id"))
    if not isinstance(question, str | int):
        raise ParameterError(f"{where}: has neither question_id nor id; run again")
    baseline = "text" not in record and "response" in record
    said = record.get("text", record.get("response"))
    prompt = record.get("prompt")
    if isinstance(prompt, dict):
        prompt = prompt.get("prompt")
    metadata = record.get("metadata")
    return AnswerLine(
        str(question),
        _string(said) if baseline or "text" in record else None,
        prompt if isinstance(prompt, str) else None,
        baseline,
        _turns(record),
        metadata if isinstance(metadata, dict) else {},
        _string(record.get("model_id")),
    )


def _string(said: Any) -> str:
    """An answer as text. Writers leave null or an object in place of an answer that failed."""
    return said if isinstance(said, str) else ""


def _turns(record: Mapping[str, Any]) -> tuple[str, ...]:
    for field, key in (("predict_convs", "answer"), ("response", "response")):
        turns: Sequence[Any] = record[field] if isinstance(record.get(field), list) else ()
        if turns:
            return tuple(_string(turn.get(key)) for turn in turns if isinstance(turn, dict))
    return ()
