"""Clients whose answers are decoded at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pulse_edge
from pulse_edge.errors import ParameterError
from pulse_edge.serve.config import ServeConfig

from support.fixture_types import Bundles
from support.requests import Q1, Q2
from support.served import chunks, eventually, served, text_of

QUESTIONS = (Q1, Q2, f"{Q1} {Q2}", "Is it normal?")


@pytest.mark.parametrize("stream", [False, True])
def test_clients_at_the_same_time_get_the_models_own_answers(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    model = pulse_edge.load(bundles(), threads=1, slots=4)
    expected = {q: model.ask(None, q, max_new_tokens=30).text for q in QUESTIONS}
    together: list[int] = []
    choose = model.engine.choose

    def counted(rows: Any, slot: Any = 0) -> Any:
        together.append(1 if isinstance(slot, int) else len(slot))
        assert waiting.wait(60)
        return choose(rows, slot)

    waiting = threading.Event()
    with served(model, slots=4) as server:
        monkeypatch.setattr(model.engine, "choose", counted)

        def ask(question: str) -> str:
            if stream:
                return text_of(chunks(server.events(question, max_tokens=30)))
            response = server.chat(question, max_tokens=30)
            assert response.status_code == 200
            return str(response.json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(4) as pool:
            texts = [pool.submit(ask, question) for question in QUESTIONS]
            assert eventually(lambda: len(model.worker.unfinished) == 4)
            waiting.set()
            got = [text.result().strip() for text in texts]
        assert server.settled()
    assert got == [expected[question] for question in QUESTIONS]
    assert max(together) == 4


def test_as_many_more_are_admitted() -> None:
    assert ServeConfig().slots == 1
    assert ServeConfig(slots=64).slots == 64


@pytest.mark.parametrize("slots", [0, -1, 65, True, "two"])
def test_slots_out_of_range_are_named(slots: Any) -> None:
    with pytest.raises(ParameterError, match=r"^slots is .*from 1 to 64"):
        ServeConfig(slots=slots)
