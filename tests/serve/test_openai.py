"""OpenAI's routes, over a real connection: the bytes of `Model.ask`, and errors by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.manifest import NOTICE

from support.requests import Q1, Q2, encoded
from support.served import Served, about, body, chunks, text_of

QUESTION = "What is the heart rate?"


def test_text_is_what_the_model_says(shared: Served, png: bytes) -> None:
    answer = shared.model.ask(png, QUESTION)
    record = shared.chat(about(png, QUESTION), model="pulse-nano").json()
    choice = record["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": answer.text, "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert record["object"] == "chat.completion"
    assert record["model"] == "pulse-nano"
    assert record["usage"]["prompt_tokens"] == answer.usage.prompt_tokens
    assert record["usage"]["completion_tokens"] == answer.usage.new_tokens
    assert record["usage"]["total_tokens"] == answer.usage.prompt_tokens + answer.usage.new_tokens
    own = record["pulse_edge"]
    assert own["notice"] == NOTICE
    assert own["finish_reason"] == "eos"
    assert own["provenance"]["bundle"] == shared.model.bundle.digest
    assert own["provenance"]["image"]["sha256"] == answer.provenance["image"]["sha256"]
    assert own["warnings"] == []


def test_a_stream_has_the_same_bytes(shared: Served, png: bytes) -> None:
    answer = shared.model.ask(png, QUESTION)
    records = chunks(shared.events(about(png, QUESTION), stream_options={"include_usage": True}))
    assert text_of(records) == answer.text
    assert records[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {record["object"] for record in records} == {"chat.completion.chunk"}
    assert len({record["id"] for record in records}) == 1
    *_, last, usage = records
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["pulse_edge"]["provenance"]["prompt"] == answer.provenance["prompt"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == answer.usage.new_tokens


def test_a_stream_without_usage_ends_with_its_reason(shared: Served) -> None:
    records = chunks(shared.events(Q1, max_tokens=2))
    assert records[-1]["choices"][0]["finish_reason"] == "length"
    assert "usage" not in records[-1]


@pytest.mark.parametrize(
    ("form", "media"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("TIFF", "image/tiff"),
        ("BMP", "image/bmp"),
        ("PNG", "image/jpeg"),  # the bytes decide
    ],
)
def test_every_format_of_pages(shared: Served, form: str, media: str) -> None:
    page = encoded(np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8), form)
    record = shared.chat(about(page, Q1, media), max_tokens=6).json()
    assert (
        record["choices"][0]["message"]["content"]
        == shared.model.ask(page, Q1, max_new_tokens=6).text
    )
    assert record["pulse_edge"]["provenance"]["image"]["format"] == form


def test_earlier_turns_are_the_chats(shared: Served, png: bytes) -> None:
    first = shared.model.ask(png, Q1, max_new_tokens=8).text
    chat = shared.model.chat(png, [(Q1, first)])
    expected = chat.ask(Q2, max_new_tokens=8)
    messages = [
        {"role": "user", "content": about(png, Q1)},
        {"role": "assistant", "content": first},
        {"role": "user", "content": [{"type": "text", "text": Q2}]},
    ]
    answer = shared.client.post(
        "/v1/chat/completions", json={"messages": messages, "max_tokens": 8}
    ).json()
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["pulse_edge"]["provenance"]["prompt"] == expected.provenance["prompt"]


def test_a_question_without_a_page_leaves_the_page_in_place(shared: Served, png: bytes) -> None:
    shared.chat(about(png, Q1), max_tokens=2)
    text = shared.chat("Suggest a title for this conversation.", max_tokens=2).json()
    assert text["pulse_edge"]["usage"]["image_tokens"] == 0
    again = shared.chat(about(png, Q2), max_tokens=2).json()
    assert again["pulse_edge"]["timings"]["vision"] == 0


SAMPLED = {"temperature": 1.5, "seed": 7}
NUCLEUS = {"temperature": 1, "seed": 8, "top_p": 0.9, "top_k": 40}
PENALTY = {"repetition_penalty": 1.3}
PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 3}, {"max_new_tokens": 3}),
    ({"max_completion_tokens": 3}, {"max_new_tokens": 3}),
    ({"max_tokens": 3, "max_completion_tokens": 3}, {"max_new_tokens": 3}),
    ({"max_tokens": 3.0}, {"max_new_tokens": 3}),
    (SAMPLED | {"max_tokens": 6}, SAMPLED | {"max_new_tokens": 6}),
    (NUCLEUS | {"max_tokens": 6}, NUCLEUS | {"max_new_tokens": 6}),
    (PENALTY | {"max_tokens": 6}, PENALTY | {"max_new_tokens": 6}),
    ({"stop": "rate"}, {"stop": ("rate",)}),
    ({"stop": ["rate", "bpm"]}, {"stop": ("rate", "bpm")}),
    ({"speculate": True}, {"speculate": True}),
    ({"priority": "background", "best_effort": True, "deadline_s": 60}, {}),
    ({"temperature": None, "stop": None, "n": 1, "user": "x", "tools": []}, {}),
]


@pytest.mark.parametrize(("fields", "params"), PARAMETERS)
def test_parameters_reach_the_model(
    shared: Served, png: bytes, fields: dict[str, Any], params: dict[str, Any]
) -> None:
    record = shared.chat(about(png, QUESTION), **fields).json()
    answer = shared.model.ask(png, QUESTION, **params)
    assert record["choices"][0]["message"]["content"] == answer.text
    sent = {name: record["pulse_edge"]["provenance"]["parameters"][name] for name in params}
    assert sent == {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}
    assert record["pulse_edge"]["warnings"] == []


def test_unknown_parameters_are_named_and_ignored(shared: Served) -> None:
    record = shared.chat(Q1, max_tokens=2, presence_penalty=0.5, frequency_penalty=0, frob=1).json()
    assert record["pulse_edge"]["warnings"] == [
        "frob was ignored: not a parameter here",
        "presence_penalty was ignored: not a parameter here",
    ]


def test_logprobs(shared: Served) -> None:
    answer = shared.model.ask(None, Q1, max_new_tokens=4, logprobs=3)
    whole = shared.chat(Q1, max_tokens=4, logprobs=True, top_logprobs=3).json()
    content = whole["choices"][0]["logprobs"]["content"]
    assert answer.logprobs is not None
    assert [token["logprob"] for token in content] == pytest.approx(
        [token.logprob for token in answer.logprobs], abs=1e-4
    )
    assert [len(token["top_logprobs"]) for token in content] == [3] * len(answer.logprobs)
    assert b"".join(bytes(token["bytes"]) for token in content).decode().strip() == answer.text
    records = chunks(shared.events(Q1, max_tokens=4, logprobs=True, top_logprobs=3))
    streamed = [
        token
        for record in records
        for token in (record["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [token["bytes"] for token in streamed] == [token["bytes"] for token in content]


def test_a_schema_is_kept_to(shared: Served) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"rate": {"enum": [60, 75]}}, "required": ["rate"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = shared.chat(Q1, response_format=form).json()["choices"][0]["message"]["content"]
    assert json.loads(text)["rate"] in (60, 75)


def test_models(shared: Served) -> None:
    listed = shared.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [record["id"] for record in listed["data"]] == ["pulse-nano"]
    one = shared.client.get("/v1/models/pulse-nano").json()
    assert one == listed["data"][0]
    assert (one["object"], one["owned_by"]) == ("model", "pulse-edge")
    missing = shared.client.get("/v1/models/gpt-4")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"temperature": -1}, 400, "invalid_parameter"),
    ({"temperature": "hot"}, 400, "invalid_parameter"),
    ({"temperature": True}, 400, "invalid_parameter"),
    ({"top_p": 0}, 400, "invalid_parameter"),
    ({"seed": -1}, 400, "invalid_parameter"),
    ({"seed": 0.5}, 400, "invalid_parameter"),
    ({"max_tokens": 0}, 400, "invalid_parameter"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "invalid_parameter"),
    ({"max_tokens": 1e400}, 400, "invalid_parameter"),
    ({"stop": []}, 200, ""),
    ({"stop": [""]}, 400, "invalid_parameter"),
    ({"stop": ["a"] * 5}, 400, "invalid_parameter"),
    ({"stop": 5}, 400, "invalid_parameter"),
    ({"stream": "yes"}, 400, "invalid_parameter"),
    ({"stream_options": 1}, 400, "invalid_parameter"),
    ({"n": 2}, 400, "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter"),
    ({"functions": [{}]}, 400, "unsupported_parameter"),
    ({"audio": {"voice": "x"}}, 400, "unsupported_parameter"),
    ({"modalities": ["text", "audio"]}, 400, "unsupported_parameter"),
    ({"tool_choice": "required"}, 400, "unsupported_parameter"),
    ({"top_logprobs": 3}, 400, "invalid_parameter"),
    ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_parameter"),
    ({"logprobs": 5}, 400, "invalid_parameter"),
    ({"response_format": {"type": "xml"}}, 400, "invalid_parameter"),
    ({"response_format": {"type": "json_schema"}}, 400, "invalid_parameter"),
    ({"priority": "first"}, 400, "invalid_parameter"),
    ({"deadline_s": 0}, 400, "invalid_parameter"),
    ({"best_effort": 1}, 400, "invalid_parameter"),
    ({"page": 0}, 400, "invalid_parameter"),
    ({"page": "2"}, 400, "invalid_parameter"),
    ({"page": True}, 400, "invalid_parameter"),
    ({"page": 1}, 400, "invalid_parameter"),
    ({"model": "gpt-4"}, 404, "model_not_found"),
    ({"model": 5}, 404, "model_not_found"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "status", "code"), WRONG)
def test_what_is_wrong_is_named(
    shared: Served, fields: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    record = body(Q1, **{"max_tokens": 1, "stream": stream} | fields)
    raw = json.dumps(record).replace("Infinity", "1e400")
    response = shared.client.post("/v1/chat/completions", content=raw)
    assert response.status_code == status, response.text
    if status != 200:
        error = response.json()["error"]
        assert error["code"] == code
        assert error["type"] == "invalid_request_error"
        assert "\n" not in error["message"]


def test_a_page_that_cannot_be_read(shared: Served) -> None:
    for stream in (False, True):
        response = shared.chat(about(b"no image at all", Q1), stream=stream)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_image"


def test_a_prompt_that_does_not_fit(shared: Served) -> None:
    response = shared.chat("word " * 4000)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_deadline_that_cannot_be_met_is_refused_once(shared: Served) -> None:
    long = "word " * 500  # a prefill that takes far longer than to prepare it
    shared.model.forget()
    assert shared.chat(long, max_tokens=2).status_code == 200
    shared.model.forget()
    response = shared.chat(long, max_tokens=2, deadline_s=0.02)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (422, "deadline")
    assert response.headers["x-should-retry"] == "false"
    assert error["predicted_s"] > error["deadline_s"] == 0.02


def test_a_missed_deadline_gives_the_text_so_far(shared: Served) -> None:
    record = shared.chat(Q1, max_tokens=20, deadline_s=1e-3, best_effort=True).json()
    choice = record["choices"][0]
    assert choice["finish_reason"] == "length"
    assert record["pulse_edge"]["finish_reason"] == "deadline"
    assert record["pulse_edge"]["deadline"]["met"] is False


@pytest.mark.parametrize("path", ["/v1/chat/completion", "/v1", "/v1/embeddings", "/docs"])
def test_other_paths(shared: Served, path: str) -> None:
    response = shared.client.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_another_method(shared: Served) -> None:
    response = shared.client.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"
