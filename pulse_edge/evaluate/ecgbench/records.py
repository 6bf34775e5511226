"""A record of ECGBench or ECGInstruct as its writers leave it, read by its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pulse_edge.errors import ParameterError

IMAGE_MARK = "<image>\n"  # upstream removes every one of them from a question
_SPEAKERS = ("human", "gpt")

Text = str | tuple[str, ...]  # as the file has it: a string, or a list of strings


@dataclass(frozen=True)
class EcgRecord:
    """A record of a configuration.

    Attributes:
        id: of the question.
        image: relative path of the page, with forward slashes.
        prompt: the first question, without the marks of the image's place.
        gold: the answer, as the file has it; "" for an arena conversation.
        turns: of an arena conversation: its questions and answers.
        further: turns after the first answer, which upstream does not ask either.
    """

    id: str
    image: str
    prompt: str
    gold: Text
    turns: tuple[tuple[str, str], ...] = ()
    further: int = 0


def parse_record(row: Any, where: str) -> EcgRecord:
    """A record from a row of a parquet file or of a JSON list.

    Args:
        row: with `id`, `conversations`, and `image_path` or `image`.
        where: names the row in messages.

    Raises:
        ParameterError: the row is not as one of the writers leaves it.
    """
    if not isinstance(row, dict):
        raise ParameterError(f"{where}: is not an object; it needs id, image and conversations")
    number = row.get("id")
    if isinstance(number, bool) or not isinstance(number, str | int) or number == "":
        raise ParameterError(f"{where}: id is {number!r:.60}, but must be a string or a number")
    name = str(number)
    place = f"{where} ({name!r:.80})"
    turns = _rows_of(row.get("conversations"), place)
    image = _image_path(row, place)
    if "question" in turns[0]:
        asked = tuple(_arena_turn(turn, place) for turn in turns)
        return EcgRecord(name, image, asked[0][0], "", asked)
    if len(turns) < 2:
        raise ParameterError(f"{place}: needs a question and its answer, found {len(turns)} turn")
    values = _turn_values(turns, place)
    return EcgRecord(name, image, _question(values[0], place), values[1], further=len(values) - 2)


def conversation_texts(turns: Any, where: str) -> tuple[str, ...]:
    """All turns of a conversation as text: question, answer, question, and so on.

    Args:
        turns: `conversations` of a record of ECGInstruct or ECGBench.
        where: names the record in messages.

    Raises:
        ParameterError: the turns do not alternate, or one says nothing.
    """
    rows = _rows_of(turns, where)
    if "question" in rows[0]:
        pairs = [_arena_turn(turn, where) for turn in rows]
        return tuple(text for pair in pairs for text in pair)
    values = _turn_values(rows, where)
    texts = []
    for at, value in enumerate(values):
        text = _as_text(value, ", " if at % 2 else "").replace("<image>", "").strip()
        if not text:
            raise ParameterError(f"{where}: turn {at} says nothing")
        texts.append(text)
    return tuple(texts)


def _rows_of(turns: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(turns, dict):  # a struct of lists, as older writers of parquet leave it
        columns = [value for value in turns.values() if isinstance(value, list)]
        if len(columns) == len(turns) and len({len(column) for column in columns}) == 1:
            turns = [dict(zip(turns, values, strict=True)) for values in zip(*columns, strict=True)]
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) for t in turns):
        raise ParameterError(f"{where}: conversations must be a list of turns")
    return turns


def _arena_turn(turn: Mapping[str, Any], where: str) -> tuple[str, str]:
    question = turn.get("question")
    answer = turn.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ParameterError(f"{where}: each turn must have question and answer, both strings")
    return _question(question, where), answer


def _turn_values(turns: Sequence[Mapping[str, Any]], where: str) -> list[Text]:
    """What the turns say. Human and gpt must alternate, human first."""
    values: list[Text] = []
    for at, turn in enumerate(turns):
        speaker = _SPEAKERS[at % 2]
        value = _checked_value(turn.get("value"))
        if turn.get("from") != speaker or value is None:
            raise ParameterError(
                f"{where}: turn {at} must be an object with from {speaker!r} and as value a string "
                f"or a list of strings, found from {turn.get('from')!r:.20} and "
                f"{turn.get('value')!r:.60}"
            )
        values.append(value)
    return values


def _checked_value(value: Any) -> Text | None:
    """A value as text; None if it is none."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return tuple(value)
    return value if isinstance(value, str) else None


def _question(value: Text, where: str) -> str:
    text = _as_text(value, "").replace(IMAGE_MARK, "")
    if not text.strip():
        raise ParameterError(f"{where}: the question is empty")
    return text


def _as_text(value: Text, between: str) -> str:
    """A list of characters, or of one string, is a string; several options are set apart."""
    if isinstance(value, str):
        return value
    return ("" if is_characters(value) else between).join(value)


def is_characters(value: Sequence[str]) -> bool:
    """Whether a list of strings is one string that a writer split into its characters."""
    return all(len(part) == 1 for part in value)


def _image_path(row: Mapping[str, Any], where: str) -> str:
    image = row.get("image_path", row.get("image"))
    if isinstance(image, dict):
        image = image.get("path")
    if not isinstance(image, str) or not image or "\0" in image:
        raise ParameterError(f"{where}: names no image; it needs image_path or image")
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ParameterError(
            f"{where}: image {image!r:.80} leads out of its folder; it must be a relative path"
        )
    return str(path)
