"""Records of every writer, and records of none."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.records import conversation_texts, parse_record

QUESTION = "<image>\nWhich?"


def row(question: Any = QUESTION, answer: Any = "NORM", **more: Any) -> dict[str, Any]:
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "a-0", "image_path": "ptb-xl/a-0.png", "conversations": talk} | more


@pytest.mark.parametrize(
    ("question", "prompt"),
    [
        ("<image>\nWhich?", "Which?"),
        ("Which?", "Which?"),
        ("Which?\n<image>\n", "Which?\n"),
        ("<image>\nA<image>\nB", "AB"),
        ("<image>Which?", "<image>Which?"),  # upstream removes only the mark with its line break
        (["<image>\nWhich?"], "Which?"),
        (list("<image>\nWhich?"), "Which?"),
        (["<image>\n", "Which?"], "Which?"),
        (list("é<image>\n☃"), "é☃"),
    ],
)
def test_the_question_is_joined_and_loses_the_marks(question: Any, prompt: str) -> None:
    assert parse_record(row(question), "x").prompt == prompt


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("NORM", "NORM"),
        ("", ""),
        (["yes"], ("yes",)),
        (list("yes"), ("y", "e", "s")),
        (["lead I", "lead II"], ("lead I", "lead II")),
        ([""], ("",)),
    ],
)
def test_the_gold_stays_as_the_file_has_it(answer: Any, gold: Any) -> None:
    assert parse_record(row(answer=answer), "x").gold == gold


@pytest.mark.parametrize("value", [None, 3, [], [1], ["a", None], {"a": 1}, True, [["a"]]])
@pytest.mark.parametrize("field", ["question", "answer"])
def test_another_value_is_refused_by_the_records_id(field: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=r"'a-0'.*value a string or a list of strings"):
        parse_record(row(**{field: value}), "file[7]")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": None}, "id is None"),
        ({"id": ""}, "id is ''"),
        ({"id": True}, "id is True"),
        ({"id": 1.5}, "id is 1.5"),
        ({"conversations": None}, "list of turns"),
        ({"conversations": []}, "list of turns"),
        ({"conversations": ["hello"]}, "list of turns"),
        ({"conversations": [{"from": "human", "value": "Which?"}]}, "found 1 turn"),
        (
            {"conversations": [{"from": "gpt", "value": "a"}] * 2},
            "turn 0 must be an object with from 'human'",
        ),
        ({"conversations": [{"question": "a", "answer": None}]}, "both strings"),
        ({"image_path": None}, "names no image"),
        ({"image_path": ""}, "names no image"),
        ({"image_path": "a\0b"}, "names no image"),
        ({"image_path": "/etc/passwd"}, "leads out"),
        ({"image_path": "../a.png"}, "leads out"),
        ({"image_path": "a/../../b.png"}, "leads out"),
        ({"image_path": "a\\..\\..\\b.png"}, "leads out"),
        ({"image_path": "C:\\b.png"}, "leads out"),
    ],
)
def test_a_damaged_record_is_refused_with_its_problem(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        parse_record(row(**change), "file[7]")


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_record_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="is not an object"):
        parse_record(value, "file[7]")


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(ParameterError, match="question is empty"):
        parse_record(row("<image>\n "), "x")


def test_a_struct_of_lists_is_the_same_as_a_list_of_structs() -> None:
    struct = {"from": ["human", "gpt"], "value": [QUESTION, "NORM"]}
    assert parse_record(row(conversations=struct), "x") == parse_record(row(), "x")


@pytest.mark.parametrize(
    "image",
    [
        {"image_path": "a/b.png"},
        {"image": "a/b.png"},
        {"image": {"path": "a/b.png", "bytes": None}},
        {"image_path": "a/b.png", "image": {"path": "b.png"}},
        {"image_path": "a\\b.png"},
        {"image_path": "./a//b.png"},
    ],
)
def test_the_image_is_found_in_each_writers_field(image: dict[str, Any]) -> None:
    record = row()
    del record["image_path"]
    assert parse_record(record | image, "x").image == "a/b.png"


def test_an_arena_record_has_turns_and_no_gold() -> None:
    talk = [{"question": "<image>\nA?", "answer": "a"}, {"question": "B?", "answer": "b"}]
    record = parse_record(row(conversations=talk), "x")
    assert (record.prompt, record.gold) == ("A?", "")
    assert record.turns == (("A?", "a"), ("B?", "b"))


def test_turns_after_the_first_answer_are_counted() -> None:
    talk = row()["conversations"] * 2
    assert parse_record(row(conversations=talk), "x").further == 2


def test_a_number_is_an_id() -> None:
    assert parse_record(row(id=7), "x").id == "7"


def test_all_turns_of_a_conversation_become_text() -> None:
    talk = [
        {"from": "human", "value": "<image>\nWhich?"},
        {"from": "gpt", "value": ["lead I", "lead II"]},
        {"from": "human", "value": list("Why?")},
        {"from": "gpt", "value": " Because. "},
    ]
    assert conversation_texts(talk, "x") == ("Which?", "lead I, lead II", "Why?", "Because.")


def test_a_turn_that_says_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match="turn 0 says nothing"):
        conversation_texts([{"from": "human", "value": "<image>\n"}], "x")
