"""Recognises another model's chat template.

A decoder answers badly in a conversation format that it was not tuned on, so the export refuses it.
Templates are Jinja programs. They are not run: what they write is read from their text. A template
is taken for Vicuna's if all of its own text is text of `TEMPLATES`' conversations. Sources:
llava/conversation.py `conv_vicuna_v1`, and the templates of llava-hf's conversions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import CheckpointError
from pulse_export.strict_json import read_json

LARGEST_TEMPLATE = 1 << 16  # characters; the largest real ones have a quarter of that

VICUNA = {
    "name": "llava_v1",
    "system": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "user": "USER",
    "assistant": "ASSISTANT",
}
# Conversation formats that a bundle can have, by the name that its manifest has: `PromptSpec`'s
# fields without the tokenizer's.
TEMPLATES = {template["name"]: template for template in (VICUNA,)}
DEFAULT_TEMPLATE = VICUNA["name"]

# Vicuna 1.5's own system prompt says "user" where LLaVA's says "human".
SYSTEMS = frozenset(VICUNA["system"].replace("human", someone) for someone in ("human", "user"))
ROLE_MARKS = frozenset(
    f"{before}{role}:{after}"
    for role in ("USER", "ASSISTANT")
    for before in ("", " ", "</s>")
    for after in ("", " ")
)
OPENING = frozenset({"ASSISTANT:", " ASSISTANT:", "ASSISTANT: ", " ASSISTANT: "})
WRITTEN = ROLE_MARKS | SYSTEMS | {"", " ", ": ", "<image>", "<image>\n", "<s>", "</s>"}
# Strings that templates compare with and look up by.
_KEYS_NAMES = """
    role content system user assistant type text image video equalto default message messages
    bos_token eos_token generation_prompt
"""
KEYS = frozenset(_KEYS_NAMES.split())

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_RAISE = re.compile(r"raise_exception\s*\((?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^'\")])*\)")
_STRING = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"", re.DOTALL)
_UPPER = re.compile(r"\.\s*upper\s*\(|\|\s*upper\b")
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\'": "'", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class StoredTemplate:
    """A chat template of a checkpoint.

    Attributes:
        where: the file, and the template's name in it.
    """

    where: str
    text: str


def check_chat_templates(path: Path) -> None:
    """Refuse a checkpoint whose chat template is not Vicuna's.

    Args:
        path: the checkpoint's directory.

    Raises:
        CheckpointError: one is not. The message names it and quotes what is foreign.
    """
    for template in stored_templates(path):
        foreign = foreign_text(template.text)
        if foreign is not None:
            raise CheckpointError(
                f"{template.where} is of another conversation format, {foreign}; PULSE speaks "
                f"{DEFAULT_TEMPLATE}; if this model does too, export with --template "
                f"{DEFAULT_TEMPLATE}"
            )


def foreign_text(template: str) -> str | None:
    """What in a Jinja template is not of Vicuna's conversation, in words; None if all is.

    Args:
        template: the source. White space alone is no template.
    """
    if not template.strip():
        return None
    if len(template) > LARGEST_TEMPLATE:
        return f"with over {LARGEST_TEMPLATE} characters"
    texts = list(_own_text(template))
    for text in texts:
        if text not in WRITTEN and text not in KEYS:
            return f"with {text!r:.60}"
    if ": " in texts and not _UPPER.search(template):
        return "with roles in lower case"
    if not OPENING & set(texts):
        return "without 'ASSISTANT:'"
    return None


def stored_templates(path: Path) -> Iterator[StoredTemplate]:
    """All chat templates in a checkpoint's directory, where transformers looks for them.

    Args:
        path: the directory.

    Raises:
        CheckpointError: a file cannot be read, or holds no template where one belongs.
    """
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        file = path / name
        if file.exists():
            yield from _in_json(read_json(file).get("chat_template"), f"{file}: chat_template")
    single = path / "chat_template.jinja"
    named = path / "additional_chat_templates"
    for file in (single, *sorted(named.glob("*.jinja"))):
        if file.exists():
            yield StoredTemplate(str(file), _read_text(file))


def _in_json(value: Any, where: str) -> Iterator[StoredTemplate]:
    """One template; several as {name: template} or as [{"name": ..., "template": ...}]."""
    if value is None:
        return
    if isinstance(value, str):
        yield StoredTemplate(where, value)
        return
    named = value
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        named = {str(entry.get("name")): entry.get("template") for entry in value}
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise CheckpointError(f"{where} is {value!r:.60}, must be text or named texts")
    for name, text in named.items():
        yield StoredTemplate(f"{where} {name!r:.60}", text)


def _read_text(file: Path) -> str:
    try:
        if not file.is_file() or file.stat().st_size > 4 * LARGEST_TEMPLATE:
            raise CheckpointError(
                f"{file}: not a chat template, which is a file of at most {LARGEST_TEMPLATE} "
                "characters; remove it"
            )
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: not UTF-8 ({error.reason})") from None


def _own_text(template: str) -> Iterator[str]:
    """Text between a template's tags, and strings inside of them.

    Hugging Face compiles with `trim_blocks` and `lstrip_blocks`: a line break behind a block and
    blanks before one are dropped. A `-` drops all white space on its side.
    """
    text = _COMMENT.sub("{%%}", template)
    text = re.sub(r"\s*\{([%{])-", r"{\1", text)
    text = re.sub(r"-([%}])\}\s*", r"\1}", text)
    text = re.sub(r"(?m)^[ \t]+(?=\{%)", "", text)
    text = re.sub(r"%\}\n", "%}", text)
    if "{{" not in text and "{%" not in text:
        yield text
        return
    yield from (part for part in _TAG.split(text) if part)
    for tag in _TAG.findall(text):
        for single, double in _STRING.findall(_RAISE.sub("", tag)):
            yield re.sub(r"\\.", lambda e: _ESCAPES.get(e[0], e[0]), single or double)
