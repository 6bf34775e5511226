"""Checks that run beside the request."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
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


SLOW_CHECKS = """
import atexit, os, sys, time
from PIL import Image

def late():
    print(checks.PendingChecks(image, None).result(), flush=True)

atexit.register(late)  # before the module's own, so it runs after that
from pulse_edge.page import pending_checks as checks

checks.look_over = lambda image: time.sleep(0.5)
checks.check_looks = lambda looks, model: print("checked", flush=True) or ()
image = Image.new("RGB", (9, 9))
checks.PendingChecks(image, None)
"""


def run_python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_the_interpreter_waits_for_checks_and_begins_no_more() -> None:
    """A thread that comes back after its exit would be ended within C++, which aborts."""
    assert run_python(SLOW_CHECKS) == "checked\n()\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    fork = """
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    assert run_python(SLOW_CHECKS + fork) == "()\n7\nchecked\n()\n"
