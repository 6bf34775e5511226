"""Panel files: strict, hashed by content, and those that ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.panels.panel_file import (
    DEFAULT,
    LARGEST_PANEL,
    default_panel,
    load_panel,
    parse_panel,
    shipped_panels,
)
from pulse_edge.simulation.ecg import RHYTHMS
from pulse_edge.simulation.questions import CHOICES, NO_ECG, QUESTIONS, Findings, answer

HEAD = 'schema = "pulse-edge/panel/1"\nname = "mine"\ntitle = "Mine"\n'
QUESTION = '[[questions]]\nid = "a"\nask = "A?"\noptions = ["yes", "no"]\n'


def parse(text: str) -> str:
    return parse_panel(text.encode(), "mine.toml").sha256


def test_a_panel_is_read() -> None:
    panel = parse_panel((HEAD + QUESTION + "scored = true\n").encode(), "mine.toml")
    (question,) = panel.questions
    assert (panel.name, panel.checkpoint, panel.refusals) == ("mine", None, ())
    assert (question.options, question.scored, question.form) == (("yes", "no"), True, "options")


def test_the_hash_is_of_the_content() -> None:
    plain = parse(HEAD + QUESTION)
    reordered = 'title = "Mine"\nschema = "pulse-edge/panel/1"\nname = "mine"\n# a comment\n'
    assert parse(reordered + "\n\n" + QUESTION) == plain
    assert parse(HEAD + QUESTION + 'form = "options"\nmax_new_tokens = 64\n') == plain
    for changed in (
        HEAD.replace("Mine", "Yours") + QUESTION,
        HEAD + QUESTION.replace("A?", "A ?"),
        HEAD + QUESTION.replace('["yes", "no"]', '["no", "yes"]'),
        HEAD + QUESTION + "scored = true\n",
        HEAD + QUESTION + "max_new_tokens = 65\n",
        HEAD + 'refusals = ["no"]\n' + QUESTION,
        HEAD + QUESTION + QUESTION.replace('"a"', '"b"'),
    ):
        assert parse(changed) != plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema is None; expected 'pulse-edge/panel/1'"),
        ("x = ", "not valid TOML"),
        (HEAD.replace("panel/1", "panel/2") + QUESTION, "schema is 'pulse-edge/panel/2'"),
        (HEAD, "no 'questions'; add it"),
        (HEAD + "questions = []\n", "expected 1 to 64 tables"),
        (HEAD + "questions = [1]\n", "1 is not a table"),
        (HEAD + 'colour = "red"\n' + QUESTION, "unknown key 'colour'; there are name, title"),
        (HEAD.replace('"mine"', '"Mine"') + QUESTION, "name is 'Mine'; expected up to 64 of a-z"),
        (HEAD.replace('"Mine"', '""') + QUESTION, "title is ''; expected 1 to 200 characters"),
        (HEAD.replace('"Mine"', "7") + QUESTION, "title is 7; expected 1 to 200 characters"),
        (HEAD + QUESTION.replace("ask", "Ask"), "unknown key 'Ask'; there are id, ask"),
        (HEAD + '[[questions]]\nid = "a"\n', "questions[0]: no 'ask'; add it"),
        (HEAD + QUESTION + QUESTION, "questions[1]: id 'a' occurs twice"),
        (HEAD + QUESTION.replace('"A?"', '" A?"'), "it has spaces around it, or control"),
        (HEAD + QUESTION.replace('"A?"', '"A\\u001b[2J?"'), "it has spaces around it, or control"),
        (HEAD + QUESTION.replace('"A?"', '"A\\nB"'), "it has spaces around it, or control"),
        (HEAD + QUESTION.replace('"A?"', f'"{"A" * 2001}"'), "expected 1 to 2000 characters"),
        (HEAD + QUESTION.replace('["yes", "no"]', '["yes"]'), "expected a list of 2 to 32"),
        (HEAD + QUESTION.replace('["yes", "no"]', "[]"), "expected a list of 2 to 32"),
        (HEAD + QUESTION.replace('["yes", "no"]', '["a", "A."]'), "'A.' stands for two options"),
        (HEAD + QUESTION.replace('["yes", "no"]', '["a", "a"]'), "'a' stands for two options"),
        (HEAD + QUESTION.replace('["yes", "no"]', '["a, b", "c"]'), "has a comma"),
        (HEAD + QUESTION.replace('["yes", "no"]', '["a", 1]'), "options[1] is 1; expected 1 to"),
        (
            HEAD + QUESTION + 'form = "letters"\n',
            "form is 'letters'; expected one of options, plain",
        ),
        (HEAD + QUESTION + 'scored = "yes"\n', "scored is 'yes'; expected true or false"),
        (HEAD + QUESTION + "max_new_tokens = 0\n", "max_new_tokens is 0; expected 1 to 1024"),
        (HEAD + QUESTION + "max_new_tokens = true\n", "max_new_tokens is True; expected 1 to 1024"),
        (HEAD + QUESTION + 'replies = ["Yes.", "No.", "?"]\n', "3 replies for 2 options"),
        (HEAD + QUESTION + 'replies = ["No.", "Yes."]\n', "'No.' stands for two options"),
        (HEAD + '[[questions]]\nid = "a"\nask = "A?"\nscored = true\n', "without options has no"),
        (HEAD + '[[questions]]\nid = "a"\nask = "A?"\nform = "plain"\n', "without options has no"),
        ("schema = 1\n" * 2, "not valid TOML"),
    ],
)
def test_what_is_wrong_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.toml: ")
    assert "\n" not in str(caught.value)


def test_more_questions_than_the_limit_are_refused() -> None:
    questions = "".join(QUESTION.replace('"a"', f'"q{number}"') for number in range(65))
    with pytest.raises(ParameterError, match="expected 1 to 64 tables"):
        parse(HEAD + questions)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ParameterError, match="not valid TOML"):
        parse_panel(b"\xff\xfe", "mine.toml")
    with pytest.raises(ParameterError, match="not valid TOML"):
        parse_panel(b"a = " + b"[" * 5000, "mine.toml")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(HEAD + QUESTION)
    assert load_panel(mine).sha256 == load_panel(str(mine)).sha256 == parse(HEAD + QUESTION)
    with pytest.raises(ParameterError, match="is neither a file nor one of pulse-nano, resting"):
        load_panel(tmp_path / "none.toml")
    with pytest.raises(ParameterError, match="not a regular file"):
        load_panel(tmp_path)
    with pytest.raises(ParameterError, match="panel"):
        load_panel("a\0b")
    mine.write_bytes(b"#" * (LARGEST_PANEL + 1))
    with pytest.raises(ParameterError, match="over 65,536 bytes"):
        load_panel(mine)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ParameterError, match="not a regular file"):
            load_panel(tmp_path / "pipe")


def test_a_shipped_panel_goes_by_its_name_wherever_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).write_text("")
    assert load_panel(DEFAULT).name == DEFAULT


def test_the_panel_that_suits_the_checkpoint_is_the_default() -> None:
    assert shipped_panels() == ("pulse-nano", "resting-12-lead")
    assert default_panel("pulse-nano").name == "pulse-nano"
    assert default_panel("PULSE-7B").name == DEFAULT
    for name in shipped_panels():
        assert load_panel(name).name == name


def test_the_resting_panel_asks_what_it_should() -> None:
    panel = load_panel(DEFAULT)
    assert [question.id for question in panel.questions] == [
        *("is-ecg", "overall", "rhythm", "rate-class", "av-block", "bundle-branch-block"),
        *("ectopy", "st-segment", "hypertrophy", "infarction", "report"),
    ]
    closed = panel.questions[:-1]
    assert all(question.scored and question.form == "options" for question in closed)
    assert not panel.questions[-1].options


def test_the_demonstration_panel_has_the_words_of_the_training_set() -> None:
    """Each question is one of `simulation.questions`, and each reply one of its answers."""
    panel = load_panel("pulse-nano")
    assert panel.refusals == (NO_ECG,)
    questions = {question.id: question for question in panel.questions}
    known = {wording for wordings in QUESTIONS.values() for wording in wordings}
    assert {question.ask for question in panel.questions if question.id != "report"} <= known
    base = Findings(70, RHYTHMS[0], 160, 90, (), "none", "none", False, "normal axis")
    assert questions["rhythm"].options == RHYTHMS
    for rhythm, reply in zip(RHYTHMS, questions["rhythm"].replies, strict=True):
        assert answer("rhythm", Findings(**{**base.__dict__, "rhythm": rhythm})) == reply
    for topic, id_, field in (
        *(("conduction", "conduction", "conduction"), ("ectopy", "ectopy", "ectopy")),
        ("st", "st-segment", "st"),
    ):
        question = questions[id_]
        for option, reply in zip(question.options, question.replies, strict=True):
            value: object = "none" if option.startswith("no ") else option
            if field == "conduction":
                value = () if value == "none" else tuple(option.split(" and "))
            assert answer(topic, Findings(**{**base.__dict__, field: value})) == reply
        assert set(CHOICES[topic][0]) <= set(question.options)
    assert questions["hypertrophy"].replies == tuple(
        answer("lvh", Findings(**{**base.__dict__, "lvh": lvh})) for lvh in (False, True)
    )
