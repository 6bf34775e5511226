"""Seconds of a request's stages, and of all but its waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pulse_edge.answer import Answer, Request, Stopwatch, Usage
from pulse_edge.decode.result import Generation
from pulse_edge.params import GenerationParams

from support.ticking import WorkClock


def fail(clock: WorkClock, seconds: float) -> None:
    clock.add(seconds)
    raise KeyError


def test_stages_add_up() -> None:
    clock = WorkClock()
    watch = Stopwatch(clock)
    for _ in range(2):
        with watch.preparing(), watch.stage("decode_image"):
            clock.add(1)
        clock.add(100)
    with pytest.raises(KeyError), watch.preparing():
        fail(clock, 2)
    assert watch.timings(Generation(clock=clock)).queued == 200
    watch.begin_turn()
    for name in ("vision", "prefill", "prefill"):
        with pytest.raises(KeyError), watch.stage(name):
            fail(clock, 4)
    clock.add(8)
    t = watch.timings(Generation(clock=clock))
    assert (t.decode_image, t.preprocess, t.vision, t.prefill) == (2, 0, 4, 8)
    assert (t.ttft, t.tpot, t.total, t.queued) == (None, None, 2 + 2 + 12 + 8, 200)
    watch.end_turn()
    clock.add(50)
    watch.begin_turn()
    clock.add(3)
    t = watch.timings(Generation(clock=clock))
    assert (t.total, t.queued) == (24 + 3, 250)
    assert watch.reached == ["decode_image", "vision", "prefill"]


def test_a_request_that_ends_between_two_turns_has_worked_in_the_first_only() -> None:
    clock = WorkClock()
    watch = Stopwatch(clock)
    clock.add(10)
    watch.begin_turn()
    clock.add(3)
    watch.end_turn()
    clock.add(7)
    timings = watch.timings(Generation(clock=clock))
    assert (timings.total, timings.queued) == (3, 17)
    watch.end_turn()  # it has none to end
    timings = watch.timings(Generation(clock=clock))
    assert (timings.total, timings.queued) == (3, 17)


def test_an_answer_as_text_and_as_json() -> None:
    watch = Stopwatch(WorkClock())
    usage = Usage(5, 0, 1, 2, 0, 0)
    timings = watch.timings(Generation(clock=WorkClock()))
    answer = Answer("Sinus rhythm.", (7, 8), "eos", usage, timings, {"bundle": "00"})
    assert str(answer) == "Sinus rhythm."
    record = json.loads(json.dumps(answer.to_dict()))
    assert (record["text"], record["token_ids"]) == ("Sinus rhythm.", [7, 8])
    assert (record["usage"]["prompt_tokens"], record["deadline"]) == (5, None)


def test_a_request_generates_unless_it_says_otherwise() -> None:
    assert Request((1, 5), "a prompt", None, GenerationParams()).generates is True


@pytest.mark.parametrize(
    ("tokens", "reason", "tpot"),
    [(1, "length", None), (1, "eos", 6), (2, "length", 6), (2, "eos", 3), (4, "stop", 2)],
)
def test_seconds_per_token(tokens: int, reason: Any, tpot: float | None) -> None:
    out = Generation(tokens=[7] * tokens, finish_reason=reason)
    out.first_token_at, out.last_token_at = 0.0, 6.0
    clock = WorkClock()
    watch = Stopwatch(clock)
    watch.begin_turn()
    clock.add(6)
    timings = watch.timings(out)
    assert (timings.ttft, timings.tpot, timings.total) == (0, tpot, 6)


def test_what_is_set_aside_counts_to_no_stage() -> None:
    """Other requests' steps in the midst of a prefill, also in a stage within a stage."""
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    watch.begin_turn()
    with watch.stage("prefill"):
        now[0] += 1
        with watch.aside():
            now[0] += 10
        now[0] += 2
        with watch.stage("vision"):
            now[0] += 4
            with watch.aside():
                now[0] += 20
    with watch.aside():
        now[0] += 40
    with watch.stage("vision"):
        now[0] += 8
    timings = watch.timings(Generation(clock=lambda: now[0]))
    assert (timings.vision, timings.prefill, timings.total) == (12, 7, 85)
