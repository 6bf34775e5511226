"""Engine `native` as a whole: on a stand-in for CUDA, with kernels in emulation."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.tensors import TENSORS
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.native import check
from pulse_edge.engines.native.engine import NativeEngine, open_checked, open_engine
from pulse_edge.engines.native.weights import why_not
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import choose_engine
from pulse_edge.engines.registry import open_engine as open_any_engine
from pulse_edge.engines.table import BUILT_IN
from pulse_edge.errors import EngineError

from support.emulated_executor import EmulatedExecutor, emulated_engine
from support.emulation import Kind, Workshop
from support.fake_cuda import FakeCuda
from support.fixture_types import Bundles

Opened = tuple[NativeEngine, EmulatedExecutor]


def on_gpu(bundle: Bundle, engine: str = "native", **options: Any) -> NativeEngine:
    return open_engine(bundle, EngineOptions(device="cuda", engine=engine, **options))


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 512, count)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    difference = np.linalg.norm(got - expected, axis=-1)
    return float((difference / np.linalg.norm(expected, axis=-1)).max())


# ---- opened on the stand-in for CUDA -------------------------------------------------------------


def test_it_is_checked_and_closed(cuda: FakeCuda, opened: Bundle) -> None:
    engine = on_gpu(opened)
    described = engine.describe()
    assert described["engine"] == "native"
    native = described["native"]
    assert 0 < native["self_check"]["error"] < native["self_check"]["bound"] == check.BOUND
    assert native["architecture"] == "sm90"
    assert native["gpu"] == "Fake GPU"
    assert native["launches"]["1 row"]["qkv"].endswith("CTAs")
    assert native["launches"]["8 rows"].keys() >= {"attention", "gate_up", "head"}
    assert native["device_memory"] > 0
    assert engine.length == 0
    assert cuda.early > 0
    assert not cuda.fault
    del engine
    gc.collect()
    assert cuda.leaks() == ""


def test_no_early_start_before_capability_9(cuda: FakeCuda, opened: Bundle) -> None:
    cuda.capability = 86
    assert on_gpu(opened).details["architecture"] == "sm86"
    assert cuda.early == 0


def test_a_cache_of_bytes(cuda: FakeCuda, opened: Bundle) -> None:
    """It is filled after a prompt; the check allows for its rounding."""
    cuda.kind = Kind.READ_EARLY  # of allocations: steps may read the cache early
    options = EngineOptions(device="cuda", engine="native")
    engine = open_checked(opened, options, byte_cache=True)
    verdict = engine.details["self_check"]
    assert verdict["error"] < verdict["bound"] == check.BYTE_BOUND


@pytest.mark.parametrize(
    "call",
    [
        "cuInit",
        "cuDevicePrimaryCtxRetain",
        "cuStreamCreate",
        "cuMemAlloc",
        "cuMemcpyHtoDAsync",
        "cuModuleLoadData",
        "cuFuncSetAttribute",
        "cuMemAllocHost",
        "cuLaunchKernelEx",
        "cuStreamBeginCapture",
        "cuGraphInstantiate",
        "cuGraphLaunch",
        "cuStreamSynchronize",
    ],
)
def test_a_call_that_fails(cuda: FakeCuda, opened: Bundle, call: str) -> None:
    """The error names it, and nothing stays allocated."""
    cuda.failing = call
    with pytest.raises(EngineError, match=f"^{call} failed: CUDA_ERROR_INVALID_VALUE"):
        on_gpu(opened)
    gc.collect()
    assert cuda.leaks() == ""


def test_a_failed_capture_ends(cuda: FakeCuda, opened: Bundle) -> None:
    """A launch fails amid a capture: the stream can be used again."""
    engine = on_gpu(opened)
    engine.prefill(tokens(10))
    cuda.fails_after("cuLaunchKernelEx", 5 * 2 + 3 + 4)
    with pytest.raises(EngineError, match="cuLaunchKernelEx"):
        engine.step(tokens(5))  # of a shape that the check has not captured
    assert engine.length == 10
    expected = engine.step(tokens(5)).copy()
    engine.rewind(10)
    assert np.array_equal(engine.step(tokens(5)), expected)
    assert not cuda.fault


def test_no_memory(cuda: FakeCuda, opened: Bundle) -> None:
    cuda.free = 1000
    with pytest.raises(EngineError, match=r"no memory for .* GB: .* lower --context"):
        on_gpu(opened)
    gc.collect()
    assert cuda.leaks() == ""


def test_other_logits_than_onnx_runtimes(
    cuda: FakeCuda, opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by name it fails; chosen by `auto` it falls back, and says so."""
    monkeypatch.setattr(check, "STEPS", (2,))
    wrong = "pulse_edge.engines.native.weights.scaled_gain"
    monkeypatch.setattr(wrong, lambda gain: ((gain * 1.1).astype(np.float16), 1.0))
    with pytest.raises(EngineError, match=r"other logits than ONNX Runtime.*--engine onnxruntime"):
        on_gpu(opened)
    gc.collect()
    assert cuda.leaks() == ""
    # Not `pytest.warns`, which misses what is told while another thread ignores warnings.
    told: list[str] = []
    monkeypatch.setattr(
        "pulse_edge.engines.native.engine.warn", lambda text, **_: told.append(text)
    )
    engine = on_gpu(opened, engine="auto")
    assert "decodes instead of our kernels: engine native gives" in told[0]
    described = engine.describe()
    assert described["engine"] == "onnxruntime"
    assert "other logits" in described["native"]["unused"]
    assert engine.row_cost == engine.base.row_cost
    engine.prefill(tokens(9))
    assert engine.choose(tokens(3)).shape == (3,)
    assert engine.step(tokens(1)).shape == (1, 512)
    assert engine.length == 13


def test_no_driver(cuda: FakeCuda, opened: Bundle) -> None:
    def missing(_: int) -> None:
        raise RuntimeError("libcuda.so.1 is not there")

    cuda.driver.cuInit = missing
    with pytest.raises(EngineError, match=r"no NVIDIA driver here .*libcuda"):
        on_gpu(opened)


def test_no_cuda_python(monkeypatch: pytest.MonkeyPatch, opened: Bundle) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"pip install 'pulse-edge\[native\]'"):
        on_gpu(opened)


# ---- which bundles -------------------------------------------------------------------------------


def test_bundles_that_the_kernels_cannot_run(bundles: Bundles, bundle: Path) -> None:
    assert "exported for cpu" in str(why_not(open_bundle(bundle)))
    odd = open_bundle(bundles("int4", 32, "cuda"))  # a width of 64, heads of 16
    assert why_not(odd) == "heads of 16 numbers; the kernels have 32, 64 and 128"
    with pytest.raises(EngineError, match=r"engine native cannot run .*heads of 16"):
        on_gpu(odd)


def test_bundles_of_older_versions(opened: Bundle) -> None:
    files = tuple(f for f in opened.manifest.files if f.path != TENSORS)
    older = Bundle(opened.path, replace(opened.manifest, files=files))
    with pytest.raises(EngineError, match="older pulse-edge; export the checkpoint again"):
        on_gpu(older)


def test_auto_takes_it_where_it_was_measured(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in BUILT_IN if row.name == "native")
    options = EngineOptions()
    assert choose_engine(opened, options)[0].name == "onnxruntime"
    rows = tuple(replace(r, auto_on=(90,)) if r is row else r for r in BUILT_IN)
    monkeypatch.setattr("pulse_edge.engines.registry.BUILT_IN", rows)
    capability = "pulse_edge.engines.cuda_driver.compute_capability"
    for here, chosen in ((90, "native"), (86, "onnxruntime"), (None, "onnxruntime")):
        monkeypatch.setattr(capability, lambda here=here: here)
        assert choose_engine(opened, options)[0].name == chosen


def test_auto_tells_the_engine_that_it_was_not_asked_for(
    cuda: FakeCuda, opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in BUILT_IN if row.name == "native")
    rows = tuple(replace(r, auto_on=(90,)) if r is row else r for r in BUILT_IN)
    monkeypatch.setattr("pulse_edge.engines.registry.BUILT_IN", rows)
    monkeypatch.setattr("pulse_edge.engines.cuda_driver.compute_capability", lambda: 90)
    cuda.failing = "cuStreamCreate"
    told: list[str] = []
    monkeypatch.setattr(
        "pulse_edge.engines.native.engine.warn", lambda text, **_: told.append(text)
    )
    engine = open_any_engine(opened, EngineOptions())
    assert "cuStreamCreate failed" in told[0]
    assert engine.describe()["engine"] == "onnxruntime"


# ---- steps, over an executor that runs at once ---------------------------------------------------


@pytest.fixture(scope="module")
def shared(workshop: Workshop, decoder: Path) -> Opened:
    return emulated_engine(open_bundle(decoder), workshop)


@pytest.fixture
def engine(shared: Opened) -> Iterator[NativeEngine]:
    shared[0].reset()
    yield shared[0]
    shared[1].failure = None


@pytest.fixture(scope="module")
def reference(decoder: Path) -> Engine:
    return open_any_engine(open_bundle(decoder), EngineOptions(device="cpu"))


def test_steps_and_prompts_in_turns(engine: NativeEngine, reference: Engine) -> None:
    """More rows than the kernels take go to ONNX Runtime, which reads what they wrote."""
    x = tokens(96)
    reference.reset()
    for one in (engine, reference):
        one.prefill(x[:20])
    at = 20
    for rows in (1, 9, 8, 1, 3, 12, 1):
        part = x[at : at + rows]
        assert error(engine.step(part).copy(), reference.step(part).copy()) < check.BOUND
        at += rows
        assert engine.length == reference.length == at
    logits = [one.prefill(x[at : at + 7]).copy() for one in (engine, reference)]
    assert error(*logits) < check.BOUND


def test_one_graph_for_each_number_of_rows(shared: Opened, engine: NativeEngine) -> None:
    executor = shared[1]
    x = tokens(60)
    engine.prefill(x[:10])
    engine.choose(x[10:12])
    graphs = executor.graphs
    replays = executor.replays
    for at in range(12, 20, 2):
        engine.choose(x[at : at + 2])
    engine.step(x[20:22])
    assert executor.graphs == graphs
    assert executor.replays == replays + 5


def test_choices_are_the_largest_logits(engine: NativeEngine) -> None:
    x = tokens(40)
    engine.prefill(x[:10])
    for rows in (1, 3):
        for _ in range(2):  # run, replayed
            chosen = engine.choose(x[10 : 10 + rows])
            engine.rewind(10)
            assert chosen.tolist() == engine.step(x[10 : 10 + rows]).argmax(1).tolist()
            engine.rewind(10)


def test_rewound_drafts_leave_nothing(engine: NativeEngine) -> None:
    x = tokens(40)
    engine.prefill(x[:10])
    expected = engine.step(x[10:12]).copy()
    engine.rewind(10)
    engine.step(tokens(8, seed=1))
    engine.rewind(10)
    assert np.array_equal(engine.step(x[10:12]), expected)


def test_a_full_cache(engine: NativeEngine) -> None:
    x = tokens(96)
    engine.prefill(x[:94])
    with pytest.raises(EngineError, match="97 tokens do not fit a cache of 96"):
        engine.step(x[:3])
    assert engine.length == 94
    engine.step(x[:2])
    assert engine.length == engine.capacity == 96


@pytest.mark.parametrize("failure", [EngineError("cuGraphLaunch failed"), KeyboardInterrupt()])
def test_a_step_that_fails(shared: Opened, engine: NativeEngine, failure: BaseException) -> None:
    """The length stays, and the step can be repeated."""
    x = tokens(40)
    engine.prefill(x[:10])
    expected = engine.step(x[10:12]).copy()
    engine.rewind(10)
    shared[1].failure = failure
    with pytest.raises(type(failure)):
        engine.step(x[10:12])
    assert engine.length == 10
    assert np.array_equal(engine.step(x[10:12]), expected)


def test_a_cancelled_prompt(engine: NativeEngine) -> None:
    engine.prefill(tokens(10))
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        engine.prefill(tokens(20), cancellation=cancellation)
    assert engine.length == 10


def test_rows_and_slots_that_do_not_fit(engine: NativeEngine) -> None:
    with pytest.raises(ValueError, match="shape"):
        engine.step(np.zeros((2, 128), np.float16))
    with pytest.raises(ValueError, match="slot"):
        engine.choose(tokens(2), slot=1)
    with pytest.raises(ValueError, match="slot"):
        engine.choose(tokens(2), slot=np.array([0, 1]))
    assert engine.length == 0


def test_logits_that_are_not_finite(engine: NativeEngine) -> None:
    """Features of infinity; afterwards the cache is clean."""
    x = tokens(40)
    engine.prefill(x[:10])
    expected = engine.step(x[10:12]).copy()
    bad = engine.encode(np.full((1, 3, 56, 56), np.inf, np.float32))
    engine.reset()
    engine.prefill(engine.rows(512 + np.arange(16), bad))
    assert engine.choose(x[:1]).tolist() == [-1]
    assert engine.choose(x[:3]).tolist() == [-1, -1, -1]
    engine.reset()
    engine.prefill(x[:10])
    assert np.array_equal(engine.step(x[10:12]), expected)


def test_positions_of_a_cache_of_bytes(workshop: Workshop, opened: Bundle) -> None:
    """Prompts of ONNX Runtime are rounded once, before the next step; rewound ones again."""
    engine, executor = emulated_engine(opened, workshop, byte_cache=True)
    x = tokens(60)
    engine.prefill(x[:20])
    expected = engine.step(x[20:22]).copy()
    engine.rewind(12)
    engine.prefill(x[12:20])
    assert np.array_equal(engine.step(x[20:22]), expected)
    engine.step(x[22:24])  # nothing is left to be rounded
    launched = executor.launched
    engine.step(x[24:26])
    assert executor.launched - launched == 5 * 2 + 3
    assert error(engine.step(x[26:27]), _after(opened, x[:27])) < check.BYTE_BOUND


def _after(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """ONNX Runtime's logits after a prompt."""
    engine = open_any_engine(bundle, EngineOptions(device="cpu"))
    return engine.prefill(engine.rows(x))[None].copy()


def test_a_small_context_is_checked_with_fewer_steps(workshop: Workshop, opened: Bundle) -> None:
    for context in (1, 2, 5, 30):
        engine, _ = emulated_engine(opened, workshop, context=context)
        assert check.largest_error(engine, engine.base) < check.BOUND
        assert engine.length == 0
