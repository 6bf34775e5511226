"""OpenAI's parameters as the model's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulse_edge.serve.refusals import Refusal

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1_000
MAX_SCHEMA_BYTES = 64 << 10
HEARTBEATS = (0.1, 3_600)  # seconds that a client may ask for
PRIORITIES = ("interactive", "background")
# Fields that ask for something that no bundle can do. Answering without it would be another answer.
_IMPOSSIBLE = ("tools", "functions", "audio", "prediction", "web_search_options")
# Fields that say nothing about the answer.
_SILENT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_OURS = ("messages", "model", "n", "page", "stream", "stream_options", "modalities", "tool_choice")
_NAMED_IN_WARNINGS = 100  # characters


@dataclass
class ChatParameters:
    """What a request asks for besides its messages.

    Attributes:
        options: keywords of `Model.stream`, only those that the client gave.
        stream: whether the answer comes in pieces.
        include_usage: whether a stream ends with a chunk of token counts.
        heartbeat_s: between two comments of a stream that waits; None: the server's setting.
        page: of the image's file, from 1; None for the reader's own choice.
        warnings: what was ignored.
    """

    options: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False
    heartbeat_s: float | None = None
    page: int | None = None
    warnings: list[str] = field(default_factory=list)


def read_parameters(body: Mapping[str, Any]) -> ChatParameters:
    """Read all fields of a body but `messages` and `model`.

    Args:
        body: as JSON has it.

    Raises:
        Refusal: a field has another type than it must, or asks for what no bundle can do.
    """
    asked = {name: value for name, value in body.items() if value is not None}
    _check_possible(asked)
    parameters = ChatParameters()
    parameters.stream = bool(_field_of(asked, "stream", bool, False))
    parameters.include_usage = _include_usage(asked)
    parameters.heartbeat_s = _heartbeat(asked)
    parameters.page = _file_page(asked)
    options = parameters.options
    for name, (option, read) in _FIELDS.items():
        if name in asked:
            options[option] = read(name, asked[name])
    _set_length(asked, options)
    _set_logprobs(asked, options)
    _set_schema(asked, options)
    parameters.warnings += _warnings(asked)
    return parameters


def _check_possible(asked: Mapping[str, Any]) -> None:
    for name in _IMPOSSIBLE:
        if asked.get(name) not in (None, [], {}):
            raise _unsupported(f"{name} is not supported; the model answers with text", name)
    if asked.get("n", 1) != 1:
        raise _unsupported("n must be 1; send a request for each answer", "n")
    if asked.get("modalities", ["text"]) != ["text"]:
        raise _unsupported('modalities must be ["text"]', "modalities")
    if asked.get("tool_choice", "none") not in ("none", "auto"):
        raise _unsupported("tool_choice is not supported; the model has no tools", "tool_choice")


def _include_usage(asked: Mapping[str, Any]) -> bool:
    options = _field_of(asked, "stream_options", dict, {})
    return bool(_field_of(options, "include_usage", bool, False, "stream_options.include_usage"))


def _heartbeat(asked: Mapping[str, Any]) -> float | None:
    value = _field_of(asked, "stream_options", dict, {}).get("heartbeat_s")
    if value is None:
        return None
    place = "stream_options.heartbeat_s"
    seconds = _read_number(place, value)
    if not HEARTBEATS[0] <= seconds <= HEARTBEATS[1]:
        raise _invalid(f"{place} must be from {HEARTBEATS[0]} to {HEARTBEATS[1]:,}", place)
    return seconds


def _file_page(asked: Mapping[str, Any]) -> int | None:
    if "page" not in asked:
        return None
    number = _whole_number("page", asked["page"])
    if number < 1:
        raise _invalid("page must be 1 or more", "page")
    return number


def _field_of(
    record: Mapping[str, Any], name: str, kind: type, default: Any, place: str | None = None
) -> Any:
    value = record.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _invalid(f"{place or name} must be {_KINDS[kind]}", place or name)
    return value


_KINDS = {
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    str: "a text",
    list: "a list",
}


def _read_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"{name} must be a number", name)
    return value


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise _invalid(f"{name} must be a whole number", name)
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"{name} must be true or false", name)
    return value


def _stops(name: str, value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise _invalid("stop must be a text, or a list of texts that are not empty", name)
    if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise _invalid(
            f"stop must be at most {MAX_STOPS} texts of at most {MAX_STOP_CHARACTERS:,} characters",
            name,
        )
    return tuple(stops)


def _priority(name: str, value: Any) -> str:
    if value not in PRIORITIES:
        raise _invalid(f"priority must be {' or '.join(PRIORITIES)}", name)
    return str(value)


# Field -> keyword of `Model.stream`, and what reads it. The model checks ranges.
_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "temperature": ("temperature", _read_number),
    "top_p": ("top_p", _read_number),
    "top_k": ("top_k", _whole_number),
    "repetition_penalty": ("repetition_penalty", _read_number),
    "seed": ("seed", _whole_number),
    "stop": ("stop", _stops),
    "speculate": ("speculate", _truth),
    "deadline_s": ("deadline_s", _read_number),
    "best_effort": ("best_effort", _truth),
    "priority": ("priority", _priority),
}


def _set_length(asked: Mapping[str, Any], options: dict[str, Any]) -> None:
    lengths = {
        name: _whole_number(name, asked[name])
        for name in ("max_completion_tokens", "max_tokens")
        if name in asked
    }
    if len(set(lengths.values())) > 1:
        raise _invalid("max_tokens and max_completion_tokens differ; send one", "max_tokens")
    for value in lengths.values():
        options["max_new_tokens"] = value


def _set_logprobs(asked: Mapping[str, Any], options: dict[str, Any]) -> None:
    wanted = _field_of(asked, "logprobs", bool, False)
    top = asked.get("top_logprobs")
    if top is not None and not wanted:
        raise _invalid("top_logprobs needs logprobs: true", "top_logprobs")
    if not wanted:
        return
    count = 0 if top is None else _whole_number("top_logprobs", top)
    if not 0 <= count <= 20:
        raise _invalid("top_logprobs must be from 0 to 20", "top_logprobs")
    options["logprobs"] = count


def _set_schema(asked: Mapping[str, Any], options: dict[str, Any]) -> None:
    form = _field_of(asked, "response_format", dict, {"type": "text"})
    kind = form.get("type")
    if kind == "text":
        return
    if kind == "json_object":
        options["schema"] = '{"type": "object"}'
        return
    if kind != "json_schema":
        raise _invalid(
            "response_format.type must be text, json_object or json_schema", "response_format"
        )
    description = form.get("json_schema")
    schema = description.get("schema") if isinstance(description, dict) else None
    if not isinstance(schema, dict):
        raise _invalid("response_format.json_schema.schema must be an object", "response_format")
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_BYTES:
        raise _invalid(f"the schema is over {MAX_SCHEMA_BYTES >> 10} KiB", "response_format")
    options["schema"] = text


def _warnings(asked: Mapping[str, Any]) -> list[str]:
    known = {
        *_FIELDS, *_IMPOSSIBLE, *_SILENT, *_OURS,
        *("max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "response_format"),
    }  # fmt: skip
    neutral = {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}}
    unknown = sorted(
        name
        for name, value in asked.items()
        if name not in known and value != neutral.get(name, ())
    )
    return [f"{name[:_NAMED_IN_WARNINGS]} was ignored: not a parameter here" for name in unknown]


def _invalid(message: str, param: str) -> Refusal:
    return Refusal(message, 400, "invalid_parameter", param=param)


def _unsupported(message: str, param: str) -> Refusal:
    return Refusal(message, 400, "unsupported_parameter", param=param)
