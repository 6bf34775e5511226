"""Deadlines: a request ends in time with what there is, and one that cannot is refused."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.cancellation import Paused
from pulse_edge.deadline import Alarm, Deadline
from pulse_edge.delivery import Delivery
from pulse_edge.errors import DeadlineError, ParameterError
from pulse_edge.params import Patience, Terms

from support.requests import LONG, Q1, Q2, blocked, page, settled, usable


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


def slow(model: pulse_edge.Model) -> None:
    """Let the model take every stage for one of 1,000 s."""
    lines = model.runner.rates.lines
    for stage, line in lines.items():
        lines[stage] = dataclasses.replace(line, seconds=1e3, product=1e3 * line.n)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", True, [1]])
def test_what_is_no_deadline(model: pulse_edge.Model, seconds: Any) -> None:
    with pytest.raises(ParameterError, match=r"deadline_s is .* but must be seconds over 0"):
        model.ask(None, Q1, deadline_s=seconds)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"best_effort": 1}, "best_effort is 1, but must be True or False"),
        ({"priority": "low"}, "priority is 'low', but must be interactive or background"),
    ],
)
def test_terms_out_of_range(model: pulse_edge.Model, terms: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        model.ask(None, Q1, **terms)


def test_a_deadline_far_away_changes_nothing(bundle: Path, model: pulse_edge.Model) -> None:
    plain = pulse_edge.load(bundle, threads=1).ask(page(), Q1, max_new_tokens=20)
    assert plain.deadline is None
    answer = model.ask(page(), Q1, max_new_tokens=20, deadline_s=1e9)
    assert (answer.token_ids, answer.finish_reason) == (plain.token_ids, plain.finish_reason)
    assert answer.deadline is not None
    assert (answer.deadline.deadline_s, answer.deadline.met) == (1e9, True)
    assert (answer.deadline.predicted_s, answer.deadline.skipped) == (None, ())
    again = model.ask(page(), Q1, max_new_tokens=20, deadline_s=1e9)
    assert again.deadline is not None
    assert again.deadline.predicted_s is not None
    assert 0 < again.deadline.predicted_s < 10


def test_a_deadline_that_passes_while_tokens_come(bundle: Path, model: pulse_edge.Model) -> None:
    """The answer is the beginning of the whole one."""
    whole = model.ask(page(), Q1, max_new_tokens=LONG)
    stream = model.stream(page(), Q1, max_new_tokens=LONG, deadline_s=60, best_effort=True)
    pieces = [next(stream), next(stream)]
    stream.delivery.expire()
    pieces += list(stream)
    answer = stream.answer
    assert answer.finish_reason == "deadline"
    assert answer.deadline is not None
    assert (answer.deadline.met, answer.deadline.skipped) == (False, ("decode",))
    assert 0 < len(answer.token_ids) < len(whole.token_ids)
    assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
    assert "".join(pieces) == stream.text
    assert usable(model, bundle)


def test_a_deadline_needs_no_alarm_while_tokens_come(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm's thread may be late, because it waits for the thread that decodes."""
    monkeypatch.setattr(Deadline, "watch", lambda self, act: Alarm(60, act))
    whole = model.ask(page(), Q1, max_new_tokens=LONG)
    put = Delivery.put

    def slow(own: Delivery, piece: str) -> None:
        time.sleep(0.02)
        put(own, piece)

    monkeypatch.setattr(Delivery, "put", slow)
    answer = model.ask(page(), Q1, max_new_tokens=LONG, deadline_s=0.5, best_effort=True)
    assert answer.finish_reason == "deadline"
    assert answer.deadline is not None
    assert answer.deadline.skipped == ("decode",)
    assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
    monkeypatch.undo()
    assert usable(model, bundle)


def test_a_deadline_that_passes_in_the_queue(bundle: Path, model: pulse_edge.Model) -> None:
    """The answer comes at the deadline, though the engine is still busy."""
    free = blocked(model)
    start = time.monotonic()
    answer = model.ask(page(), Q1, deadline_s=0.2)
    assert 0.2 <= time.monotonic() - start < 5
    assert not free.is_set()
    assert (answer.finish_reason, answer.text, answer.token_ids) == ("deadline", "", ())
    assert answer.deadline is not None
    assert answer.deadline.skipped[-3:] == ("vision", "prefill", "decode")
    assert answer.notice
    free.set()
    assert settled(model.worker)
    assert usable(model, bundle)


def test_a_deadline_before_the_request_is_read(model: pulse_edge.Model) -> None:
    """It runs from the submission on."""
    stream = model.stream(None, Q1, deadline_s=0.01)
    time.sleep(0.05)
    answer = stream.answer
    assert answer.finish_reason == "deadline"
    assert answer.deadline is not None
    assert answer.deadline.skipped == ("prefill", "decode")


@pytest.mark.parametrize("stage", ["vision", "prefill"])
def test_a_deadline_in_a_stage(bundle: Path, stage: str) -> None:
    passed = threading.Event()

    def progress(name: str, done: int, total: int) -> None:
        if name == stage and not passed.is_set():
            passed.set()
            streams[0].delivery.expire()

    model = pulse_edge.load(bundle, threads=1, progress=progress)
    passed.clear()
    streams = [model.stream(page(), Q1, deadline_s=60)]
    answer = streams[0].answer
    assert answer.finish_reason == "deadline"
    assert answer.deadline is not None
    stages = ("decode_image", "preprocess", "vision", "prefill", "decode")
    assert answer.deadline.skipped == stages[stages.index(stage) :]
    assert usable(model, bundle)


def test_a_predicted_miss_is_refused_unless_asked_for(model: pulse_edge.Model) -> None:
    for _ in range(3):
        model.ask(None, Q1, max_new_tokens=LONG)
        model.forget()
    slow(model)
    with pytest.raises(
        DeadlineError, match=r"over its deadline of 60 s; .* best_effort"
    ) as refused:
        model.ask(None, Q1, max_new_tokens=LONG, deadline_s=60)
    assert refused.value.deadline_s == 60
    assert refused.value.predicted_s > 60
    assert refused.value.exit_code == 13
    answer = model.ask(None, Q1, max_new_tokens=LONG, deadline_s=60, best_effort=True)
    assert answer.deadline is not None
    assert (answer.deadline.met, answer.finish_reason) == (True, "length")
    assert answer.deadline.predicted_s is not None
    assert answer.deadline.predicted_s > 60


def test_what_waits_is_part_of_the_prediction(model: pulse_edge.Model) -> None:
    model.ask(page(), Q1, max_new_tokens=LONG)
    free = blocked(model)
    waiting = [model.stream(page(), Q1, max_new_tokens=LONG) for _ in range(2)]
    threads = [threading.Thread(target=lambda s=stream: s.answer) for stream in waiting]
    for thread in threads:
        thread.start()
    limit = time.monotonic() + 10
    while len(model.worker.unfinished) < 3 and time.monotonic() < limit:
        time.sleep(0.001)
    alone = waiting[0].delivery.seconds
    assert alone is not None
    assert model.worker.wait_s("interactive") is None  # nobody knows how long the first one takes
    free.set()
    for thread in threads:
        thread.join()


def test_random_deadlines_and_cancels_leave_the_model_as_it_was(
    bundle: Path, model: pulse_edge.Model
) -> None:
    rng = random.Random(18)
    for _ in range(60):
        shown = page(rng.randrange(2)) if rng.random() < 0.8 else None
        seconds = rng.uniform(0.0005, 0.03)
        start = time.monotonic()
        try:
            stream = model.stream(
                shown, Q2, max_new_tokens=30, deadline_s=seconds, best_effort=rng.random() < 0.8
            )
            if rng.random() < 0.3:
                threading.Timer(rng.uniform(0, 0.02), stream.close).start()
            answer = stream.answer
        except pulse_edge.PulseEdgeError:
            continue
        assert answer.finish_reason in ("deadline", "cancelled", "length", "eos")
        assert time.monotonic() - start < seconds + 5
    assert settled(model.worker)
    assert usable(model, bundle)


def test_the_alarm_rings_once_or_not_at_all() -> None:
    rung: list[int] = []
    Alarm(60, lambda: rung.append(1)).stop()
    alarm = Alarm(0.001, lambda: rung.append(2))
    limit = time.monotonic() + 10
    while not rung and time.monotonic() < limit:
        time.sleep(0.001)
    alarm.stop()
    assert rung == [2]


def test_the_clock_of_a_deadline_runs_from_its_making() -> None:
    deadline = Deadline(0.05)
    assert 0 < deadline.remaining <= 0.05
    assert not deadline.passed
    time.sleep(0.06)
    assert (deadline.remaining, deadline.passed) == (0, True)
    assert Terms(deadline_s=3).deadline is not None
    assert Terms().deadline is None


def test_a_wait_that_sees_the_deadline_before_its_alarm(model: pulse_edge.Model) -> None:
    """The request ends as one whose deadline has passed, not as one that was closed."""
    whole = model.ask(None, Q1, max_new_tokens=2)
    own = Delivery(model.worker.thread)

    def start(delivery: Delivery) -> None:
        delivery.limit(Deadline(60), lambda: whole)
        raise Patience(None, Deadline(1e-9)).exhausted()

    own.begin(start)
    own.wait()
    assert own.take_error() is None
    assert (own.expired, own.cancelled, own.answer) == (True, False, whole)


def test_a_request_that_is_cancelled_while_it_waits_has_no_answer(
    model: pulse_edge.Model,
) -> None:
    own = Delivery(model.worker.thread)

    def start(delivery: Delivery) -> None:
        delivery.limit(Deadline(60), lambda: model.ask(None, Q1))
        delivery.cancellation.request()
        delivery.cancellation.check()

    own.begin(start)
    own.wait()
    assert (own.expired, own.cancelled, own.answer) == (False, True, None)


def test_what_is_left_of_a_request_that_gave_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between its turns are no work."""
    now = [100.0]
    monkeypatch.setattr("pulse_edge.delivery.time.monotonic", lambda: now[0])
    own = Delivery(threading.current_thread())
    own.seconds = 10.0

    def works(_: Delivery) -> None:
        now[0] += 3
        raise Paused

    own.enqueue(works, own.worker, set())
    for left in (10.0, 7.0, 4.0):
        assert own.left_s == left
        now[0] += 50  # in the queue
        assert own.left_s == left
        assert own.take_turn()
        assert not own.run()
    assert own.left_s == 1.0
