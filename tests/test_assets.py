"""The embedded model reads the sample page, and is what its card says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.assets import EMBEDDED, RATE_QUESTION, REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.simulation.questions import NO_ECG, number_before, parse_report


@pytest.fixture(scope="module")
def model() -> pulse_edge.Model:
    return pulse_edge.load()


def test_sample_page_is_read_rightly(model: pulse_edge.Model) -> None:
    """The page was simulated as sinus rhythm at 74 beats a minute with right bundle
    branch block.
    """
    found = parse_report(model.ask(SAMPLE_PAGE, REPORT_QUESTION).text)
    assert found is not None
    assert found.rhythm == "sinus rhythm"
    assert abs(found.rate - 74) <= 5
    assert found.conduction == ("right bundle branch block",)
    rate = number_before(model.ask(SAMPLE_PAGE, RATE_QUESTION).text, "bpm")
    assert rate is not None
    assert abs(rate - 74) <= 5


def test_blank_page_and_noise_are_refused(model: pulse_edge.Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    for image in (Image.new("RGB", (1100, 850), "white"), Image.fromarray(noise)):
        assert model.ask(image, RATE_QUESTION).text == NO_ECG


def test_it_is_what_the_card_says() -> None:
    manifest = json.loads((EMBEDDED / "manifest.json").read_text())
    assert manifest["checkpoint"]["name"] == "pulse-nano"
    assert manifest["precision"]["name"] == "int8"
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 12e6
