"""Lines of every writer, and files as editors and kills leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.run_file import Answers, read_answers, read_run

OURS = {"question_id": "a-0", "prompt": "p", "text": "t", "metadata": {"bundle": "b"}}


def answers_of(folder: Path, content: bytes) -> Answers:
    path = folder / "step-final.jsonl"
    path.write_bytes(content)
    return read_answers(path)


def encoded(*records: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(record) + end for record in records).encode()


@pytest.mark.parametrize(
    ("record", "text", "prompt", "baseline"),
    [
        (OURS, "t", "p", False),
        ({"id": "a-0", "response": "r"}, "r", None, True),
        ({"id": "a-0", "prompt": {"prompt": "q"}, "response": "r"}, "r", "q", True),
        ({"question_id": "a-0", "text": "t", "response": "r"}, "t", None, False),
        ({"question_id": "a-0", "text": None}, "", None, False),
        ({"id": "a-0", "response": {"error": "late"}}, "", None, True),
        ({"question_id": "a-0"}, None, None, False),
    ],
)
def test_lines_of_every_writer_are_read(
    record: dict[str, Any], text: str | None, prompt: str | None, baseline: bool, tmp_path: Path
) -> None:
    (line,) = answers_of(tmp_path, encoded(record)).lines
    assert (line.question_id, line.text, line.prompt) == ("a-0", text, prompt)
    assert line.baseline == baseline


@pytest.mark.parametrize(
    "content",
    [
        encoded(OURS),
        encoded(OURS, end="\r\n"),
        encoded(OURS, end=""),
        b"\xef\xbb\xbf" + encoded(OURS),
        b"\n\n" + encoded(OURS) + b"  \n",
    ],
)
def test_line_ends_a_mark_and_empty_lines_are_no_matter(content: bytes, tmp_path: Path) -> None:
    answers = answers_of(tmp_path, content)
    assert [line.text for line in answers.lines] == ["t"]
    assert not answers.truncated


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    record = json.dumps({**OURS, "text": "a\u2028b\x85c"}, ensure_ascii=False).encode()
    assert answers_of(tmp_path, record).lines[0].text == "a\u2028b\x85c"


def test_the_last_line_of_a_question_counts_at_its_place(tmp_path: Path) -> None:
    first = {**OURS, "text": "old"}
    answers = answers_of(tmp_path, encoded(first, {**OURS, "question_id": "b"}, OURS))
    assert [(line.question_id, line.text) for line in answers.lines] == [("b", "t"), ("a-0", "t")]
    assert answers.duplicates == 1


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    answers = answers_of(tmp_path, encoded(OURS) + b'{"question_id": "b", "te')
    assert len(answers.lines) == 1
    assert answers.truncated


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n" + encoded(OURS), "line 1: is not JSON"),
        (encoded([1], OURS), "line 1: is not a JSON object"),
        (encoded(OURS, {"text": "t"}), "line 2: has neither question_id nor id"),
        (b"\xff" + encoded(OURS), "is not UTF-8 at byte 0"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=message):
        answers_of(tmp_path, content)


def test_turns_of_the_arena_are_read_of_both_writers(tmp_path: Path) -> None:
    ours = {"question_id": "a", "predict_convs": [{"question": "q", "answer": "1"}]}
    theirs = {"id": "b", "response": [{"response": "1"}, {"response": "2"}]}
    lines = answers_of(tmp_path, encoded(ours, theirs)).lines
    assert [line.turns for line in lines] == [("1",), ("1", "2")]
    assert [line.whole for line in lines] == ["1", "1\n2"]


def test_a_run_is_its_final_file_or_its_only_one(tmp_path: Path) -> None:
    (tmp_path / "mmmu-ecg").mkdir()
    (tmp_path / "mmmu-ecg" / "model.jsonl").write_bytes(encoded(OURS))
    (tmp_path / "arena.jsonl").write_bytes(encoded(OURS))
    assert list(read_run(tmp_path).answers) == ["mmmu-ecg", "arena"]
    (tmp_path / "mmmu-ecg" / "other.jsonl").write_bytes(encoded(OURS))
    with pytest.raises(ParameterError, match="mmmu-ecg has 2 answers files and no step-final"):
        read_run(tmp_path)
    (tmp_path / "mmmu-ecg" / "step-final.jsonl").write_bytes(encoded({**OURS, "text": "x"}))
    assert read_run(tmp_path).answers["mmmu-ecg"].lines[0].text == "x"


def test_a_folder_without_answers_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"holds no answers; it needs <config>/step-final"):
        read_run(tmp_path)
