"""OpenAI's messages as a conversation, and which are none."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.serve.messages import Conversation, read_messages
from pulse_edge.serve.refusals import Refusal

from support.served import about, data_url

SYSTEM = "A chat between a human\nand an assistant."
PIRATE = {"role": "system", "content": "You are a pirate."}
PAGE = data_url(b"page")


def read(messages: Any, ignore_system: bool = False) -> tuple[Conversation, list[str]]:
    warnings: list[str] = []
    return read_messages(messages, SYSTEM, ignore_system, warnings), warnings


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def said(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: Any = PAGE, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


CONVERSATIONS: list[tuple[list[dict[str, Any]], Conversation]] = [
    ([user("a")], Conversation(None, (), "a")),
    ([user([text("a")])], Conversation(None, (), "a")),
    ([user([text("a"), text("b")])], Conversation(None, (), "a\nb")),
    ([user(about(b"page", "a"))], Conversation(b"page", (), "a")),
    ([user([image(), text("a")])], Conversation(b"page", (), "a")),
    ([user([image(detail="high"), text("a")])], Conversation(b"page", (), "a")),
    ([user([text("a"), {"type": "image_url", "image_url": PAGE}])], Conversation(b"page", (), "a")),
    ([user("a"), said("b"), user("c")], Conversation(None, (("a", "b"),), "c")),
    (
        [user([image(), text("a")]), said("b"), user("c"), said([text("d")]), user("e")],
        Conversation(b"page", (("a", "b"), ("c", "d")), "e"),
    ),
    ([user("a"), said(""), user("c")], Conversation(None, (("a", ""),), "c")),
    ([{"role": "system", "content": ""}, user("a")], Conversation(None, (), "a")),
    ([{"role": "system", "content": SYSTEM}, user("a")], Conversation(None, (), "a")),
    (
        [{"role": "developer", "content": f" {' '.join(SYSTEM.split())} "}, user("a")],
        Conversation(None, (), "a"),
    ),
    ([user("a"), said("b", tool_calls=[], refusal=None), user("c")],
     Conversation(None, (("a", "b"),), "c")),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "conversation"), CONVERSATIONS)
def test_a_conversation(messages: list[dict[str, Any]], conversation: Conversation) -> None:
    assert read(messages) == (conversation, [])


@pytest.mark.parametrize(
    "messages",
    [
        None,
        {},
        "a",
        [],
        ["a"],
        [{}],
        [{"role": "user"}],
        [user(None)],
        [user(5)],
        [user("")],
        [user(" \n")],
        [user([])],
        [user([image()])],
        [user(["a"])],
        [user([{"type": "text"}])],
        [user([text(5)])],
        [user([{"type": "input_text", "text": "a"}])],
        [user([{"type": "input_audio", "input_audio": {}}, text("a")])],
        [user([{"type": "file", "file": {"file_data": PAGE}}, text("a")])],
        [user([{"type": "image_url"}, text("a")])],
        [user([image(5), text("a")])],
        [said("a")],
        [user("a"), user("b")],
        [user("a"), said("b")],
        [user("a"), said("b"), said("c")],
        [user("a"), {"role": "tool", "content": "b"}, user("c")],
        [user("a"), {"role": "system", "content": ""}, user("c")],
        [{"role": "system", "content": ""}],
        [{"role": "system", "content": [image()]}, user("a")],
        [{"role": ["user"], "content": "a"}],
        [user("a"), said("b", tool_calls=[{"id": "x"}]), user("c")],
        [user("a"), said("b", function_call={"name": "x"}), user("c")],
        [user("a")] * 257,
    ],
)
def test_no_conversation(messages: Any) -> None:
    with pytest.raises(Refusal) as error:
        read(messages)
    assert (error.value.status, error.value.code) == (400, "invalid_messages")
    assert str(error.value.param).startswith("messages")


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([user([image(), image(), text("a")])], "too_many_images"),
        ([user("a"), said("b"), user([image(), text("c")])], "unsupported_image_place"),
        ([user("a"), said([image(), text("b")]), user("c")], "unsupported_image_place"),
        ([PIRATE, user("a")], "unsupported_system_message"),
        ([user([image("https://example.com/x.png"), text("a")])], "unsupported_image_url"),
    ],
)  # fmt: skip
def test_what_the_model_cannot_do_has_its_own_code(messages: Any, code: str) -> None:
    with pytest.raises(Refusal) as error:
        read(messages)
    assert (error.value.status, error.value.code) == (400, code)


def test_another_system_text_can_be_left_out() -> None:
    messages = [PIRATE, user("a")]
    conversation, warnings = read(messages, ignore_system=True)
    assert conversation == Conversation(None, (), "a")
    assert len(warnings) == 1
    assert "system message" in warnings[0]
    assert "pirate" not in warnings[0]


def test_what_is_ignored_is_said() -> None:
    _, warnings = read([user([image(detail="low"), text("a")], name="Jane")])
    assert len(warnings) == 2
    assert "Jane" not in " ".join(warnings)
