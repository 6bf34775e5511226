"""Parameters, to the word and to the last legal value; and how long a request may still wait."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from pulse_edge.cancellation import Cancelled
from pulse_edge.deadline import Deadline
from pulse_edge.errors import ParameterError, QueueTimeoutError
from pulse_edge.params import GenerationParams, Patience, Terms


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("max_new_tokens", 0, "a whole number from 1"),
        ("temperature", 100.1, "from 0 to 100 (0 is greedy)"),
        ("top_p", 0.0, "over 0, up to 1"),
        ("top_k", -1, "a whole number from 0 (0 is off)"),
        ("repetition_penalty", 0.0, "over 0"),
        ("seed", -1, "a whole number from 0"),
        ("stop", ("",), "strings that are not empty"),
        ("speculate", 1, "True or False"),
    ],
)
def test_a_refusal_to_the_word(name: str, value: Any, legal: str) -> None:
    with pytest.raises(ParameterError) as caught:
        GenerationParams(**{name: value})
    assert str(caught.value) == f"{name} is {value!r}, but must be {legal}"


def test_what_holds_if_nothing_is_said() -> None:
    """As ECGBench's evaluation has it."""
    params = GenerationParams()
    assert (params.max_new_tokens, params.temperature, params.top_p) == (1024, 0, 1)
    assert (params.top_k, params.repetition_penalty, params.seed) == (0, 1, 0)
    assert (params.stop, params.speculate) == ((), False)
    assert GenerationParams.of({}) == params
    assert GenerationParams.of({"seed": 3, "stop": "x"}) == GenerationParams(seed=3, stop=("x",))


@pytest.mark.parametrize(
    ("fields", "greedy"),
    [
        ({}, True),
        ({"top_p": 0.5, "top_k": 3, "seed": 4}, True),
        ({"temperature": 1}, False),
        ({"temperature": 1e-9}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"repetition_penalty": 0.9}, False),
    ],
)
def test_what_is_greedy(fields: dict[str, Any], greedy: bool) -> None:
    assert GenerationParams(**fields).greedy is greedy


# -- patience


class Wait:
    """A wait that takes some seconds by a clock of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, takes: float) -> None:
        self.now = 1000.0
        self.asked: list[float | None] = []
        self._takes = takes
        patch.setattr(time, "monotonic", lambda: self.now)

    def __call__(self, seconds: float | None) -> bool:
        self.asked.append(seconds)
        enough = seconds is None or seconds >= self._takes
        self.now += self._takes if enough or seconds is None else seconds
        return enough


def test_several_waits_use_up_one_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Wait(monkeypatch, 4)
    patience = Patience(10)
    assert [patience.wait(wait) for _ in range(4)] == [True, True, False, False]
    assert wait.asked == [10, 6, 2, 0]


def test_a_wait_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Wait(monkeypatch, 4)
    patience = Patience(None)
    assert patience.timeout is None
    assert [patience.wait(wait) for _ in range(2)] == [True, True]
    assert wait.asked == [None, None]


def test_no_wait_is_longer_than_a_thread_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Wait(monkeypatch, 1)
    assert Patience(math.inf).wait(wait)
    assert Patience(1e300).wait(wait)
    assert wait.asked == [threading.TIMEOUT_MAX] * 2


def test_no_wait_goes_beyond_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Wait(monkeypatch, 4)
    patience = Patience(100, Deadline(6))
    assert [patience.wait(wait) for _ in range(2)] == [True, False]
    assert wait.asked == [6, 2]
    assert isinstance(patience.exhausted(), Cancelled)
    without = Patience(None, Deadline(3))
    assert not without.wait(wait)
    assert wait.asked[-1] == 3
    first = Patience(1, Deadline(50))
    assert not first.wait(wait)
    assert isinstance(first.exhausted(), QueueTimeoutError)


@pytest.mark.parametrize(
    ("timeout", "message"),
    [
        (0, "the model is busy with another request; wait for it by a timeout over 0"),
        (
            2.5,
            "other requests took longer than the timeout of 2.5 s; ask again, or wait longer by a "
            "larger timeout",
        ),
    ],
)
def test_a_wait_that_was_too_short_to_the_word(timeout: float, message: str) -> None:
    error = Patience(timeout).exhausted()
    assert isinstance(error, QueueTimeoutError)
    assert str(error) == message


@pytest.mark.parametrize("timeout", [-0.1, math.nan, True, "1", -math.inf])
def test_what_is_no_timeout(timeout: Any) -> None:
    with pytest.raises(ParameterError, match=r"^timeout is .*, but must be seconds from 0 \(0 "):
        Patience(timeout)


# -- terms


def test_terms() -> None:
    terms = Terms()
    assert (terms.deadline, terms.patience.timeout) == (None, None)
    assert (terms.best_effort, terms.priority) == (False, "interactive")
    other = Terms(2, 5, True, "background")
    assert other.deadline is not None
    assert (other.deadline.seconds, other.patience.timeout) == (5, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_effort": 1}, "best_effort is 1, but must be True or False"),
        ({"best_effort": None}, "best_effort is None, but must be True or False"),
        ({"priority": "urgent"}, "priority is 'urgent', but must be interactive or background"),
        ({"priority": ""}, "priority is '', but must be interactive or background"),
        ({"deadline_s": 0}, "deadline_s is 0, but must be seconds over 0"),
        ({"deadline_s": True}, "deadline_s is True, but must be seconds over 0"),
        ({"deadline_s": math.nan}, "deadline_s is nan, but must be seconds over 0"),
    ],
)
def test_terms_that_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Terms(**fields)
    assert str(caught.value) == message
