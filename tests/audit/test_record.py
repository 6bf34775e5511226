"""Lines of an audit log, made of answers that a model has given."""

from __future__ import annotations

import json

import pytest

import pulse_edge
from pulse_edge.audit.record import answer_hash, answer_record, audit_line, parse_line

from support.requests import Q1, page

STOP = "zebra crossing"


@pytest.fixture
def given(model: pulse_edge.Model) -> pulse_edge.Answer:
    return model.ask(page(), Q1, max_new_tokens=6, stop=(STOP,))


def test_an_answer_keeps_its_hash_when_it_is_printed_and_read(given: pulse_edge.Answer) -> None:
    """As `ask --json` prints it, whatever the order and white space."""
    name = answer_record(given)["answer"]
    assert answer_hash(json.loads(json.dumps(given.to_dict(), indent=2))) == name
    assert answer_hash(json.loads(json.dumps(given.to_dict(), sort_keys=True))) == name


def test_two_answers_with_the_same_text_have_different_hashes(model: pulse_edge.Model) -> None:
    """The times make a text that is guessed worthless."""
    answers = [model.ask(None, Q1, max_new_tokens=1) for _ in range(2)]
    assert answers[0].text == answers[1].text
    assert answer_hash(answers[0].to_dict()) != answer_hash(answers[1].to_dict())


def test_nothing_of_the_page_or_the_words_is_in_the_line(given: pulse_edge.Answer) -> None:
    line = audit_line({"previous": "", "event": "answer", "time": "", **answer_record(given)})
    text = line.decode("ascii")
    image = given.provenance["image"]
    private = [given.provenance["prompt"], Q1, STOP, image["sha256"]]
    private += [given.provenance["checkpoint"]["name"], *([given.text] if given.text else [])]
    for words in private:
        assert words not in text
        assert json.dumps(words)[1:-1] not in text
    assert given.provenance["bundle"] in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"event":"answer"', b'"event":"begun"'),
        (b'"event":"answer"', b'"event":7'),
        (b'"time":""', b'"time":null'),
        (b'"seed":0', b'"seed":1'),
        (b'"usage"', b'"Usage"'),
        (b"{", b"{ "),
        (b"\n", b""),
    ],
)
def test_a_line_that_is_not_whole(given: pulse_edge.Answer, before: bytes, after: bytes) -> None:
    line = audit_line({"previous": "", "event": "answer", "time": "", **answer_record(given)})
    assert parse_line(line) is not None
    assert before in line
    assert parse_line(line.replace(before, after, 1)) is None
