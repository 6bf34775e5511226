"""The clients that people use, against a real server: what they get is what the model says."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from support.paced import paced
from support.requests import LONG, Q1, Q2, encoded, page
from support.served import Served, about, eventually, served

pytestmark = pytest.mark.clients
QUESTION = "What is the heart rate?"
FORMATS = [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]


def picture(form: str) -> bytes:
    return encoded(page(5, (90, 60)), form)


def messages(form: str, media: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": about(picture(form), QUESTION, media)}]


@pytest.fixture
def openai(shared: Served) -> Any:
    """OpenAI's client."""
    library = pytest.importorskip("openai")
    return library.OpenAI(base_url=f"{shared.url}/v1", api_key="unused")


@pytest.mark.parametrize(("form", "media"), FORMATS)
def test_openai(shared: Served, openai: Any, form: str, media: str) -> None:
    answer = shared.model.ask(picture(form), QUESTION)
    whole = openai.chat.completions.create(model="pulse-nano", messages=messages(form, media))
    assert whole.choices[0].message.content == answer.text
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens == answer.usage.new_tokens
    assert whole.usage.prompt_tokens == answer.usage.prompt_tokens
    assert whole.pulse_edge["notice"] == answer.notice
    with openai.chat.completions.create(
        model="pulse-nano",
        messages=messages(form, media),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.text
    assert chunks[-1].usage.completion_tokens == answer.usage.new_tokens


def test_openai_s_other_parameters(shared: Served, openai: Any) -> None:
    answer = shared.model.ask(None, Q1, max_new_tokens=5, temperature=0.8, seed=3, logprobs=2)
    whole = openai.chat.completions.create(
        model="pulse-nano", messages=[{"role": "user", "content": Q1}], max_completion_tokens=5,
        temperature=0.8, seed=3, logprobs=True, top_logprobs=2, user="somebody",
        extra_body={"deadline_s": 60, "priority": "interactive"},
    )  # fmt: skip
    assert whole.choices[0].message.content == answer.text
    tokens = whole.choices[0].logprobs.content
    assert answer.logprobs is not None
    assert [t.logprob for t in tokens] == pytest.approx(
        [t.logprob for t in answer.logprobs], abs=1e-4
    )
    assert len(tokens[0].top_logprobs) == 2
    assert whole.pulse_edge["warnings"] == []


def test_openai_s_models(openai: Any) -> None:
    assert [model.id for model in openai.models.list()] == ["pulse-nano"]
    assert openai.models.retrieve("pulse-nano").owned_by == "pulse-edge"


def test_openai_s_errors(shared: Served, openai: Any) -> None:
    library = pytest.importorskip("openai")
    create = openai.chat.completions.create
    with pytest.raises(library.BadRequestError) as error:
        create(model="pulse-nano", messages=[{"role": "user", "content": Q1}], temperature=-1)
    assert error.value.code == "invalid_parameter"
    with pytest.raises(library.NotFoundError):
        create(model="gpt-4", messages=[{"role": "user", "content": Q1}])
    with pytest.raises(library.NotFoundError):
        openai.models.retrieve("gpt-4")


def test_openai_does_not_repeat_what_was_refused(shared: Served) -> None:
    library = pytest.importorskip("openai")
    with served(shared.model, queue=0) as server, paced(shared.model) as pace:
        client = library.OpenAI(base_url=f"{server.url}/v1", api_key="unused")
        pace.hold()
        running = threading.Thread(target=server.chat, args=(Q1,))
        running.start()
        assert eventually(lambda: pace.steps == 1)
        with pytest.raises(library.RateLimitError):
            client.chat.completions.create(
                model="pulse-nano", messages=[{"role": "user", "content": Q2}]
            )
        text = server.client.get("/metrics").text
        assert 'pulse_edge_refusals_total{code="queue_full"} 1.0' in text
        pace.go()
        running.join()


def test_openai_that_closes_its_stream_frees_the_engine(shared: Served) -> None:
    library = pytest.importorskip("openai")
    client = library.OpenAI(base_url=f"{shared.url}/v1", api_key="unused")
    with paced(shared.model) as pace:
        pace.hold()
        thread = threading.Timer(0.2, pace.go)
        thread.start()
        stream = client.chat.completions.create(
            model="pulse-nano", messages=[{"role": "user", "content": Q1}], stream=True,
            max_tokens=LONG, temperature=0,
        )  # fmt: skip
        next(iter(stream))
        stream.close()
        thread.join()
        assert shared.settled()


@pytest.mark.parametrize(("form", "media"), FORMATS)
def test_langchain(shared: Served, form: str, media: str) -> None:
    library = pytest.importorskip("langchain_openai")
    answer = shared.model.ask(picture(form), QUESTION, max_new_tokens=6)
    chat = library.ChatOpenAI(
        base_url=f"{shared.url}/v1", api_key="unused", model="pulse-nano", max_tokens=6,
        stream_usage=True,
    )  # fmt: skip
    whole = chat.invoke(messages(form, media))
    assert whole.content == answer.text
    assert whole.usage_metadata["output_tokens"] == answer.usage.new_tokens
    chunks = list(chat.stream(messages(form, media)))
    assert "".join(chunk.content for chunk in chunks) == answer.text
    assert sum((c.usage_metadata or {}).get("output_tokens", 0) for c in chunks) == (
        answer.usage.new_tokens
    )


@pytest.mark.parametrize(("form", "media"), FORMATS)
def test_litellm(shared: Served, form: str, media: str) -> None:
    library = pytest.importorskip("litellm")
    answer = shared.model.ask(picture(form), QUESTION)
    common = {
        "model": "openai/pulse-nano",
        "api_base": f"{shared.url}/v1",
        "api_key": "unused",
        "messages": messages(form, media),
        "user": "somebody",
        "extra_body": {"deadline_s": 60},
    }
    whole = library.completion(**common)
    assert whole.choices[0].message.content == answer.text
    assert whole.usage.completion_tokens == answer.usage.new_tokens
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in library.completion(**common, stream=True)
        if chunk.choices
    ]
    assert "".join(pieces) == answer.text
