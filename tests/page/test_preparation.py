"""Pages are prepared in the threads of those who ask: once, a few at a time, in bounded memory."""

from __future__ import annotations

import gc
import hashlib
import io
import math
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.answer import Stopwatch
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.ecg import drawing
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.errors import ImageError, ParameterError, QueueTimeoutError, RecordingError
from pulse_edge.page import preparation
from pulse_edge.page.preparation import (
    DECODED_AT_ONCE,
    PendingPage,
    Preparation,
    PreparedPage,
    decoding_places,
    pending_page,
)
from pulse_edge.page.source import Page, PageInput, decode_page, read_page
from pulse_edge.page.views import preprocess
from pulse_edge.params import Patience

from support.requests import Q1, Q2, encoded, fresh, page

PATIENCE = 60  # seconds


@pytest.fixture
def spec(bundle: Path) -> ModelSpec:
    return open_bundle(bundle).manifest.model


def prepare(
    pending: PendingPage,
    spec: ModelSpec,
    known: PreparedPage | None = None,
    timeout: float | None = None,
    cancellation: Cancellation | None = None,
) -> PreparedPage:
    how = Preparation(spec)
    return pending.prepare(
        how, known, Stopwatch(), Patience(timeout), cancellation or Cancellation()
    )


class Decodes:
    """Counts decoded pages, and may hold those who decode."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.at_once = 0
        self.most = 0
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self._lock = threading.Lock()

    def decode(self, source: PageInput, alpha: str) -> Page:
        with self._lock:
            self.threads.append(threading.current_thread())
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.reached.release()
        assert self.open.wait(PATIENCE)
        with self._lock:
            self.at_once -= 1
        return decode_page(source, alpha)  # type: ignore[arg-type]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decodes]:
    watched = Decodes()
    monkeypatch.setattr(preparation, "decode_page", watched.decode)
    yield watched
    watched.open.set()


# --- one page ------------------------------------------------------------------------------------


def test_a_page_as_the_tower_takes_it(spec: ModelSpec) -> None:
    file = encoded(page(), "PNG")
    ready = prepare(pending_page(file), spec)
    whole = read_page(file)
    assert np.array_equal(ready.pixels, preprocess(whole.image, spec))
    assert (ready.sha256, ready.size, ready.facts) == (whole.sha256, (150, 110), whole.facts)
    assert ready.data_sha256 == hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_handed_in_is_let_go(spec: ModelSpec, keep: bool) -> None:
    array = page()
    known = weakref.ref(array)
    pending = pending_page(array, keep)
    ready = prepare(pending, spec)
    del array
    assert known() is None
    views = weakref.ref(ready)
    del ready
    assert (views() is not None) == keep  # a request that has ended holds nothing of its page


def test_a_kept_page_is_prepared_once(spec: ModelSpec, decodes: Decodes) -> None:
    array = page()
    pending = pending_page(array, keep=True)
    array[:] = 0
    first = prepare(pending, spec)
    assert prepare(pending, spec) is first
    assert len(decodes.threads) == 1
    assert first.sha256 == read_page(page()).sha256


def test_a_failure_is_raised_every_time(spec: ModelSpec, decodes: Decodes) -> None:
    pending = pending_page(b"no image", keep=True)
    for _ in range(2):
        with pytest.raises(ImageError, match="8 bytes"):
            prepare(pending, spec)
    assert len(decodes.threads) == 2


def test_the_same_file_is_not_decoded_again(spec: ModelSpec, decodes: Decodes) -> None:
    file = encoded(page(), "PNG")
    known = prepare(pending_page(file), spec)
    assert prepare(pending_page(io.BytesIO(file)), spec, known) is known
    assert len(decodes.threads) == 1


def test_the_same_pixels_are_not_resized_again(
    spec: ModelSpec, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = prepare(pending_page(encoded(page(), "PNG")), spec)
    monkeypatch.delattr(preparation, "preprocess")
    bitmap = encoded(page(), "BMP")
    again = prepare(pending_page(bitmap), spec, known)
    assert again.pixels is known.pixels
    assert (known.facts["format"], again.facts["format"]) == ("PNG", "BMP")
    assert prepare(pending_page(bitmap), spec, again) is again
    assert prepare(pending_page(page()), spec, again).data_sha256 is None
    with pytest.raises(NameError):
        prepare(pending_page(page(1)), spec, again)
    assert len(decodes.threads) == 4


def test_pixels_have_no_digest_in_common(spec: ModelSpec) -> None:
    """None is not the same file as None."""
    first, second = (prepare(pending_page(page(i)), spec) for i in range(2))
    assert prepare(pending_page(page(1)), spec, first).sha256 == second.sha256 != first.sha256


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_transparent_pixels(bundle: Path, alpha: str) -> None:
    ink = np.zeros((110, 150, 4), np.uint8)
    ink[40:50, 20:100, 3] = 255
    model = pulse_edge.load(bundle, threads=1, alpha=alpha)  # type: ignore[arg-type]
    answer = model.ask(ink, Q1, max_new_tokens=20)
    ground = 255 if alpha == "white" else 0
    drawn = np.full((110, 150, 3), ground, np.uint8)
    drawn[40:50, 20:100] = 0
    assert answer.token_ids == fresh(bundle, drawn, Q1, max_new_tokens=20).token_ids
    image = answer.provenance["image"]
    assert image["alpha"] == {"white": "white", "drop": "dropped"}[alpha]
    assert image["sha256"] == read_page(drawn).sha256
    assert model.ask(drawn, Q1, max_new_tokens=1).provenance["image"]["alpha"] == "none"


@pytest.mark.parametrize("alpha", ["black", "", "WHITE", None])
def test_an_alpha_that_there_is_not(bundle: Path, spec: ModelSpec, alpha: str) -> None:
    with pytest.raises(ParameterError, match=r"^alpha is .*, but must be white or drop$"):
        pulse_edge.load("nowhere", alpha=alpha)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="alpha"):
        Preparation(spec, alpha)  # type: ignore[arg-type]


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["decode_page", "preprocess"])
def test_low_memory_says_memory(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(preparation, step, fails)
        with pytest.raises(ImageError, match=r"ndarray: .* memory; scale it down"):
            prepare(pending_page(page()), spec)
    monkeypatch.setattr(preparation, "read_input", fails)
    with pytest.raises(ImageError, match="memory; scale it down"):
        pending_page(page())


def test_waiting_requests_hold_views_only(spec: ModelSpec) -> None:
    large = Image.fromarray(page(0, (2000, 1500)))
    ready = prepare(pending_page(large), spec)
    held = sum(value.nbytes for value in vars(ready).values() if isinstance(value, np.ndarray))
    assert held == ready.pixels.nbytes <= 4 * 3 * 56**2 * 5
    gc.collect()
    images = (each for each in gc.get_objects() if isinstance(each, Image.Image))
    assert all(image is large or image.size != (2000, 1500) for image in images)


# --- places --------------------------------------------------------------------------------------


def test_few_pages_are_decoded_at_once(spec: ModelSpec, decodes: Decodes) -> None:
    decodes.open.clear()
    with ThreadPoolExecutor(6) as pool:
        ready = pool.map(lambda i: prepare(pending_page(page(i)), spec).sha256, range(6))
        for _ in range(DECODED_AT_ONCE):
            assert decodes.reached.acquire(timeout=PATIENCE)
        assert not decodes.reached.acquire(timeout=0.05)
        decodes.open.set()
        assert list(ready) == [read_page(page(i)).sha256 for i in range(6)]
    assert decodes.most == DECODED_AT_ONCE == 2
    assert decoding_places(os.getpid()).qsize() == DECODED_AT_ONCE


def test_a_place_is_given_back_after_a_failure(spec: ModelSpec) -> None:
    for _ in range(2 * DECODED_AT_ONCE):
        with pytest.raises(ImageError):
            prepare(pending_page(b"no image"), spec)
    assert decoding_places(os.getpid()).qsize() == DECODED_AT_ONCE


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_patience_ends_while_others_decode(
    spec: ModelSpec, decodes: Decodes, timeout: float
) -> None:
    decodes.open.clear()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(prepare, pending_page(page(i)), spec) for i in range(2)]
        for _ in range(DECODED_AT_ONCE):
            assert decodes.reached.acquire(timeout=PATIENCE)
        waiting = pending_page(page(3))
        with pytest.raises(QueueTimeoutError):
            prepare(waiting, spec, timeout=timeout)
        decodes.open.set()
        assert all(other.result(PATIENCE) for other in others)
    assert prepare(waiting, spec, timeout=timeout).size == (150, 110)
    assert len(decodes.threads) == 3


def test_a_lost_place_blocks_nobody(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, decodes: Decodes
) -> None:
    """As when Ctrl-C comes in the moment in which a place is taken."""
    monkeypatch.setattr(preparation, "LOST_AFTER", 0.01)
    places = decoding_places(os.getpid())
    for _ in range(DECODED_AT_ONCE):
        places.get()
    try:
        for timeout in (None, 60):
            assert prepare(pending_page(page()), spec, timeout=timeout).size == (150, 110)
        assert places.qsize() == 0
        with pytest.raises(QueueTimeoutError):
            prepare(pending_page(page()), spec, timeout=0)
    finally:
        for _ in range(DECODED_AT_ONCE):
            places.put(None)


def test_a_cancelled_page_is_not_decoded_or_resized(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation = Cancellation()
    calls: list[str] = []

    def decode(source: PageInput, alpha: str) -> Page:
        calls.append("decode")
        cancellation.request()
        return decode_page(source)

    monkeypatch.setattr(preparation, "decode_page", decode)
    monkeypatch.delattr(preparation, "preprocess")
    for _ in range(2):
        with pytest.raises(Cancelled):
            prepare(pending_page(page()), spec, cancellation=cancellation)
    assert calls == ["decode"]


# --- in a request --------------------------------------------------------------------------------


def test_pages_are_decoded_by_who_reads(model: pulse_edge.Model, decodes: Decodes) -> None:
    stream = model.stream(page(), Q1, max_new_tokens=3)
    closed = model.stream(page(1), Q1)
    closed.close()
    assert list(closed) == []
    assert decodes.threads == []  # nothing runs before a stream is read
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(lambda: (stream.answer, threading.current_thread())[1]).result()
    assert decodes.threads == [reader]


def test_a_page_that_is_being_encoded_is_known(model: pulse_edge.Model, decodes: Decodes) -> None:
    file = encoded(page(), "PNG")
    streams = [model.stream(file, question, max_new_tokens=3) for question in (Q1, Q2, Q1)]
    next(streams[0])
    for stream in streams:
        assert stream.answer.finish_reason == "length"
    assert len(decodes.threads) == 1
    model.forget()
    assert model.ask(file, Q1, max_new_tokens=1).timings.decode_image > 0
    assert len(decodes.threads) == 2


def test_a_known_page_that_is_forgotten_before_its_turn(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request holds what the tower needs."""
    file, other = encoded(page(), "PNG"), encoded(page(1), "PNG")
    model.ask(file, Q1, max_new_tokens=1)
    begin = model.worker.begin

    def between(*request: object) -> None:
        monkeypatch.undo()
        model.forget()
        model.ask(other, Q1, max_new_tokens=1)
        begin(*request)  # type: ignore[arg-type]

    monkeypatch.setattr(model.worker, "begin", between)
    answer = model.ask(file, Q2, max_new_tokens=20)
    assert answer.token_ids == fresh(bundle, file, Q2, max_new_tokens=20).token_ids
    assert (answer.timings.decode_image, answer.timings.vision > 0) == (0, True)


def test_a_chat_decodes_its_page_once(
    bundle: Path, model: pulse_edge.Model, decodes: Decodes
) -> None:
    """Whatever is asked in between."""
    chat = model.chat(page())
    first = chat.ask(Q1, max_new_tokens=5)
    model.ask(page(1), Q1, max_new_tokens=2)
    model.forget()
    second = chat.ask(Q2, max_new_tokens=5)
    assert second.provenance["image"] == first.provenance["image"]
    assert len(decodes.threads) == 2
    assert second.timings.decode_image == second.timings.preprocess == 0 < second.timings.vision


def test_closing_while_a_page_is_decoded(
    bundle: Path, model: pulse_edge.Model, decodes: Decodes
) -> None:
    """The request never reaches the model; other readers of the stream see the end at once."""
    decodes.open.clear()
    stream = model.stream(page(), Q1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(stream))
        assert decodes.reached.acquire(timeout=PATIENCE)
        second = pool.submit(lambda: list(stream))
        stream.close()
        assert second.result(PATIENCE) == []
        decodes.open.set()
        assert first.result(PATIENCE) == []
    with pytest.raises(pulse_edge.PulseEdgeError, match="closed before it began"):
        _ = stream.answer
    assert model.engine.length == 0


def test_each_reader_of_a_page_that_fails_ends(model: pulse_edge.Model, decodes: Decodes) -> None:
    decodes.open.clear()
    stream = model.stream(b"no image", Q1)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(lambda: list(stream)) for _ in range(2)]
        assert decodes.reached.acquire(timeout=PATIENCE)
        decodes.open.set()
        errors = [reader.exception(PATIENCE) for reader in readers]
    assert sorted(type(error).__name__ for error in errors) == ["ImageError", "NoneType"]


# --- recordings ----------------------------------------------------------------------------------


def recording() -> Recording:
    """Twelve leads of noise, 10 s long, which take what limb leads they are given."""
    signals = np.random.default_rng(0).normal(0, 0.2, (12, 2500)).astype(np.float32)
    return Recording(signals, 250, LEADS, tolerance=math.inf)


def test_a_recording_is_drawn_when_its_page_is_prepared(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it is handed in, and within the stage that timings and deadlines count."""
    stages: list[str] = []
    draw = drawing.draw_page

    class Clock(Stopwatch):
        @contextmanager
        def stage(self, name: str) -> Iterator[None]:
            stages.append(name)
            yield
            stages.append(f"{name} ends")

    def noted(drawn: Recording, *how: Any) -> Image.Image:
        stages.append("draw")
        return draw(drawn, *how)

    monkeypatch.setattr(drawing, "draw_page", noted)
    pending = pending_page(recording())
    assert stages == []
    ready = pending.prepare(Preparation(spec), None, Clock(), Patience(None), Cancellation())
    assert stages == [
        *("decode_image", "draw", "decode_image ends", "preprocess", "preprocess ends"),
    ]
    assert ready.sha256 == read_page(draw(recording())).sha256
    assert ready.data_sha256 is None


def test_a_cancelled_recording_is_not_drawn(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw_page", None)
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        prepare(pending_page(recording()), spec, cancellation=cancellation)


def test_later_changes_do_not_reach_a_recording_that_is_kept(spec: ModelSpec) -> None:
    own = recording()
    pending = pending_page(own, keep=True)
    own.signals[:] = 0
    assert prepare(pending, spec).sha256 == read_page(recording()).sha256


@pytest.mark.parametrize("seconds", [0.02, 0.2])
def test_a_deadline_ends_the_wait_for_a_drawing(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    go = threading.Event()
    draw = drawing.draw_page

    def slow(drawn: Recording, *how: Any) -> Image.Image:
        assert go.wait(PATIENCE)
        return draw(drawn, *how)

    monkeypatch.setattr(drawing, "draw_page", slow)
    answer = model.ask(recording(), Q1, deadline_s=seconds, best_effort=True)
    assert answer.finish_reason == "deadline"
    assert answer.deadline is not None
    assert answer.deadline.skipped[0] == "decode_image"
    assert answer.timings.vision == 0
    go.set()


def test_a_closed_stream_does_not_wait_for_a_drawing(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, go = threading.Event(), threading.Event()
    draw = drawing.draw_page

    def slow(one: Recording, *how: Any) -> Image.Image:
        drawn.set()
        assert go.wait(PATIENCE)
        return draw(one, *how)

    monkeypatch.setattr(drawing, "draw_page", slow)
    stream = model.stream(recording(), Q1, max_new_tokens=4)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(next, stream, None)
        assert drawn.wait(PATIENCE)
        stream.close()
        go.set()
        assert reader.result(PATIENCE) is None
    assert not model.worker.unfinished
    monkeypatch.undo()
    assert model.ask(page(), Q1, max_new_tokens=9).token_ids == (
        fresh(bundle, page(), Q1, max_new_tokens=9).token_ids
    )


@pytest.mark.parametrize("leads", [("X1", "X2"), ("V7", "V8", "V9"), ("pleth",)])
def test_a_recording_without_leads_to_draw_is_refused_when_it_is_drawn(
    spec: ModelSpec, leads: tuple[str, ...]
) -> None:
    signals = np.zeros((len(leads), 500), np.float32)
    signals[:, ::50] = 1
    pending = pending_page(Recording(signals, 250, leads, source="ward.ecg"))
    with pytest.raises(RecordingError, match=r"^ward\.ecg: "):
        prepare(pending, spec)
