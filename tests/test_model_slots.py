"""Requests that decode at the same time: each gets the answer that it gets alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge import runner
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import EngineError, ParameterError

from support.requests import Q1, Q2, fresh, page, settled
from support.schedules import Schedules

PIECE = 16  # rows, so that prefills of the tiny model have pieces
PATIENCE = 60.0  # seconds


def loaded(bundle: Path, slots: int, **options: Any) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1, slots=slots, **options)


class Asking:
    """Streams that threads read, and their answers."""

    def __init__(self) -> None:
        self.answers: list[pulse_edge.Answer | None] = []
        self.errors: list[BaseException | None] = []
        self._threads: list[threading.Thread] = []

    def add(self, stream: pulse_edge.Stream) -> int:
        """Read a stream; its number."""
        number = len(self.answers)
        self.answers.append(None)
        self.errors.append(None)
        thread = threading.Thread(target=self._read, args=(number, stream), daemon=True)
        thread.start()
        self._threads.append(thread)
        return number

    def expect(self, count: int) -> None:
        """Wait until so many streams are read."""
        limit = time.monotonic() + PATIENCE
        while len(self._threads) < count:
            assert time.monotonic() < limit
            time.sleep(0.0005)

    def _read(self, number: int, stream: pulse_edge.Stream) -> None:
        try:
            self.answers[number] = stream.answer
        except BaseException as error:
            self.errors[number] = error

    def join(self) -> list[pulse_edge.Answer]:
        """All answers; raises the first error."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "it hangs"
        for error in self.errors:
            if error is not None:
                raise error
        return [answer for answer in self.answers if answer is not None]


class Gate:
    """Stops an engine at a step, so that a test can do something at that moment.

    Attributes:
        steps: common or single steps so far.
    """

    def __init__(self, model: pulse_edge.Model, patch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self._at: dict[int, Callable[[], None]] = {}
        for name in ("choose", "step"):
            patch.setattr(model.engine, name, self._counted(getattr(model.engine, name)))

    def at(self, step: int, act: Callable[[], None]) -> None:
        """Call `act` before this step, in the engine's thread."""
        self._at[step] = act

    def _counted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.steps += 1
            self._at.pop(self.steps, lambda: None)()
            return run(*arguments, **named)

        return counted


def arrived(model: pulse_edge.Model, count: int) -> None:
    """Wait until so many requests have not ended."""
    limit = time.monotonic() + PATIENCE
    while len(model.worker.unfinished) < count:
        assert time.monotonic() < limit
        time.sleep(0.0005)


@pytest.mark.parametrize("slots", [2, 4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_random_schedules_give_the_answers_of_requests_alone(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, slots: int, seed: int
) -> None:
    monkeypatch.setattr(runner, "DEADLINE_PIECE", PIECE)
    schedules = Schedules(bundle, slots)
    for number in range(6):
        schedules.run(100 * seed + number)
    assert schedules.shared > 5
    assert schedules.together >= 2


def test_two_hundred_random_schedules(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "DEADLINE_PIECE", PIECE)
    schedules = Schedules(bundle, 4)
    for seed in range(200):
        schedules.run(seed)
    assert schedules.together == 4


@pytest.mark.parametrize(("precision", "cache"), [("int8", "float"), ("int4", "int8")])
def test_quantized_models_have_slots_too(
    bundles: Any, monkeypatch: pytest.MonkeyPatch, precision: str, cache: str
) -> None:
    """More rows take another kernel, which may round an activation to its next level. Only tokens
    that are almost as likely may then change places.
    """
    monkeypatch.setattr(runner, "DEADLINE_PIECE", PIECE)
    schedules = Schedules(bundles(precision, cache=cache), 3, tie=0.1)
    for seed in range(6):
        schedules.run(seed)
    assert schedules.shared > 5


@pytest.mark.parametrize("count", [2, 4, 8])
def test_requests_at_the_same_time_get_their_own_answers(bundle: Path, count: int) -> None:
    model = loaded(bundle, count)
    asking = Asking()
    requests: list[tuple[Any, str]] = [
        (page(number // 2) if number % 4 else None, (Q1, Q2)[number % 2]) for number in range(count)
    ]
    for image, question in requests:
        asking.add(model.stream(image, question, max_new_tokens=40))
    for request, answer in zip(requests, asking.join(), strict=True):
        alone = fresh(bundle, *request)
        assert (answer.token_ids, answer.text) == (alone.token_ids, alone.text)
    assert settled(model.worker)


def test_steps_are_shared_and_counted(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(bundle, 2)
    gate = Gate(model, monkeypatch)
    asking = Asking()

    def join() -> None:
        asking.add(model.stream(None, Q2, max_new_tokens=20))
        arrived(model, 2)

    gate.at(3, join)
    asking.add(model.stream(None, Q1, max_new_tokens=20))
    asking.expect(2)
    first, second = asking.join()
    shared = [answer.provenance["engine"].get("shared_steps", 0) for answer in (first, second)]
    assert shared[0] >= 15
    assert shared[1] >= 15
    assert first.provenance["engine"]["slots"] == 2
    assert gate.steps < 19 + 19 - 10, "a step serves both"
    assert len(first.timings.decode_steps) == 19


def test_alone_nothing_is_noted(bundle: Path) -> None:
    answer = loaded(bundle, 4).ask(None, Q1, max_new_tokens=10)
    assert "shared_steps" not in answer.provenance["engine"]
    one = pulse_edge.load(bundle, threads=1).ask(None, Q1, max_new_tokens=10)
    assert one.token_ids == answer.token_ids
    assert "slots" not in one.provenance["engine"]


@pytest.mark.parametrize("at", [2, 5, 11])
def test_who_joins_midway_moves_no_other_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(runner, "DEADLINE_PIECE", PIECE)
    model = loaded(bundle, 3)
    gate = Gate(model, monkeypatch)
    asking = Asking()

    def join() -> None:
        asking.add(model.stream(page(1), Q2, max_new_tokens=40))
        arrived(model, 2)

    gate.at(at, join)
    asking.add(model.stream(page(), Q1, max_new_tokens=40))
    asking.expect(2)
    first, second = asking.join()
    assert first.token_ids == fresh(bundle, page(), Q1).token_ids
    assert second.token_ids == fresh(bundle, page(1), Q2).token_ids


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_cancel_of_one_moves_no_other_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    model = loaded(bundle, 3)
    gate = Gate(model, monkeypatch)
    asking = Asking()
    requests: list[tuple[Any, str]] = [(page(), Q1), (page(1), Q2), (None, Q2)]
    streams = [model.stream(*request, max_new_tokens=60) for request in requests]

    def join() -> None:
        for stream in streams[1:]:
            asking.add(stream)
        arrived(model, 3)

    gate.at(2, join)
    gate.at(40, streams[which].close)
    asking.add(streams[0])
    asking.expect(3)
    answers = asking.join()
    numbers = [0, 1, 2]
    for number, answer in zip(numbers, answers, strict=True):
        alone = fresh(bundle, *requests[number], max_new_tokens=60)
        if number == which:
            assert answer.finish_reason == "cancelled"
            assert answer.token_ids == alone.token_ids[: len(answer.token_ids)]
            assert len(answer.token_ids) < 60
        else:
            assert answer.token_ids == alone.token_ids
    after = model.ask(*requests[which], max_new_tokens=60)
    assert after.token_ids == fresh(bundle, *requests[which], max_new_tokens=60).token_ids


def test_sampled_answers_keep_their_own_seeds(bundle: Path) -> None:
    model = loaded(bundle, 4)
    asking = Asking()
    options: list[dict[str, Any]] = [
        {"temperature": 0.9, "seed": seed, "max_new_tokens": 30} for seed in (1, 2, 1, 3)
    ]
    for each in options:
        asking.add(model.stream(None, Q1, **each))
    answers = asking.join()
    for each, answer in zip(options, answers, strict=True):
        assert answer.token_ids == fresh(bundle, None, Q1, **each).token_ids
    assert answers[0].token_ids == answers[2].token_ids != answers[1].token_ids


def test_drafts_are_made_alone_only(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(bundle, 2)
    for _ in range(3):  # it learns the answer, and then drafts it
        alone = model.ask(None, Q1, max_new_tokens=40, speculate=True)
    assert alone.usage.drafted_tokens > 0
    asking = Asking()
    gate = Gate(model, monkeypatch)

    def join() -> None:
        asking.add(model.stream(None, Q2, max_new_tokens=60))
        arrived(model, 2)

    gate.at(1, join)
    asking.add(model.stream(None, Q1, max_new_tokens=40, speculate=True))
    asking.expect(2)
    both = asking.join()
    assert both[0].token_ids == alone.token_ids
    assert both[0].usage.drafted_tokens < alone.usage.drafted_tokens
    assert both[0].provenance["engine"]["shared_steps"] > 0


def failing_for(model: pulse_edge.Model, slot: int, patch: pytest.MonkeyPatch) -> None:
    """Every step that a slot takes part in fails, from the fifth on."""
    choose = model.engine.choose
    calls: list[int] = []

    def fails(rows: np.ndarray, slots: Any = 0) -> Any:
        numbers = np.atleast_1d(slots)
        calls.extend(numbers[numbers == slot])
        if len(calls) > 5 and slot in numbers:
            raise EngineError("this slot is broken")
        return choose(rows, slots)

    patch.setattr(model.engine, "choose", fails)


def not_finite_for(model: pulse_edge.Model, slot: int, patch: pytest.MonkeyPatch) -> None:
    """A slot's logits are NaN, from its fifth step on."""
    choose = model.engine.choose
    calls: list[int] = []

    def fails(rows: np.ndarray, slots: Any = 0) -> Any:
        chosen = choose(rows, slots).copy()
        mine = np.broadcast_to(np.atleast_1d(slots) == slot, len(chosen))
        calls.extend([1] * int(mine.any()))
        if len(calls) > 5:
            chosen[mine] = -1
        return chosen

    patch.setattr(model.engine, "choose", fails)


@pytest.mark.parametrize("how", [failing_for, not_finite_for])
@pytest.mark.parametrize("slot", [0, 1, 2])
def test_an_error_of_one_moves_no_other_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[..., None], slot: int
) -> None:
    model = loaded(bundle, 3)
    asking = Asking()
    requests: list[tuple[Any, str]] = [(page(), Q1), (page(1), Q2), (None, Q2)]
    for request in requests:  # each page gets a slot of its own, in this order
        model.ask(*request, max_new_tokens=1)
    with monkeypatch.context() as patch:
        how(model, slot, patch)
        for request in requests:
            asking.add(model.stream(*request, max_new_tokens=40))
        with pytest.raises(EngineError, match=r"this slot is broken|not finite"):
            asking.join()
    assert sum(error is not None for error in asking.errors) == 1
    for request, answer in zip(requests, asking.answers, strict=True):
        if answer is not None:
            assert answer.token_ids == fresh(bundle, *request).token_ids
    for request in requests:
        assert model.ask(*request, max_new_tokens=40).token_ids == fresh(bundle, *request).token_ids


class PrefillGate:
    """Calls something before a piece of a prefill of the engine, counted from 1."""

    def __init__(
        self, engine: Engine, patch: pytest.MonkeyPatch, acts: dict[int, Callable[[], None]]
    ) -> None:
        self.pieces = 0
        prefill = engine.prefill

        def counted(*arguments: Any, **named: Any) -> Any:
            self.pieces += 1
            acts.pop(self.pieces, lambda: None)()
            return prefill(*arguments, **named)

        patch.setattr(engine, "prefill", counted)


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_decoding_request_ends_within_a_piece_of_another_ones_prefill(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(runner, "DEADLINE_PIECE", PIECE)
    model = loaded(bundle, 2)
    model.ask(page(), Q1, max_new_tokens=1)
    gate = Gate(model, monkeypatch)
    asking = Asking()
    deadline = 0.5 if how == "deadline" else None
    stream = model.stream(page(), Q1, max_new_tokens=400, deadline_s=deadline, best_effort=True)
    ended: list[bool] = []

    def end() -> None:
        if how == "cancel":
            stream.close()
        limit = time.monotonic() + PATIENCE
        while not stream.delivery.cancellation.requested and time.monotonic() < limit:
            time.sleep(0.001)

    def join() -> None:
        acts = {2: end, 3: lambda: ended.append(stream.delivery.ended)}
        gates.append(PrefillGate(model.engine, monkeypatch, acts))
        asking.add(model.stream(page(1), Q2, max_new_tokens=10))
        arrived(model, 2)

    gates: list[PrefillGate] = []
    gate.at(3, join)
    asking.add(stream)
    asking.expect(2)
    first, second = asking.join()
    assert gates[0].pieces >= 3
    assert ended == [True]
    assert first.finish_reason == ("deadline" if how == "deadline" else "cancelled")
    alone = fresh(bundle, page(), Q1, max_new_tokens=400)
    assert first.token_ids == alone.token_ids[: len(first.token_ids)]
    assert second.token_ids == fresh(bundle, page(1), Q2, max_new_tokens=10).token_ids


def test_views_run_one_by_one_in_company(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the features that they give together."""
    model = loaded(bundle, 2)
    sizes: list[int] = []
    encode = model.engine.encode

    def counted(pixels: np.ndarray, *rest: Any) -> Any:
        sizes.append(len(pixels))
        return encode(pixels, *rest)

    monkeypatch.setattr(model.engine, "encode", counted)
    model.ask(page(1), Q1, max_new_tokens=1)
    together = sizes[:]
    gate = Gate(model, monkeypatch)
    asking = Asking()

    def join() -> None:
        asking.add(model.stream(page(), Q1, max_new_tokens=30))
        arrived(model, 2)

    gate.at(2, join)
    asking.add(model.stream(None, Q2, max_new_tokens=60))
    asking.expect(2)
    answers = asking.join()
    assert len(together) == 1
    assert sizes[1:] == [1] * together[0]
    assert answers[1].token_ids == fresh(bundle, page(), Q1, max_new_tokens=30).token_ids


def test_every_slot_keeps_its_page(bundle: Path) -> None:
    model = loaded(bundle, 3, kept_bytes=0)
    for number in range(3):
        first = model.ask(page(number), Q1, max_new_tokens=4)
        assert first.usage.cached_tokens < first.usage.image_tokens
    for number in (1, 0, 2):
        again = model.ask(page(number), Q2, max_new_tokens=4)
        assert again.usage.cached_tokens >= again.usage.image_tokens > 0
    model.ask(page(7), Q1, max_new_tokens=4)  # takes the slot that was used longest ago
    for number, kept in ((0, True), (2, True), (1, False)):
        usage = model.ask(page(number), Q1, max_new_tokens=4).usage
        assert (usage.cached_tokens >= usage.image_tokens) == kept


def test_pages_that_leave_a_slot_are_kept_for_any_slot(bundle: Path) -> None:
    model = loaded(bundle, 2)
    for number in range(4):
        model.ask(page(number), Q1, max_new_tokens=4)
    for number in range(4):
        again = model.ask(page(number), Q2, max_new_tokens=20)
        assert again.usage.cached_tokens >= again.usage.image_tokens
        assert again.token_ids == fresh(bundle, page(number), Q2, max_new_tokens=20).token_ids


def test_two_questions_about_a_page_share_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one gets a copy of what the first one's slot holds."""
    model = loaded(bundle, 2)
    gate = Gate(model, monkeypatch)
    asking = Asking()

    def join() -> None:
        asking.add(model.stream(page(), Q2, max_new_tokens=40))
        arrived(model, 2)

    gate.at(4, join)
    asking.add(model.stream(page(), Q1, max_new_tokens=40))
    asking.expect(2)
    first, second = asking.join()
    assert second.usage.cached_tokens >= second.usage.image_tokens > 0
    assert first.token_ids == fresh(bundle, page(), Q1).token_ids
    assert second.token_ids == fresh(bundle, page(), Q2).token_ids


def test_forget_waits_for_all_and_empties_all(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(bundle, 2)
    gate = Gate(model, monkeypatch)
    asking = Asking()
    forgotten: list[int] = []

    def forget() -> None:
        model.forget()
        forgotten.append(sum(cursor.length for cursor in model.engine.cursors))

    def join() -> None:
        asking.add(model.stream(page(1), Q2, max_new_tokens=30))
        arrived(model, 2)
        threading.Thread(target=forget, daemon=True).start()
        arrived(model, 3)

    gate.at(4, join)
    asking.add(model.stream(page(), Q1, max_new_tokens=40))
    asking.expect(2)
    first, second = asking.join()
    assert first.token_ids == fresh(bundle, page(), Q1).token_ids
    assert second.token_ids == fresh(bundle, page(1), Q2, max_new_tokens=30).token_ids
    assert settled(model.worker)
    limit = time.monotonic() + PATIENCE
    while not forgotten and time.monotonic() < limit:
        time.sleep(0.001)
    assert forgotten == [0]
    assert model.ask(page(), Q1, max_new_tokens=1).usage.cached_tokens == 0


def test_looks_and_scores_go_with_answers(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score runs between others' steps; a look waits until nobody decodes."""
    model = loaded(bundle, 2)
    gate = Gate(model, monkeypatch)
    asking = Asking()
    scores: list[Any] = []
    looks: list[Any] = []

    def join() -> None:
        def score() -> None:
            scores.append(model.score(page(1), Q2, ("yes", "no")))

        threading.Thread(target=score, daemon=True).start()
        arrived(model, 2)

    gate.at(4, join)
    asking.add(model.stream(page(), Q1, max_new_tokens=60))
    answer = asking.join()[0]
    looks.append(model.look(page(2)))
    assert looks[0].wait()
    limit = time.monotonic() + PATIENCE
    while not scores and time.monotonic() < limit:
        time.sleep(0.001)
    assert answer.token_ids == fresh(bundle, page(), Q1, max_new_tokens=60).token_ids
    alone = pulse_edge.load(bundle, threads=1).score(page(1), Q2, ("yes", "no"))
    for got, expected in zip(scores[0], alone, strict=True):
        assert got.logprob == pytest.approx(expected.logprob, abs=1e-4)
    looked = model.ask(looks[0], Q1, max_new_tokens=5)
    assert looked.usage.cached_tokens >= looked.usage.image_tokens


def test_a_background_page_gives_way_though_a_slot_is_free(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PIECE", PIECE)
    model = loaded(bundle, 2)
    model.ask(None, Q1, max_new_tokens=1)
    asking = Asking()
    order: list[str] = []

    def join() -> None:
        asking.add(model.stream(page(1), Q2, max_new_tokens=20))
        arrived(model, 2)
        limit = time.monotonic() + PATIENCE
        while not model.worker.wanted and time.monotonic() < limit:
            time.sleep(0.001)

    PrefillGate(model.engine, monkeypatch, {3: join})
    look = model.look(page())
    threading.Thread(
        target=lambda: order.append("look" if look.wait() else ""), daemon=True
    ).start()
    asking.expect(1)
    answer = asking.join()[0]
    assert not order
    assert look.wait()
    assert answer.token_ids == fresh(bundle, page(1), Q2, max_new_tokens=20).token_ids
    after = model.ask(page(), Q1, max_new_tokens=20)
    assert after.usage.cached_tokens >= after.usage.image_tokens
    assert after.token_ids == fresh(bundle, page(), Q1, max_new_tokens=20).token_ids


@pytest.mark.parametrize("slots", [0, -1, 65, 1.5, True, "2", None])
def test_slots_that_cannot_be(bundle: Path, slots: Any) -> None:
    with pytest.raises(ParameterError, match=r"slots is .* from 1 to 64"):
        loaded(bundle, slots)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_short_context_ends_each_by_itself(bundle: Path, slots: int) -> None:
    model = loaded(bundle, slots, context=120)
    asking = Asking()
    for question in (Q1, Q2, Q1):
        asking.add(model.stream(None, question, max_new_tokens=400))
    alone = pulse_edge.load(bundle, threads=1, context=120)
    for question, answer in zip((Q1, Q2, Q1), asking.join(), strict=True):
        expected = alone.ask(None, question, max_new_tokens=400)
        assert answer.finish_reason == expected.finish_reason == "context"
        assert answer.token_ids == expected.token_ids


def test_predictions_count_the_company(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that will share its steps is predicted to take longer, and teaches no speed."""
    model = loaded(bundle, 2)
    for _ in range(3):
        model.forget()
        model.ask(None, Q1, max_new_tokens=40)
    before = model.runner.rates.lines["decode"]
    gate = Gate(model, monkeypatch)
    asking = Asking()

    def join() -> None:
        asking.add(model.stream(None, Q2, max_new_tokens=60, deadline_s=60))
        arrived(model, 2)

    gate.at(2, join)
    asking.add(model.stream(None, Q1, max_new_tokens=60, deadline_s=60))
    asking.expect(2)
    first, second = asking.join()
    assert first.deadline is not None
    assert second.deadline is not None
    assert first.deadline.met
    assert second.deadline.met
    assert model.runner.rates.lines["decode"] == before
