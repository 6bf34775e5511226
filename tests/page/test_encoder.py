"""Features of pages: the tower runs once for a page, and pages are told apart by their digest."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines.options import EngineOptions
from pulse_edge.page import preparation
from pulse_edge.page.encoder import PageEncoder
from pulse_edge.page.source import Page, PageInput, decode_page
from pulse_edge.page.tokens import image_rows

from support.requests import Q1, Q2, fresh, page, prepared
from support.spy import Spy


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle)


@pytest.fixture
def spy(opened: Bundle) -> Spy:
    return Spy(opened, EngineOptions(threads=1))


@pytest.fixture
def encoder(opened: Bundle, spy: Spy) -> PageEncoder:
    engine: Any = spy
    return PageEncoder(opened.manifest.model, engine)


def clock(_: str) -> nullcontext[None]:
    return nullcontext()


def test_features_and_tokens_of_a_page(opened: Bundle, spy: Spy, encoder: PageEncoder) -> None:
    spec = opened.manifest.model
    ready = prepared(page(), spec)
    told: list[tuple[str, int, int]] = []
    features = encoder.encode(ready, clock, lambda *step: told.append(step))
    assert told == [("vision", 0, 5), ("vision", 5, 5)]
    assert np.array_equal(features, spy.engine.encode(ready.pixels))
    seen = encoder.place(ready)
    rows = image_rows(5, (150, 110), spec, spy.engine.table_rows)
    assert np.array_equal(seen.tokens, rows)
    assert seen.record == ready.facts | {"views": 5, "tokens": len(rows)}


def test_views_that_run_one_by_one_are_told_one_by_one(
    opened: Bundle, spy: Spy, encoder: PageEncoder
) -> None:
    ready = prepared(page(), opened.manifest.model)
    told: list[str] = []
    features = encoder.encode(
        ready,
        clock,
        lambda stage, amount, total: told.append(f"{stage} {amount}/{total}"),
        between=lambda: told.append("between"),
    )
    assert told == ["vision 0/5", "vision 1/5", *["between", "vision 1/5"] * 4]
    assert len(spy.calls) == 5
    assert np.array_equal(features, spy.engine.encode(ready.pixels)), "to the same bits"


@pytest.mark.parametrize("views", [1, 2, 5])
def test_features_that_stay_on_a_device_are_those_of_one_call(
    opened: Bundle, spy: Spy, encoder: PageEncoder, views: int
) -> None:
    whole: list[int] = []
    encode = spy.engine.encode

    class OnDevice:
        """What a device keeps of one call."""

    def on_device(pixels: Any, _: Any = None) -> Any:
        whole.append(len(pixels))
        encode(pixels)
        return OnDevice()

    ready = prepared(page(), opened.manifest.model)
    ready = dataclasses.replace(ready, pixels=ready.pixels[:views])
    told: list[tuple[str, int, int]] = []
    vars(spy)["encode"] = on_device
    features = encoder.encode(ready, clock, lambda *step: told.append(step), between=lambda: None)
    assert isinstance(features, OnDevice)
    assert whole[-1] == views
    assert told == [("vision", 0, views), ("vision", views, views)]


def test_recent_pages_are_not_encoded_again(opened: Bundle, spy: Spy, encoder: PageEncoder) -> None:
    first, second, third = (prepared(page(i), opened.manifest.model) for i in range(3))
    seen = encoder.encode(first, clock)
    assert encoder.page is first
    same = dataclasses.replace(first, facts=first.facts | {"format": "other"})
    assert encoder.encode(same, clock) is seen
    assert encoder.page is same
    assert encoder.place(same).record["format"] == "other"
    encoder.encode(second, clock)
    assert encoder.encode(first, clock) is seen
    assert [encoder.views_to_run(ready) for ready in (first, second, third)] == [0, 0, 5]
    encoder.encode(third, clock)  # the second one was used longer ago
    assert encoder.encode(first, clock) is seen
    encoder.encode(second, clock)
    assert len(spy.calls) == 4
    encoder.forget()
    assert encoder.page is None
    assert encoder.encode(first, clock) is not seen
    assert len(spy.calls) == 5


def test_an_engine_may_keep_the_last_page_only(
    opened: Bundle, spy: Spy, encoder: PageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (prepared(page(i), opened.manifest.model) for i in range(2))
    monkeypatch.setattr(spy, "encode", lambda pixels, _: [spy.engine.encode(pixels)])
    seen = encoder.encode(first, clock)
    assert encoder.encode(first, clock) is seen
    encoder.encode(second, clock)
    assert encoder.views_to_run(first) == 5
    assert encoder.encode(first, clock) is not seen


def test_a_page_that_was_cancelled_is_not_remembered(
    opened: Bundle, spy: Spy, encoder: PageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (prepared(page(i), opened.manifest.model) for i in range(2))
    before = encoder.encode(first, clock)
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        encoder.encode(second, clock, None, cancellation)
    assert encoder.views_to_run(second) == 5
    assert encoder.encode(first, clock) is before
    assert len(spy.calls) == 2


def test_keys_are_negative_and_hold_the_whole_digest(opened: Bundle, encoder: PageEncoder) -> None:
    ready = prepared(page(), opened.manifest.model)
    digests = ["0" * 64, "0" * 63 + "1", "f" * 64, "f" * 63 + "e", "0" * 15 + "1" + "0" * 48]
    keys = [encoder.place(dataclasses.replace(ready, sha256=digest)).key for digest in digests]
    assert keys == [-1, -2, -(2**256), 1 - 2**256, -1 - 16**48]


@pytest.mark.parametrize("length", [16, 63])
def test_pages_whose_digests_begin_alike_are_different_pages(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Neither the features nor the cache of one serve the other."""
    true = fresh(bundle, page(1), Q1)

    def forged(source: PageInput, alpha: str) -> Page:
        decoded = decode_page(source)
        digest = "ab" * 32
        return dataclasses.replace(decoded, sha256=digest[:length] + decoded.sha256[length:])

    monkeypatch.setattr(preparation, "decode_page", forged)
    model.ask(page(), Q1, max_new_tokens=40)
    answer = model.ask(page(1), Q1, max_new_tokens=40)
    assert answer.usage.cached_tokens < 80
    assert answer.token_ids == true.token_ids
    chats = [model.chat(page(i)) for i in range(2)]
    for chat in chats:
        chat.ask(Q1, max_new_tokens=5)
    monkeypatch.undo()
    other = pulse_edge.load(bundle, threads=1).chat(page())
    other.ask(Q1, max_new_tokens=5)
    assert chats[0].ask(Q2, max_new_tokens=20).token_ids == (
        other.ask(Q2, max_new_tokens=20).token_ids
    )
