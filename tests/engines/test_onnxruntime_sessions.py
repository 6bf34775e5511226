"""Sessions whose weights several threads pack compute what they compute packed by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pulse_edge.arrays import Floats
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.onnxruntime import OnnxRuntimeEngine
from pulse_edge.engines.onnxruntime_providers import PROVIDERS
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine

from support.fixture_types import Bundles

PARALLEL = "session.prepack.enable_parallel"


def outputs(engine: Engine) -> list[Floats]:
    """Features of a page, and logits of a prompt and of steps of one row and of several."""
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((2, 3, 56, 56), dtype=np.float32)
    tokens = rng.integers(3, 500, 24)
    return [
        np.asarray(engine.encode(pixels)),
        engine.prefill(engine.rows(tokens[:16])).copy(),
        engine.step(engine.rows(tokens[16:17])).copy(),
        engine.step(engine.rows(tokens[17:])).copy(),
    ]


@pytest.mark.parametrize(
    ("precision", "block_size", "target"),
    [
        ("fp32", None, "cpu"),
        ("int8", None, "cpu"),
        ("int4", 32, "cpu"),
        ("int4", 64, "cpu"),
        ("w8a8", None, "cpu"),
        ("fp32", None, "standard"),
    ],
)
def test_weights_packed_by_several_threads_give_the_same_bytes(
    bundles: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    block_size: int | None,
    target: str,
) -> None:
    bundle = open_bundle(bundles(precision, block_size, target))
    options = EngineOptions("cpu", threads=2, context=32)
    together = outputs(open_engine(bundle, options))
    alone = replace(PROVIDERS["cpu"], config={PARALLEL: "0"})
    monkeypatch.setitem(PROVIDERS, "cpu", alone)
    for got, expected in zip(together, outputs(open_engine(bundle, options)), strict=True):
        assert np.isfinite(got).all()
        assert got.std() > 0
        assert got.tobytes() == expected.tobytes()


def test_several_threads_pack_the_weights(bundle: Path) -> None:
    engine = open_engine(open_bundle(bundle), EngineOptions("cpu", threads=2))
    assert isinstance(engine, OnnxRuntimeEngine)
    settings = engine.session.get_session_options()
    assert settings.get_session_config_entry(PARALLEL) == "1"
    assert settings.intra_op_num_threads == 2
    assert PARALLEL not in PROVIDERS["cuda"].config
