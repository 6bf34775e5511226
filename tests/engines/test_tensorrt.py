"""The TensorRT engine over `fake_tensorrt`; test_tensorrt_gpu.py runs the real libraries."""

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fixture_types import Bundles

pytest.importorskip("onnx", "1.19", reason="opset 24 is written by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

import pulse_edge
from pulse_edge import configuration
from pulse_edge.bundle.added import added_to
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.plans import (
    DECODER_PLAN,
    VISION_PLAN,
    PlanKey,
    plan_directory,
    publish,
    staged,
)
from pulse_edge.bundle.signatures import sign_added
from pulse_edge.bundle.trust import check_trust
from pulse_edge.decode.speculation import DRAFTS
from pulse_edge.engines import cuda_runtime as cuda
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.engines.tensorrt import TensorRTEngine
from pulse_edge.errors import EngineError, TrustError
from pulse_export.plan.builder import LOGIT_ROWS

from support import fake_tensorrt as fake

HIDDEN, VOCAB, LAYERS = 64, 512, 2
ROWS, STEP_ROWS, CAPABILITY = 16, 8, 87


def embeds(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


def same(got: np.ndarray, expected: np.ndarray, tolerance: float = 2e-2) -> bool:
    return (
        got.shape == expected.shape
        and float(np.abs(got - expected).max() / np.abs(expected).max()) < tolerance
    )


def plant(bundle: Bundle, library: fake.Library) -> Path:
    """Publish the fake's plans as the plan builder does; fp16 has no profile for single tokens."""
    key = PlanKey(library.__name__, library.__version__, library.cuda.capability)
    logits = (1, STEP_ROWS)
    profiles = [{"rows": (1, most), "logit_rows": logits} for most in (ROWS, 1, STEP_ROWS)]
    step, several = 1, 2
    if bundle.manifest.precision.decoder == "fp16":
        del profiles[1]
        several = 1
    with staged(bundle, key) as staging:
        (staging / VISION_PLAN).write_bytes(
            fake.plan(bundle.file(VISION_GRAPH), [{"views": (1, 5)}])
        )
        (staging / DECODER_PLAN).write_bytes(fake.plan(bundle.file(DECODER_GRAPH), profiles))
        publish(
            bundle,
            key,
            staging,
            prefill_rows=ROWS,
            logit_rows=STEP_ROWS,
            views=5,
            step_profile=step,
            several_profile=several,
        )
    return plan_directory(bundle, key)


class World:
    """A GPU, a library, and a bundle with plans for them."""

    def __init__(
        self, source: Path, path: Path, monkeypatch: pytest.MonkeyPatch, rtx: bool = False
    ) -> None:
        self.cuda = fake.Cuda(CAPABILITY)
        self.library = fake.Library(self.cuda, rtx=rtx)
        monkeypatch.setattr(cuda, "runtime", lambda: self.cuda)
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(
                sys.modules, name, self.library if name == self.library.__name__ else None
            )
        self.bundle = open_bundle(shutil.copytree(source, path))
        self.plans = plant(self.bundle, self.library)

    def open(self, **options: Any) -> TensorRTEngine:
        engine = open_engine(self.bundle, EngineOptions(**options))
        assert isinstance(engine, TensorRTEngine)
        return engine


@pytest.fixture(params=["tensorrt-fp16", "tensorrt-int4", "tensorrt_rtx-int4"])
def world(
    request: pytest.FixtureRequest,
    bundles: Bundles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    library, precision = request.param.split("-")
    source = bundles(precision, None, "standard")
    return World(source, tmp_path / "bundle", monkeypatch, rtx=library == "tensorrt_rtx")


@pytest.fixture
def simple(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(bundles("int4", None, "standard"), tmp_path / "bundle", monkeypatch)


# --- numbers --------------------------------------------------------------------------------------


def test_prefill_steps_rewind_and_verification(world: World) -> None:
    """All ways to a cache give the same logits. 40 rows are three chunks, the last one shorter."""
    x, other = embeds(60), embeds(20, seed=1)
    engine = world.open()
    first = engine.prefill(x[:40]).copy()
    singles = np.concatenate([engine.step(row[None]).copy() for row in x[40:46]])
    assert engine.length == 46
    engine.rewind(40)
    together = engine.step(x[40:46]).copy()
    assert same(together, singles, 5e-3)
    engine.rewind(20)
    elsewhere = engine.prefill(other).copy()
    again = engine.step(other[:3]).copy()
    engine.rewind(20)
    assert same(engine.prefill(x[20:40]), first, 5e-3)
    assert same(engine.step(x[40:43]), singles[:3], 5e-3)
    whole = world.open(prefill_chunk=7)
    assert same(whole.prefill(np.concatenate([x[:20], other])), elsewhere, 5e-3)
    assert same(whole.step(other[:3]), again, 5e-3)
    assert not same(elsewhere, first, 0.05)


def test_a_reset_clears_the_whole_cache(simple: World) -> None:
    """Also beyond its length: attention multiplies it with 0, and a NaN stays a NaN."""
    engine, x = simple.open(), embeds(20)
    expected = engine.prefill(x).copy()
    cache = simple.cuda.view(*engine.cache, simple.cuda.device)
    cache.fill(0xFF)  # NaNs, in fp16
    engine.reset()
    assert engine.length == 0
    assert not cache.any()
    assert np.array_equal(engine.prefill(x), expected)


def test_views(world: World) -> None:
    pixels = np.random.default_rng(0).normal(size=(5, 3, 56, 56)).astype(np.float32)
    engine = world.open()
    features = engine.encode(pixels)
    assert features.shape == (5, 16, HIDDEN)
    for view, feature in zip(pixels, features, strict=True):
        assert same(engine.encode(view[None])[0], feature, 5e-3)
    with pytest.raises(
        EngineError, match=r"pixels are \[6, 3, 56, 56\], but the plan takes up to \[5, 3, 56, 56\]"
    ):
        engine.encode(np.zeros((6, 3, 56, 56), np.float32))


def test_numbers_of_the_cpu_bundle(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(bundles("fp16", None, "standard"), tmp_path / "bundle", monkeypatch)
    full = open_engine(open_bundle(bundles()), EngineOptions("cpu", threads=1))
    engine, x = world.open(), embeds(30)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 56, 56)).astype(np.float32)
    assert same(engine.encode(pixels), full.encode(pixels))
    assert same(engine.prefill(x), full.prefill(x))
    assert same(engine.step(x[:1]), full.step(x[:1]))


def test_tokens_of_the_cpu_bundle(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 greedy tokens of two questions; the second finds the image in the cache."""
    world = World(bundles("fp16", None, "standard"), tmp_path / "bundle", monkeypatch)
    page = np.random.default_rng(3).integers(0, 255, (80, 120, 3), np.uint8)
    answers = []
    for path in (bundles(), world.bundle.path):
        model = pulse_edge.load(path)
        answers.append(
            [model.ask(page, q, max_new_tokens=24) for q in ("What is the rate?", "Is it normal?")]
        )
    for got, wanted in zip(*answers, strict=True):
        assert got.token_ids == wanted.token_ids
        assert len(got.token_ids) == 24
    assert answers[1][1].usage.cached_tokens > 0
    made = answers[1][0].provenance["engine"]
    assert (made["engine"], made["engine_version"], made["device"]) == (
        "tensorrt",
        "10.16.1",
        "cuda",
    )


# --- graphs ---------------------------------------------------------------------------------------


def count(world: World, call: str, run: Any) -> int:
    before = world.cuda.calls.count(call)
    run()
    return world.cuda.calls.count(call) - before


def test_a_shapes_second_step_is_a_graph(world: World) -> None:
    engine, x = world.open(), embeds(8)
    engine.prefill(embeds(10))
    assert count(world, "cudaGraphLaunch", lambda: engine.step(x[:1])) == 0
    assert count(world, "cudaStreamBeginCapture", lambda: engine.step(x[:1])) == 1
    steps = [count(world, "cudaMemcpyAsync", lambda: engine.step(x[:1])) for _ in range(3)]
    assert steps == [0, 0, 0]  # copies are in the graph
    assert world.cuda.calls.count("cudaGraphLaunch") == 4
    assert not world.cuda.graphs  # only what was made of them is kept
    engine.prefill(embeds(20, seed=2))
    engine.rewind(12)
    assert count(world, "cudaStreamBeginCapture", lambda: engine.step(x[:1])) == 0  # still the same


def test_each_number_of_rows_keeps_its_graph(world: World) -> None:
    """Drafts differ in length, and one graph for all would be captured over and over."""
    engine, x = world.open(), embeds(8)
    engine.prefill(embeds(10))
    for rows, captures in (
        (4, 0),
        (4, 1),
        (4, 0),
        (3, 0),
        (3, 1),
        (4, 0),
        (1, 0),
        (1, 1),
        (3, 0),
        (4, 0),
        (1, 0),
    ):
        assert count(world, "cudaStreamBeginCapture", lambda r=rows: engine.step(x[:r])) == captures
    assert len(world.cuda.executables) == 3
    steps = world.library.contexts[2:]
    assert [context.profile for context in steps] == (
        [1, 2, 2] if len(steps[0].engine.profiles) == 3 else [1, 1, 1]
    )


def test_another_shape_is_captured_again(world: World) -> None:
    """If a context gets another shape, the graph of the last one must not be launched."""
    engine = world.open()
    run, rows = engine.step_run(4), engine.buffers
    for shape, captures in (
        ((4, 4), 0),
        ((4, 4), 1),
        ((4, 2), 0),
        ((4, 2), 1),
        ((4, 4), 0),
        ((4, 4), 1),
        ((4, 4), 0),
    ):
        rows.embeds.host[:4], rows.position.host[0] = 0, 0
        assert (
            count(world, "cudaStreamBeginCapture", lambda s=shape: run(s[0], s[1], capture=True))
            == captures
        )
        engine.device.synchronize()
    assert len(world.cuda.executables) == 1  # the one before is given back


def test_drafts_of_every_length_fit_a_step() -> None:
    assert 1 + max(DRAFTS) <= LOGIT_ROWS


def test_more_rows_than_a_step_takes(world: World) -> None:
    """`verify` asks for many. If one of the parts fails, the length is as before."""
    engine, x = world.open(), embeds(20)
    together = engine.step(x)
    assert engine.length == 20
    engine.rewind(0)
    singles = np.concatenate([engine.step(row[None]).copy() for row in x])
    assert same(together, singles, 5e-3)
    engine.rewind(3)
    world.library.fail_after = 0
    with pytest.raises(EngineError, match="execute_async_v3"):
        engine.step(x)
    assert engine.length == 3


def test_no_graph_where_rtx_says_no(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(bundles("int4", None, "standard"), tmp_path / "bundle", monkeypatch, rtx=True)
    world.library.refuse["is_stream_capturable"] = ""
    engine = world.open()
    for _ in range(3):
        engine.step(embeds(1))
    assert "cudaStreamBeginCapture" not in world.cuda.calls


def test_rtx_waits_for_kernels_of_what_is_captured_only(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(bundles("int4", None, "standard"), tmp_path / "bundle", monkeypatch, rtx=True)
    engine = world.open()
    engine.step(embeds(4))
    assert [context.eager for context in world.library.contexts] == [False, False, True, True]
    assert [context.profile for context in world.library.contexts] == [0, 0, 1, 2]
    assert (
        len({id(context.cache) for context in world.library.contexts}) == 1
    )  # compiled once, for all of them
    assert world.library.contexts[0].cache is not None


def test_what_a_drafted_token_costs(world: World) -> None:
    """It costs more if a step of several rows copies the cache and a single row does not."""
    engine = world.open()
    cache, plan = (
        engine.describe()["device_memory"]["cache"],
        (world.plans / DECODER_PLAN).stat().st_size,
    )
    in_place = world.bundle.manifest.precision.decoder == "int4"
    assert engine.row_cost == pytest.approx(0.03 + in_place * 2 * cache / (plan + cache) / 8)


# --- memory ---------------------------------------------------------------------------------------


def test_everything_is_allocated_once_and_given_back(world: World) -> None:
    engine, x = world.open(), embeds(30)
    allocations = world.cuda.calls.count("cudaMalloc")
    for _ in range(2):
        engine.prefill(x)
        for rows in (1, 1, 1, 4, 4, 2):
            engine.step(x[:rows])
        engine.rewind(0)
    assert world.cuda.calls.count("cudaMalloc") == allocations
    del engine
    gc.collect()
    assert world.cuda.live == 0


def test_memory_is_reported(simple: World) -> None:
    engine = simple.open()
    told = engine.describe()["device_memory"]
    heads, context, size = 4, 512, 16
    assert told["cache"] == 2 * LAYERS * heads * context * size * 2
    sizes = [(simple.plans / name).stat().st_size for name in (VISION_PLAN, DECODER_PLAN)]
    assert (told["activations"], told["plans"]) == (4096, sum(sizes))
    held = sum(map(len, simple.cuda.device.values()))
    assert told["cache"] + told["activations"] + told["buffers"] == held
    assert engine.describe()["context"] == engine.capacity == context


@pytest.mark.parametrize(
    ("total", "message"),
    [
        (
            4000,
            r"cudaMalloc: no memory for activations of 0.00 GB: "
            r".*build again with --prefill-rows under 16",
        ),
        (
            300_000,
            r"cudaMalloc: no memory for cache of 0.00 GB: 0.00 of 0.00 GB of the GPU are"
            r".*activations.*lower --context",
        ),
        (50_000, r"cudaMalloc: no memory for buffers of .*close other programs"),
    ],
)
def test_out_of_memory_says_what_to_lower(simple: World, total: int, message: str) -> None:
    simple.cuda.total = total
    with pytest.raises(EngineError, match=message):
        simple.open()
    assert simple.cuda.live == 0


def test_no_pinned_memory(simple: World) -> None:
    simple.cuda.fail["cudaMallocHost"] = fake.Status.cudaErrorMemoryAllocation
    with pytest.raises(
        EngineError, match=r"cudaMallocHost: no memory for pinned buffers of .*close other programs"
    ):
        simple.open()
    assert simple.cuda.live == 0


@pytest.mark.parametrize("method", ["deserialize_cuda_engine", "create_execution_context"])
def test_no_memory_for_what_tensorrt_allocates(simple: World, method: str) -> None:
    simple.library.refuse[method] = "OutOfMemory: requested 4 GB"
    with pytest.raises(
        EngineError, match=rf"TensorRT: {method}.*OutOfMemory.* are free, .*with fewer bits"
    ):
        simple.open()
    assert simple.cuda.live == 0


# --- what goes wrong ------------------------------------------------------------------------------

OPENING = [
    "cudaGetDevice",
    "cudaDeviceGetAttribute",
    "cudaStreamCreateWithFlags",
    "cudaMalloc",
    "cudaMallocHost",
    "cudaMemsetAsync",
    "cudaStreamSynchronize",
]
RUNNING = [
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaStreamBeginCapture",
    "cudaStreamEndCapture",
    "cudaGraphInstantiate",
    "cudaGraphLaunch",
]


@pytest.mark.parametrize("call", OPENING)
def test_a_failing_call_while_opening(simple: World, call: str) -> None:
    simple.cuda.fail[call] = fake.Status.cudaErrorIllegalAddress
    with pytest.raises(
        EngineError, match=rf"^{call} failed: cudaErrorIllegalAddress \(IllegalAddress\)"
    ):
        simple.open()
    simple.cuda.fail.clear()
    assert simple.cuda.live == 0


@pytest.mark.parametrize("call", RUNNING)
def test_a_failing_call_while_running(simple: World, call: str) -> None:
    """The length stays, and once the cause is gone the next step is right."""
    engine, x = simple.open(), embeds(12)
    engine.prefill(x[:10])
    right = engine.step(x[10:11]).copy()
    engine.rewind(10)
    simple.cuda.fail[call] = fake.Status.cudaErrorIllegalAddress
    with pytest.raises(EngineError, match=f"^{call} failed: cudaErrorIllegalAddress"):
        engine.step(x[10:11])
    assert engine.length == 10
    simple.cuda.fail.clear()
    for stream in simple.cuda.streams.values():
        stream.capture = None  # a capture that could not be ended needs a new stream
    assert same(engine.step(x[10:11]), right, 1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "deserialize_cuda_engine",
            r"deserialize_cuda_engine\(.*vision.plan\), 0.00 GB, failed \(because\)",
        ),
        ("create_execution_context", r"create_execution_context failed \(because\)"),
        (
            "set_optimization_profile_async",
            r"set_optimization_profile_async\(0, \d+\) failed \(because Error in set opt",
        ),
        ("set_tensor_address", r"set_tensor_address\('pixels', \d+\) failed \(because\)"),
    ],
)
def test_tensorrt_refuses_while_opening(simple: World, method: str, message: str) -> None:
    simple.library.refuse[method] = "because"
    with pytest.raises(EngineError, match=message):
        simple.open()
    assert simple.cuda.live == 0


@pytest.mark.parametrize("method", ["set_input_shape", "execute_async_v3"])
def test_tensorrt_refuses_while_running(simple: World, method: str) -> None:
    engine, x = simple.open(), embeds(12)
    right = engine.prefill(x).copy()
    engine.rewind(4)
    simple.library.refuse[method] = "because"
    with pytest.raises(EngineError, match=rf"TensorRT: {method}.* failed \(because\)"):
        engine.prefill(x[4:])
    assert engine.length == 4
    simple.library.refuse.clear()
    assert same(engine.prefill(x[4:]), right, 5e-3)


def test_a_refused_capture_leaves_no_graph(simple: World) -> None:
    engine, x = simple.open(), embeds(12)
    engine.prefill(x[:10])
    right = engine.step(x[10:11]).copy()
    simple.library.refuse["execute_async_v3"] = "because"
    with pytest.raises(EngineError, match="execute_async_v3"):
        engine.step(x[10:11])  # the second run of this shape is captured
    assert not simple.cuda.capturing
    assert not simple.cuda.graphs
    simple.library.refuse.clear()
    engine.rewind(10)
    assert same(engine.step(x[10:11]), right, 1e-6)


def test_ctrl_c_waits_for_what_the_stream_still_reads(
    simple: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted call waits for its copies, whose source the next call overwrites."""
    engine, x = simple.open(), embeds(12)
    right = engine.prefill(x[:10]).copy()
    engine.rewind(4)
    wait, interrupts = engine.device.synchronize, [KeyboardInterrupt()]

    def synchronize() -> None:
        if interrupts:
            raise interrupts.pop()
        wait()

    monkeypatch.setattr(engine.device, "synchronize", synchronize)
    with pytest.raises(KeyboardInterrupt):
        engine.prefill(embeds(6, seed=9))
    assert all(not stream.work for stream in simple.cuda.streams.values())
    assert engine.length == 4
    assert same(engine.prefill(x[4:10]), right, 5e-3)
    pixels = np.random.default_rng(0).normal(size=(1, 3, 56, 56)).astype(np.float32)
    seen = engine.encode(pixels)
    interrupts.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        engine.encode(np.zeros_like(pixels))
    assert all(not stream.work for stream in simple.cuda.streams.values())
    assert same(engine.encode(pixels), seen, 1e-6)


def test_a_shape_that_failed_is_set_again(simple: World) -> None:
    engine, x = simple.open(), embeds(12)
    engine.prefill(x[:4])
    right = engine.step(x[4:8]).copy()
    simple.library.refuse["execute_async_v3"] = "because"
    with pytest.raises(EngineError):
        engine.step(x[8:11])
    simple.library.refuse.clear()
    engine.rewind(4)
    assert same(engine.step(x[4:8]), right, 1e-6)


def test_limits(simple: World) -> None:
    engine = simple.open(context=20)
    engine.prefill(embeds(20))
    with pytest.raises(EngineError, match="21 tokens do not fit a cache of 20"):
        engine.step(embeds(1))
    with pytest.raises(ValueError, match="20 to 21"):
        engine.rewind(21)
    engine.rewind(0)
    with pytest.raises(ValueError, match="broadcast"):
        engine.step(np.zeros((1, HIDDEN + 1), np.float32))
    assert engine.length == 0


def test_an_interrupted_prefill_leaves_the_length(simple: World) -> None:
    engine, x = simple.open(), embeds(40)

    def interrupt(stage: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.prefill(x, interrupt)
    assert engine.length == 0
    assert same(engine.prefill(x), simple.open().prefill(x), 5e-3)


def test_stale_and_missing_plans(simple: World, bundles: Bundles) -> None:
    """Plans of another bundle or version, and altered ones, are never loaded."""
    simple.library.__version__ = "10.16.2"
    with pytest.raises(
        EngineError, match=r"no plans for tensorrt-10.16.2-sm87 \(but for tensorrt-10.16.1-sm87\)"
    ):
        simple.open()
    simple.library.__version__ = "10.16.1"
    (simple.plans / DECODER_PLAN).write_bytes(b"x" * (simple.plans / DECODER_PLAN).stat().st_size)
    with pytest.raises(EngineError, match=r"decoder.plan: altered .*pulse-edge build"):
        simple.open()
    shutil.rmtree(simple.plans)
    other = open_bundle(
        shutil.copytree(bundles("int8", None, "standard"), simple.bundle.path.with_name("other"))
    )
    shutil.copytree(plant(other, simple.library), simple.plans)
    with pytest.raises(EngineError, match=r"built from another bundle .*pulse-edge build"):
        simple.open()
    assert simple.cuda.live == 0


def test_an_engine_that_copies_its_cache(simple: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake.Engine, "get_aliased_input_tensor", lambda *_: None)
    with pytest.raises(
        EngineError, match=r"does not update past.0.key in place; run pulse-edge build again"
    ):
        simple.open()


def test_another_device(simple: World) -> None:
    with pytest.raises(EngineError, match="device 'tpu' is not one of auto, cpu, cuda"):
        simple.open(device="tpu")


# --- trust ----------------------------------------------------------------------------------------


def test_plans_that_nobody_trusted_signed_are_not_opened(
    simple: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography", reason="signing needs pulse-edge[sign]")
    from support.signing import Signer

    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "system.toml")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)
    signer = Signer(tmp_path / "keys")
    signer.sign(simple.bundle.path)
    check_trust(simple.bundle, trusted_keys=signer.trusted)
    with pytest.raises(TrustError, match=f"{simple.plans}: no key in .* has signed what was built"):
        simple.open()
    [plans] = added_to(open_bundle(simple.bundle.path))
    sign_added(simple.bundle, plans.index, signer.key)
    assert simple.open().describe()["engine"] == "tensorrt"
