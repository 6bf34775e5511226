"""An answers file after a crash, and with several writers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError, PulseEdgeError
from pulse_edge.evaluate.ecgbench.answers_file import AnswersFile, answer_id


def line(question: str, **more: Any) -> dict[str, Any]:
    return {"question_id": question, "text": "NORM\u2028\n\u00e9"} | more


def contents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_bytes().split(b"\n")[:-1]]


WHOLE = "".join(json.dumps(line(question)) + "\n" for question in "ab").encode()


@pytest.mark.parametrize("cut", [*range(0, len(WHOLE) + 1, 7), len(WHOLE) - 1])
def test_an_unfinished_last_line_is_removed_and_whole_ones_stay(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(WHOLE[:cut])
    whole = WHOLE[:cut].count(b"\n")
    with AnswersFile(path) as file:
        assert list(file.lines) == ["a", "b"][:whole]
        assert file.append(line("c"))
    assert [row["question_id"] for row in contents(path)] == [*["a", "b"][:whole], "c"]


@pytest.mark.parametrize(
    "end", [b"\0" * 50, b"\0\0\n", b"{\n", b"null\n", b'{"question_id": 3}\n', b"\xff\n"]
)
def test_a_damaged_end_is_removed(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(WHOLE + end)
    with AnswersFile(path) as file:
        assert list(file.lines) == ["a", "b"]
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("middle", [b"{\n", b"null\n", b"{}\n", b'{"question_id": 3}\n'])
def test_a_damaged_line_before_others_is_refused(tmp_path: Path, middle: bytes) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(middle + WHOLE)
    with pytest.raises(ParameterError, match="line 1: is no answer of this command"):
        AnswersFile(path)
    assert path.read_bytes() == middle + WHOLE


def test_a_question_is_answered_once(tmp_path: Path) -> None:
    with AnswersFile(tmp_path / "f.jsonl") as file:
        assert file.append(line("a", text="first"))
        assert not file.append(line("a", text="second"))
    assert [row["text"] for row in contents(tmp_path / "f.jsonl")] == ["first"]


def test_two_writers_see_what_the_other_has_added(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with AnswersFile(path) as one, AnswersFile(path) as other:
        for number in range(6):
            writer = (one, other)[number % 2]
            assert writer.append(line(str(number)))
        assert not one.append(line("5"))
        assert not other.append(line("4"))
    assert [row["question_id"] for row in contents(path)] == list("012345")


def test_a_folder_in_the_files_place_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").mkdir()
    with pytest.raises(PulseEdgeError, match="cannot be opened"):
        AnswersFile(tmp_path / "f.jsonl")


def test_an_answers_id_depends_on_the_bundle_and_the_question_alone() -> None:
    ids = {answer_id(bundle, question) for bundle in "ab" for question in ("q", "r")}
    assert len(ids) == 4
    assert answer_id("a", "q") in ids
    assert answer_id("a", "bq") != answer_id("ab", "q")
