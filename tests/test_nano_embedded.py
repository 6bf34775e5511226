"""The embedded model, and the accuracy gate that runs on any bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.assets import EMBEDDED, RATE_QUESTION, REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.simulation.questions import NO_ECG, number_before, parse_report

PROGRAM = Path(sys.executable).parent / "pulse-edge"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in (PROGRAM, *arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def model() -> pulse_edge.Model:
    return pulse_edge.load()


def test_sample_page_is_read_rightly(model: pulse_edge.Model) -> None:
    """The page was simulated as sinus rhythm at 74 beats a minute with right bundle branch block."""
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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_eval_scores_a_bundle(workers: str) -> None:
    """A handful of pages; the trained model must be far from chance (one in seven) on the rhythm."""
    done = run("eval", "--pages", "12", "--workers", workers, "--json")
    report = json.loads(done.stdout)
    assert report["pages"] == 12
    (scores,) = report["scores"].values()
    assert scores["rhythm, macro recall"]["value"] > 0.5
    assert 0 <= scores["mean of the tasks"]["value"] <= 1
    (counts,) = report["confusion"].values()
    assert np.sum(counts["rhythm"]) == 12


def test_eval_refuses_two_bundles_of_one_name(tmp_path: Path) -> None:
    done = run("eval", str(EMBEDDED), str(tmp_path / EMBEDDED.name))
    assert done.returncode == 2
    assert "different names" in done.stderr
