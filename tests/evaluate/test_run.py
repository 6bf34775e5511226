"""The accuracy gate as a command, on the embedded model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.assets import EMBEDDED

from support.paths import PROGRAM


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in (PROGRAM, *arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_eval_scores_a_bundle(workers: str) -> None:
    """A handful of pages; the trained model must be far from chance (one in seven) on
    the rhythm.
    """
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
