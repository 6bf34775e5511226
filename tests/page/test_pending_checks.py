"""Checks that run beside the request."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest
from PIL import Image

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.page import pending_checks
from pulse_edge.page.pending_checks import PendingChecks
from pulse_edge.page.preflight import check_page


@pytest.fixture
def spec(bundle: Path) -> ModelSpec:
    return open_bundle(bundle).manifest.model


def test_they_are_those_of_the_page(spec: ModelSpec) -> None:
    image = Image.new("RGB", (300, 200), "white")
    assert PendingChecks(image, spec).result() == check_page(image, spec)


def test_the_page_is_let_go(spec: ModelSpec) -> None:
    image = Image.new("RGB", (300, 200), "white")
    gone = weakref.ref(image)
    checks = PendingChecks(image, spec)
    checks.release_page()
    del image
    gc.collect()
    assert gone() is None


def test_an_answer_survives_checks_that_fail(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(pending_checks, "look_over", fail)
    checks = PendingChecks(Image.new("RGB", (30, 20)), spec)
    checks.release_page()
    assert checks.result() == ()


def test_a_thread_that_cannot_start_leaves_no_checks(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    checks = PendingChecks(Image.new("RGB", (30, 20)), spec)
    checks.release_page()
    assert checks.result() == ()
