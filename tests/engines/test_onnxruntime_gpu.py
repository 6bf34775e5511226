"""ONNX Runtime's CUDA provider on a real GPU, against the same graphs on the CPU."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.fixture_types import Bundles
from support.numbers import relative

pytest.importorskip("onnxruntime")

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines import cuda_runtime as cuda
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

GEOMETRY = {
    "hidden": 512,
    "heads": 4,
    "ffn": 1024,
    "vision_width": 512,
    "vision_heads": 8,
    "vision_mlp": 2048,
}
# Largest difference to the CPU's provider, over the largest value. Both round to fp16, after sums
# in other orders.
TOLERANCE = 2e-2


def why_not() -> str:
    """Why nothing here can run; empty where it can."""
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "no GPU build of ONNX Runtime"
    try:
        cuda.Cuda().capability()
    except EngineError as error:
        return f"no GPU: {error}"
    return ""


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a GPU"),
]


@pytest.fixture(params=[("fp16", None), ("int8", None), ("int4", 32), ("int4", 128)], ids=str)
def bundle(request: pytest.FixtureRequest, bundles: Bundles) -> Bundle:
    precision, block = request.param
    return open_bundle(bundles(precision, block, "cuda", **GEOMETRY))


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 512, count)


def pages(views: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(views, 3, 56, 56)).astype(np.float32)


def on(device: str, bundle: Bundle) -> Engine:
    return open_engine(bundle, EngineOptions(device=device))


def run(engine: Engine, x: np.ndarray) -> np.ndarray:
    """Logits of rows 39 to 59: a prompt, eight rows at once, then single steps."""
    got = [engine.prefill(x[:40])[None].copy(), engine.step(x[40:48]).copy()]
    return np.concatenate([*got, *(engine.step(row[None]).copy() for row in x[48:])])


def test_numbers_of_the_same_graph_on_the_cpu(bundle: Bundle) -> None:
    """And the same likeliest tokens, but for ties."""
    there, here, x = on("cuda", bundle), on("cpu", bundle), tokens(60)
    assert there.describe()["cuda_graphs"] is True
    seen = [np.asarray(engine.encode(pages()), np.float32) for engine in (there, here)]
    assert relative(*seen) < TOLERANCE
    logits, expected = run(there, x), run(here, x)
    assert relative(logits, expected) < TOLERANCE
    best, second = np.sort(expected)[:, :-3:-1].T
    clear = best - second > 2 * np.abs(logits - expected).max()
    assert clear.any()
    assert (logits.argmax(1) == expected.argmax(1))[clear].all()


def test_a_prompt_with_a_page(bundle: Bundle) -> None:
    """The graph gathers from the table and the last page's features on the device."""
    numbers = np.concatenate([tokens(9), 512 + np.arange(32), tokens(5, seed=1)])
    logits = []
    for device in ("cuda", "cpu"):
        engine = on(device, bundle)
        assert engine.table_rows == 512
        engine.encode(pages(5))
        logits.append(engine.prefill(engine.rows(numbers, engine.encode(pages()))).copy())
    assert relative(*logits) < TOLERANCE


@pytest.mark.parametrize("rows", [1, 4, 20])
def test_tokens_chosen_on_the_device(bundle: Bundle, rows: int) -> None:
    """`choose` takes a token of the largest logit, captured, replayed or neither."""
    engine, x = on("cuda", bundle), tokens(100)
    engine.prefill(x[:10])
    for repetition in range(4):
        part = x[10 + repetition : 10 + repetition + rows]
        chosen = engine.choose(part)
        engine.rewind(10)
        logits = engine.step(part)
        engine.rewind(10)
        assert (logits[np.arange(rows), chosen] == logits.max(axis=1)).all()


def test_logits_that_are_not_finite(bundle: Bundle) -> None:
    """The device reports them, because nobody reads the logits."""
    engine = on("cuda", bundle)
    bad = np.full((2, 3, 56, 56), np.inf, np.float32)
    page = engine.encode(bad)
    assert not np.isfinite(np.asarray(page, np.float32)).any()
    engine.prefill(engine.rows(512 + np.arange(32), page))
    assert engine.choose(tokens(1)).tolist() == [-1]
    engine.reset()
    assert np.array_equal(run(engine, tokens(60)), run(on("cuda", bundle), tokens(60)))


def test_memory_that_others_have_left(bundle: Bundle) -> None:
    """A new cache is cleared, or attention would multiply others' NaNs with 0."""
    expected, call = run(on("cuda", bundle), tokens(60)), cuda.Cuda()
    gc.collect()
    size = int(call("cudaMemGetInfo")[0]) - (256 << 20)
    taken = call("cudaMalloc", size)
    call("cudaMemset", taken, 0xFF, size)
    call("cudaFree", taken)
    assert np.array_equal(run(on("cuda", bundle), tokens(60)), expected)


def test_the_same_bytes_twice(bundle: Bundle) -> None:
    """Of one engine, captured and replayed, and of another."""
    first, x = on("cuda", bundle), tokens(60)
    logits = run(first, x)
    first.rewind(0)
    assert np.array_equal(run(first, x), logits)
    assert np.array_equal(run(on("cuda", bundle), x), logits)


def test_prefill_steps_rewind_and_verification(bundle: Bundle) -> None:
    """Captured steps, several rows at once, chunks and a whole prompt are one computation."""
    engine, x = on("cuda", bundle), tokens(60)
    engine.prefill(x[:40])
    singles = np.concatenate([engine.step(row[None]).copy() for row in x[40:46]])
    engine.rewind(40)
    for _ in range(3):  # captured, replayed
        assert relative(engine.step(x[40:46]), singles) < TOLERANCE
        engine.rewind(40)
    engine.rewind(0)
    assert relative(engine.prefill(x[:46]), singles[-1]) < TOLERANCE
    chunks = open_engine(bundle, EngineOptions(device="cuda", prefill_chunk=7))
    assert relative(chunks.prefill(x[:46]), singles[-1]) < TOLERANCE


def test_a_page_and_its_tokens(bundle: Bundle) -> None:
    """Greedy answers repeat, and start as the CPU's until a near tie may part them."""
    page = np.random.default_rng(3).integers(0, 255, (80, 120, 3), np.uint8)
    there, here = (pulse_edge.load(bundle.path, device=device) for device in ("cuda", "cpu"))
    for question in ("What is the rate?", "Normal?"):
        there.forget()  # what is kept of a page was rounded in other company
        got, wanted = (m.ask(page, question, max_new_tokens=24).token_ids for m in (there, here))
        there.forget()
        again = there.ask(page, question, max_new_tokens=24).token_ids
        assert got == again
        assert got[0] == wanted[0]


def seconds(work: Callable[[], object], repeats: int = 20) -> float:
    times = []
    for number in range(repeats + 2):
        start = time.perf_counter()
        work()
        times += [time.perf_counter() - start] * (number > 1)
    return statistics.median(times)


def test_latency_table(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    engine, x = on("cuda", bundle), tokens(400)
    pixels = pages(5)

    def fresh(work: Callable[[], object]) -> Callable[[], object]:
        def again() -> object:
            engine.rewind(0)
            return work()

        return again

    rows = {
        "vision, 5 views": seconds(lambda: engine.encode(pixels)),
        "prefill, 400 tokens": seconds(fresh(lambda: engine.prefill(x))),
        "step, 1 token": seconds(fresh(lambda: engine.step(x[:1]))),
        "choice, 1 token": seconds(fresh(lambda: engine.choose(x[:1]))),
        "step, 4 tokens": seconds(fresh(lambda: engine.step(x[:4]))),
        "step, 16 tokens": seconds(fresh(lambda: engine.step(x[:16]))),
    }
    with capsys.disabled():
        print(f"\n{bundle.manifest.precision.name}, {engine.describe()['provider']}")
        for name, took in rows.items():
            print(f"  {name:<20} {1e3 * took:8.3f} ms")
    assert rows["step, 1 token"] < rows["prefill, 400 tokens"]


def test_memory_is_given_back(bundle: Bundle) -> None:
    """The first engine makes CUDA's context and loads kernels; later ones leave nothing behind.

    Nothing else may use the GPU meanwhile.
    """
    call, left = cuda.Cuda(), []
    for _ in range(4):
        engine = on("cuda", bundle)
        run(engine, tokens(60))
        del engine
        gc.collect()
        left.append(int(call("cudaMemGetInfo")[0]))
    assert max(left[1:]) - min(left[1:]) < 16 << 20


def test_a_cache_that_does_not_fit_says_so(bundles: Bundles, tmp_path: Path) -> None:
    """With almost all of the GPU's memory taken."""
    opened, call = open_bundle(bundles("fp16", None, "cuda", **GEOMETRY)), cuda.Cuda()
    on("cuda", opened)  # CUDA's context, kernels
    gc.collect()
    taken = []
    for block in (int(call("cudaMemGetInfo")[0]) - (8 << 20), *(32 * [1 << 20])):
        with contextlib.suppress(cuda.CudaError):
            taken.append(call("cudaMalloc", block))
    try:
        with pytest.raises(EngineError, match=r"memory|load"):
            run(on("cuda", opened), tokens(60))
    finally:
        for block in taken:
            call("cudaFree", block)
