"""The token that a bundle is expected to say first: recorded where it is clear, and right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fixture_types import Bundles, Checkpoints

pytest.importorskip("onnx", "1.19", reason="opset 24 is written by onnx 1.19 and newer")

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import TOKENIZER, ExpectedToken
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError
from pulse_edge.text.template import PromptBuilder, prompt_rows
from pulse_export import self_test
from pulse_export.pipeline import export
from pulse_export.self_test import CLEAR, clear_choice, expected_token


@pytest.fixture
def every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models decide nothing clearly."""
    monkeypatch.setattr(self_test, "CLEAR", 0.0)


def first_token(bundle: Bundle, question: str) -> int:
    """What a bundle says first, one position after the other."""
    engine = open_engine(bundle, EngineOptions(device="cpu", threads=1))
    prompts = PromptBuilder.of(bundle.manifest.model, bundle.read(TOKENIZER))
    ids = prompts.first_turn(question, image=False)
    rows = engine.rows(prompt_rows(ids, None))
    for row in rows[:-1]:
        engine.step(row[None])
    return int(np.asarray(engine.step(rows[-1:]))[0].argmax())


@pytest.mark.usefixtures("every_choice")
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_token_is_what_the_bundle_says_first(bundles: Bundles, precision: str) -> None:
    bundle = open_bundle(bundles(precision))
    expected = expected_token(bundle)
    assert expected is not None
    assert expected.question == self_test.QUESTIONS[0]
    assert expected.token == first_token(bundle, expected.question)


@pytest.mark.usefixtures("every_choice")
def test_an_export_records_it_if_asked_to_and_the_seal_covers_it(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    export(checkpoints(), tmp_path / "plain")
    assert open_bundle(tmp_path / "plain").manifest.self_test is None
    export(checkpoints(), tmp_path / "tested", self_test=True)
    opened = open_bundle(tmp_path / "tested")
    assert opened.manifest.self_test is not None
    assert opened.manifest.self_test == expected_token(opened)
    assert opened.manifest.sealed() == opened.manifest
    other = replace(opened.manifest, self_test=ExpectedToken("Why?", 7)).sealed()
    assert other.seal != opened.manifest.seal


@pytest.mark.usefixtures("every_choice")
def test_bundles_for_other_devices_record_nothing(bundles: Bundles) -> None:
    opened = open_bundle(bundles())
    for target in ("cuda", "standard"):
        manifest = replace(opened.manifest, target=target)
        assert expected_token(replace(opened, manifest=manifest)) is None
    precision = replace(opened.manifest.precision, decoder="w8a8")
    manifest = replace(opened.manifest, precision=precision)
    assert expected_token(replace(opened, manifest=manifest)) is None


@pytest.mark.usefixtures("every_choice")
def test_nothing_is_recorded_without_memory_or_engine(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundles())
    monkeypatch.setattr(self_test, "available_memory", lambda: int(2.4 * opened.size))
    assert expected_token(opened) is None
    monkeypatch.setattr(self_test, "available_memory", lambda: int(2.6 * opened.size))
    assert expected_token(opened) is not None

    def missing(*_: Any) -> None:
        raise EngineError("onnxruntime is not installed")

    monkeypatch.setattr(self_test, "open_engine", missing)
    assert expected_token(opened) is None


def test_the_first_question_with_a_clear_answer_is_taken(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundles())
    choices = iter([None, None, 7, 8])
    monkeypatch.setattr(self_test, "clear_choice", lambda _: next(choices))
    assert expected_token(opened) == ExpectedToken(self_test.QUESTIONS[2], 7)
    monkeypatch.setattr(self_test, "clear_choice", lambda _: None)
    assert expected_token(opened) is None


@pytest.mark.parametrize(
    ("lead", "clear"), [(0.0, False), (0.1, False), (0.2, False), (0.4, True), (3.0, True)]
)
def test_a_choice_is_clear_if_it_leads(lead: float, clear: bool) -> None:
    """`lead` in deviations of the logits; the bar is `CLEAR`."""
    logits = np.tile(np.array([-1, 1], np.float32), 500)
    logits[77] = 1 + lead
    assert CLEAR == 0.25
    assert clear_choice(logits) == (77 if clear else None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_clear_choice(value: float) -> None:
    logits = np.linspace(0, 1, 100, dtype=np.float32)
    logits[3:5] = value
    with np.errstate(invalid="ignore"):
        assert clear_choice(logits) is None
