"""Decode steps of several sequences: the changed graph against the exported one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.batching import requests
from benchmarks.batching.__main__ import main, points
from benchmarks.batching.graph import batched_decoder
from benchmarks.batching.steps import BatchedSteps
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine

from support.fixture_types import Bundles

DEPTH = 9


@pytest.fixture(params=["fp32", "int8", "int4"])
def bundle_path(request: pytest.FixtureRequest, bundles: Bundles) -> Path:
    return bundles(request.param, 32) if request.param == "int4" else bundles(request.param)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_each_sequence_gets_the_logits_it_gets_alone(bundle_path: Path, batch: int) -> None:
    steps = BatchedSteps(open_bundle(bundle_path), 1, sequences=3, rows=DEPTH + 1, seed=0)
    _, alone = zip(*(steps(i, 1, DEPTH) for i in range(3)), strict=True)
    for first in range(4 - batch):
        seconds, together = steps(first, batch, DEPTH)
        assert seconds > 0
        expected = np.concatenate(alone[first : first + batch])
        np.testing.assert_allclose(together, expected, atol=0.02 * float(expected.std()))
        assert (together.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert not np.allclose(alone[0], alone[1]), "sequences differ"


def test_an_empty_cache_gives_the_engines_logits(bundles: Bundles) -> None:
    """At depth 0 the cache's random numbers are not read."""
    bundle = open_bundle(bundles("fp32"))
    steps = BatchedSteps(bundle, 1, sequences=2, rows=4, seed=0)
    _, together = steps(0, 2, 0)
    engine = open_engine(bundle, EngineOptions("cpu", 1))
    for row, logits in zip(steps.rows, together, strict=True):
        engine.rewind(0)
        np.testing.assert_allclose(engine.step(row)[0], logits, rtol=1e-4, atol=1e-4)


def test_without_the_head_the_graph_is_smaller(bundles: Bundles) -> None:
    graph = open_bundle(bundles("int8")).read(DECODER_GRAPH)
    whole, body = (batched_decoder(graph, head=head) for head in (True, False))
    assert b"lm_head" in whole
    assert b"lm_head" not in body


def test_other_targets_are_refused(bundles: Bundles) -> None:
    graph = open_bundle(bundles("fp32", target="standard")).read(DECODER_GRAPH)
    with pytest.raises(ValueError, match="for the CPU"):
        batched_decoder(graph, head=True)


def test_gains_of_known_times() -> None:
    """A batch of 4 takes twice as long: 2 times the tokens. The head takes 0.2 of 1.2."""
    seconds = {
        (1, 5, True): [1.2, 1.4],
        (1, 5, False): [1.0, 1.0],
        (4, 5, True): [2.4, 3.0],
        (4, 5, False): [2.0, 2.0],
    }
    one, four = points(seconds, [1, 4], [5], layers=2, whole=32)
    assert one["step_gain_min"] == one["whole_gain_min"] == 1
    assert four["step_gain_min"] == pytest.approx(2)
    assert one["whole_min"] == pytest.approx(1.2 + 15 * 1.0)
    assert four["whole_gain_min"] == pytest.approx(4 * 16.2 / 32.4)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command(tmp_path: Path, bundles: Bundles) -> None:
    file = tmp_path / "batching.jsonl"
    options = ("--batches", "1,2", "--depths", "3,8", "--threads", 1, "--repetitions", 2)
    done = run(bundles("int8"), *options, "--append", file)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert [(p["depth"], p["batch"]) for p in record["points"]] == [(3, 1), (3, 2), (8, 1), (8, 2)]
    assert all(p["count"] == 2 for p in record["points"])
    assert [a["same_tokens"] for a in record["agreement"]] == [2, 2]
    assert "gain" in done.output


@pytest.mark.parametrize("batches", ["", "0", "x", "1,-2"])
def test_batches_that_cannot_be(batches: str, bundles: Bundles) -> None:
    assert run(bundles("int8"), "--batches", batches).exit_code == 2


def test_requests_at_the_same_time(tmp_path: Path, bundles: Bundles) -> None:
    file = tmp_path / "requests.jsonl"
    words = ["--counts", "1,3", "--tokens", "5", "--threads", "1", "--repetitions", "2"]
    arguments = [str(bundles("fp32")), *words, "--append", str(file)]
    done = CliRunner().invoke(requests.main, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert [p["requests"] for p in record["points"]] == [1, 3]
    assert [p["answers"] for p in record["points"]] == [2, 6]
    assert all(p["equal_answers"] == p["answers"] for p in record["points"])
    assert record["engine"]["slots"] == 3
    first = record["points"][0]
    assert first["rate_gain_max"] == first["cpu_rate_gain_median"] == 1
    assert "tokens/CPU s" in done.output
