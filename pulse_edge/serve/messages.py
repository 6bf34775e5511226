"""OpenAI's messages as a page, earlier turns and a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pulse_edge.look import Look
from pulse_edge.page.source import ImageSource
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.uploads import image_of_url

MAX_MESSAGES = 256
SYSTEM_ROLES = ("system", "developer")
_TURN_ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """What a model is asked.

    Attributes:
        image: of the first turn; None without one.
        turns: questions and answers that went before.
        question: the last message.
    """

    image: ImageSource | Look | None
    turns: tuple[tuple[str, str], ...]
    question: str


@dataclass(frozen=True)
class _Message:
    place: str  # for errors
    role: str
    text: str
    images: tuple[str, ...]


def read_messages(
    messages: Any,
    system: str,
    ignore_system: bool,
    warnings: list[str],
    page: int | None = None,
) -> Conversation:
    """Read the field `messages`.

    Args:
        messages: as JSON has it.
        system: the model's own system text, the only one that it was trained with.
        ignore_system: leave another system text out, with a warning.
        warnings: gets what was left out.
        page: of the image's file, from 1; None for the reader's own choice.

    Raises:
        Refusal: the messages are no conversation that the model can answer.
    """
    if not isinstance(messages, list) or not messages:
        raise _no_conversation("messages must be a list with at least one message")
    if len(messages) > MAX_MESSAGES:
        raise _no_conversation(f"messages has over {MAX_MESSAGES} entries; drop the oldest")
    read = [
        _read_message(message, f"messages[{i}]", warnings) for i, message in enumerate(messages)
    ]
    if read[0].role in SYSTEM_ROLES:
        _check_system(read.pop(0), system, ignore_system, warnings)
    _check_turns(read)
    image = _single_image(read, page)
    texts = [message.text for message in read]
    turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Conversation(image, turns, texts[-1])


def _read_message(message: Any, place: str, warnings: list[str]) -> _Message:
    if not isinstance(message, dict):
        raise _no_conversation(f"{place} must be an object with role and content", place)
    role = message.get("role")
    if role not in (*SYSTEM_ROLES, *_TURN_ROLES):
        raise _no_conversation(
            f"{place}.role must be system, developer, user or assistant", f"{place}.role"
        )
    for name in sorted(message.keys() - {"role", "content"}):
        if message[name] in (None, [], ""):
            continue
        if name in ("tool_calls", "function_call", "audio"):
            raise _no_conversation(
                f"{place}.{name} is not supported; send text only", f"{place}.{name}"
            )
        warnings.append(f"a field of {place} was ignored; role and content are read")
    text, images = _read_content(message.get("content"), f"{place}.content", warnings)
    return _Message(place, role, text, images)


def _read_content(content: Any, place: str, warnings: list[str]) -> tuple[str, tuple[str, ...]]:
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise _no_conversation(f"{place} must be a text or a list of parts", place)
    texts: list[str] = []
    images: list[str] = []
    for number, part in enumerate(content):
        where = f"{place}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            images.append(_url_of(part.get("image_url"), where, warnings))
        else:
            raise _no_conversation(
                f"{where} must be {{type: text, text}} or {{type: image_url, image_url: {{url}}}}",
                where,
            )
    return "\n".join(texts), tuple(images)


def _url_of(value: Any, place: str, warnings: list[str]) -> str:
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise _no_conversation(f"{place}.image_url.url must be a data URL", place)
    if isinstance(value, dict) and value.get("detail") not in (None, "auto", "high"):
        warnings.append("image_url.detail was ignored; a page is always read in full")
    return url


def _check_system(message: _Message, system: str, ignore_system: bool, warnings: list[str]) -> None:
    """The model knows one system text, which its template always has."""
    if message.images:
        raise _no_conversation(f"{message.place} is a system message with an image", message.place)
    text = " ".join(message.text.split())
    if not text or text == " ".join(system.split()):
        return
    if not ignore_system:
        raise Refusal(
            "the model was trained with one system text and takes no other; leave the system "
            "message out, or start the server with --ignore-system",
            400, "unsupported_system_message", param=message.place,
        )  # fmt: skip
    warnings.append("the system message was left out; the model takes its own only")


def _check_turns(messages: Sequence[_Message]) -> None:
    if not messages:
        raise _no_conversation("messages has no user message; ask a question")
    for number, message in enumerate(messages):
        expected = _TURN_ROLES[number % 2]
        if message.role != expected:
            raise _no_conversation(
                f"{message.place} is of role {message.role}, but {expected} is next; user and "
                "assistant take turns, and a system message comes first",
                f"{message.place}.role",
            )
        if not message.text.strip() and expected == "user":
            raise _no_conversation(f"{message.place} has no text; ask a question", message.place)
    if len(messages) % 2 == 0:
        raise _no_conversation("the last message must be the user's; ask a question")


def _single_image(messages: Sequence[_Message], page: int | None) -> ImageSource | None:
    for message in messages[1:]:
        if message.images:
            raise Refusal(
                f"{message.place} has an image; the model takes one image, with the first user "
                "message; begin another conversation",
                400, "unsupported_image_place", param=message.place,
            )  # fmt: skip
    images = messages[0].images
    if len(images) > 1:
        raise Refusal(
            f"the first user message has {len(images)} images; the model takes 1",
            400, "too_many_images", param=messages[0].place,
        )  # fmt: skip
    if not images and page is not None:
        raise Refusal(
            "page is given, but no image; send the file with the first user message",
            400, "invalid_parameter", param="page",
        )  # fmt: skip
    return image_of_url(images[0], page) if images else None


def _no_conversation(message: str, param: str = "messages") -> Refusal:
    return Refusal(message, 400, "invalid_messages", param=param)
