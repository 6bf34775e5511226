"""The TensorRT engine on a real GPU: tokens, a latency table, memory given back."""

from __future__ import annotations

import gc
import shutil
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from support.fixture_types import Bundles
from support.numbers import relative

pytest.importorskip("onnx", "1.19", reason="opset 24 is written by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.engines import cuda_runtime as cuda
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError
from pulse_export.plan import builder as plan_builder

from support.standard_graphs import Decoder, features

GEOMETRY = {
    "hidden": 512,
    "heads": 4,
    "ffn": 1024,
    "vision_width": 512,
    "vision_heads": 8,
    "vision_mlp": 2048,
}


def why_not() -> str:
    """Why nothing here can run; empty where it can."""
    try:
        cuda.Cuda().capability()
    except EngineError as error:
        return f"no GPU for TensorRT: {error}"
    if not any(find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        return "neither tensorrt nor tensorrt_rtx is installed"
    return ""


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a GPU"),
]


# Largest difference to the same graph on the CPU, over the largest value. Another order of a sum
# can move an 8-bit activation to its next code.
TOLERANCE = {"fp16": 2e-2, "int8": 2e-2, "int4": 2e-2, "w8a8": 1e-1}


@pytest.fixture(params=TOLERANCE)
def bundle(request: pytest.FixtureRequest, bundles: Bundles, tmp_path: Path) -> Bundle:
    source = bundles(
        request.param, 128 if request.param == "int4" else None, "standard", **GEOMETRY
    )
    opened = open_bundle(shutil.copytree(source, tmp_path / request.param))
    plan_builder.build_plans(opened, plan_builder.choose_builder(opened))
    return opened


def embeds(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, GEOMETRY["hidden"])).astype(np.float32)


def test_tokens_of_the_cpu_bundle(bundles: Bundles, tmp_path: Path) -> None:
    """fp16 against fp32; the other precisions quantize other weights than the CPU's bundles."""
    half = open_bundle(
        shutil.copytree(bundles("fp16", None, "standard", **GEOMETRY), tmp_path / "fp16")
    )
    plan_builder.build_plans(half, plan_builder.choose_builder(half))
    page = np.random.default_rng(3).integers(0, 255, (80, 120, 3), np.uint8)
    got, wanted = (
        [
            pulse_edge.load(path).ask(page, q, max_new_tokens=24).token_ids
            for q in ("What is the rate?", "Normal?")
        ]
        for path in (half.path, bundles(**GEOMETRY))
    )
    assert got == wanted


def test_numbers_of_the_same_graph_on_the_cpu(bundle: Bundle) -> None:
    """Both differ in the order of sums only; the most likely tokens are the same but for ties."""
    running, judge, x = (
        open_engine(bundle, EngineOptions()),
        Decoder(bundle.file(DECODER_GRAPH), np.float16),
        embeds(60),
    )
    bar = TOLERANCE[bundle.manifest.precision.name]
    pixels = np.random.default_rng(5).normal(size=(2, 3, 56, 56)).astype(np.float32)
    assert relative(running.encode(pixels), features(bundle.file(VISION_GRAPH), pixels)) < bar
    expected = judge(x)
    got = [running.prefill(x[:40])[None].copy(), running.step(x[40:48]).copy()]
    got += [running.step(row[None]).copy() for row in x[48:]]
    logits = np.concatenate(got)
    assert relative(logits, expected[39:]) < bar
    best, second = np.sort(expected[39:])[:, :-3:-1].T
    clear = best - second > 2 * np.abs(logits - expected[39:]).max()
    assert clear.any()
    assert (logits.argmax(1) == expected[39:].argmax(1))[clear].all()


def test_prefill_steps_rewind_and_verification(bundle: Bundle) -> None:
    """Captured steps, several rows at once and a whole prompt are one computation."""
    running, x, bar = (
        open_engine(bundle, EngineOptions()),
        embeds(60),
        TOLERANCE[bundle.manifest.precision.name],
    )
    running.prefill(x[:40])
    singles = np.concatenate([running.step(row[None]).copy() for row in x[40:46]])
    running.rewind(40)
    for _ in range(3):  # plainly, captured, replayed
        assert relative(running.step(x[40:46]), singles) < bar
        running.rewind(40)
    running.rewind(0)
    assert relative(running.prefill(x[:46]), singles[-1]) < bar


def seconds(run: Callable[[], object], repeats: int = 20) -> float:
    run()
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_latency_table(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    running, x = open_engine(bundle, EngineOptions()), embeds(400)
    pixels = np.zeros((5, 3, 56, 56), np.float32)

    def fresh(run: Callable[[], object]) -> Callable[[], object]:
        def again() -> object:
            running.rewind(0)
            return run()

        return again

    rows = {
        "vision, 5 views": seconds(lambda: running.encode(pixels)),
        "prefill, 400 tokens": seconds(fresh(lambda: running.prefill(x))),
        "step, 1 token": seconds(fresh(lambda: running.step(x[:1]))),
        "step, 4 tokens": seconds(fresh(lambda: running.step(x[:4]))),
        "step, 16 tokens": seconds(fresh(lambda: running.step(x[:16]))),
    }
    with capsys.disabled():
        print(f"\n{bundle.manifest.precision.name}, {running.describe()['provider']}")
        for name, time_ in rows.items():
            print(f"  {name:<20} {1e3 * time_:8.3f} ms")
    assert rows["step, 1 token"] < rows["prefill, 400 tokens"]


@pytest.fixture
def free() -> Callable[[], int]:
    call = cuda.Cuda()
    return lambda: int(call("cudaMemGetInfo")[0])


def test_memory_is_given_back(bundle: Bundle, free: Callable[[], int]) -> None:
    """After the first engine, which makes CUDA's context and loads kernels, none costs anything."""
    left = []
    for _ in range(4):
        running = open_engine(bundle, EngineOptions())
        running.prefill(embeds(40))
        for _ in range(3):
            running.step(embeds(1))
        del running
        gc.collect()
        left.append(free())
    assert max(left[1:]) - min(left[1:]) < 16 << 20
