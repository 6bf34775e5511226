"""Recognises another model's chat template.

A decoder answers badly in a conversation format that it was not tuned on, so the export refuses it.
Templates are Jinja programs. They are not run: what they write is read from their text. A template
is taken for a conversation's if all of its own text is text of that conversation. Sources:
llava/conversation.py `conv_llava_v1`, `conv_mistral_instruct` and, in LLaVA-NeXT, `conv_qwen`; the
templates of llava-hf's conversions, of Mistral-7B-Instruct-v0.2 and of Qwen2-Instruct.
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

VICUNA: dict[str, Any] = {
    "name": "llava_v1",
    "system": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "user": "USER",
    "assistant": "ASSISTANT",
}
MISTRAL: dict[str, Any] = {
    "name": "mistral_instruct",
    "system": "",
    "user": "[INST]",
    "assistant": "[/INST]",
    "style": "llama_2",
}
QWEN: dict[str, Any] = {
    "name": "qwen_1_5",
    "system": "You are a helpful assistant.",
    "user": "user",
    "assistant": "assistant",
    "style": "chatml",
}
# Conversation formats that a bundle can have, by the name that its manifest has: `PromptSpec`'s
# fields without the tokenizer's.
TEMPLATES = {template["name"]: template for template in (VICUNA, MISTRAL, QWEN)}
DEFAULT_TEMPLATE: str = VICUNA["name"]

# Vicuna 1.5's own system prompt says "user" where LLaVA's says "human".
SYSTEMS = frozenset(VICUNA["system"].replace("human", someone) for someone in ("human", "user"))
ROLE_MARKS = frozenset(
    f"{before}{role}:{after}"
    for role in ("USER", "ASSISTANT")
    for before in ("", " ", "</s>")
    for after in ("", " ")
)
OPENING = frozenset({"ASSISTANT:", " ASSISTANT:", "ASSISTANT: ", " ASSISTANT: "})
PLAIN = frozenset({"", "<image>", "<image>\n"})
WRITTEN = ROLE_MARKS | SYSTEMS | PLAIN | {" ", ": ", "<s>", "</s>"}
# llava-hf's template ends answers with `<\s>`, which is a slip.
_INSTRUCTION_ENDS = frozenset(f"{end}{space}" for end in ("</s>", "<\\s>") for space in ("", " "))
_INSTRUCTION = _INSTRUCTION_ENDS | PLAIN | {" ", "<s>", "<<SYS>>\n", "\n<</SYS>>\n\n"}
_MARKS = {"<|im_start|>", "<|im_end|>", "<|im_end|>\n", "\n", QWEN["system"]}
_TURNS = {f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")}
_SYSTEM_TURN = f"<|im_start|>system\n{QWEN['system']}<|im_end|>\n"


@dataclass(frozen=True)
class Writing:
    """What templates of a conversation write.

    Attributes:
        texts: of their own, besides the messages.
        opening: one of these comes before an answer.
        shown: how a message names it.
    """

    texts: frozenset[str]
    opening: frozenset[str]
    shown: str


WRITINGS = {
    VICUNA["name"]: Writing(WRITTEN, OPENING, "ASSISTANT:"),
    MISTRAL["name"]: Writing(
        _INSTRUCTION | {"[INST] ", " [/INST]"}, frozenset({" [/INST]"}), " [/INST]"
    ),
    QWEN["name"]: Writing(
        PLAIN | _MARKS | _TURNS | {_SYSTEM_TURN},
        frozenset({"<|im_start|>assistant\n"}),
        "<|im_start|>assistant",
    ),
}
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


def check_chat_templates(path: Path, name: str = DEFAULT_TEMPLATE) -> None:
    """Refuse a checkpoint whose chat template is of another conversation.

    Args:
        path: the checkpoint's directory.
        name: of the conversation, in `TEMPLATES`.

    Raises:
        CheckpointError: one is not. The message names it and quotes what is foreign.
    """
    for template in stored_templates(path):
        foreign = foreign_text(template.text, name)
        if foreign is not None:
            others = [n for n in TEMPLATES if foreign_text(template.text, n) is None]
            looks = f"; it looks like {others[0]}, --template {others[0]}" if others else ""
            raise CheckpointError(
                f"{template.where} is of another conversation format, {foreign}; models with this "
                f"decoder speak {name}; if this one does too, export with --template {name}{looks}"
            )


def foreign_text(template: str, name: str = DEFAULT_TEMPLATE) -> str | None:
    """What in a Jinja template is not of a conversation, in words; None if all is.

    Args:
        template: the source. White space alone is no template.
        name: of the conversation, in `TEMPLATES`.
    """
    writing = WRITINGS[name]
    if not template.strip():
        return None
    if len(template) > LARGEST_TEMPLATE:
        return f"with over {LARGEST_TEMPLATE} characters"
    texts = list(_own_text(template))
    for text in texts:
        if text not in writing.texts and text not in KEYS:
            return f"with {text!r:.60}"
    if ": " in texts and not _UPPER.search(template):  # only Vicuna's has a colon
        return "with roles in lower case"
    if not writing.opening & set(texts):
        return f"without {writing.shown!r}"
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
