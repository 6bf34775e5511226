"""The engine's contract (`backends.Engine`) as ONNX Runtime keeps it, and what it says when it cannot run."""

from __future__ import annotations

import mmap
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Bundles

from pulse_edge.backends import EngineOptions, open_engine, ort
from pulse_edge.bundle import DECODER_GRAPH, VISION_GRAPH, open_bundle
from pulse_edge.errors import EngineError, ParameterError

HIDDEN, VOCAB = 64, 512


def opened(bundle: Path, **options: Any) -> ort.OrtEngine:
    engine = open_engine(open_bundle(bundle), EngineOptions(**{"threads": 1} | options))
    assert isinstance(engine, ort.OrtEngine)
    return engine


@pytest.fixture
def engine(bundle: Path) -> ort.OrtEngine:
    return opened(bundle)


def embeds(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


def same(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    return got.shape == expected.shape and float(np.abs(got - expected).max() / np.abs(expected).max()) < tolerance


# --- prefill, step, rewind ---------------------------------------------------------------------------------------


def test_several_rows_are_as_many_single_steps(engine: ort.OrtEngine) -> None:
    x = embeds(20)
    engine.prefill(x[:12])
    together = engine.step(x[12:]).copy()
    assert (together.shape, engine.length) == ((8, VOCAB), 20)
    engine.rewind(12)
    single = np.concatenate([engine.step(row[None]).copy() for row in x[12:]])
    assert same(together, single)
    assert engine.length == 20
    engine.rewind(0)
    assert same(engine.prefill(x), together[-1])  # only the last row's, as one row


def test_rewinding_forgets(engine: ort.OrtEngine) -> None:
    x, other = embeds(10), embeds(10, seed=1)
    first = engine.prefill(x).copy()
    engine.rewind(4)
    assert engine.length == 4
    elsewhere = engine.prefill(other).copy()
    engine.rewind(4)
    assert same(engine.prefill(x[4:]), first)
    assert not same(elsewhere, first, 0.01)


@pytest.mark.parametrize("length", [-1, 11])
def test_rewinding_to_where_the_cache_never_was(engine: ort.OrtEngine, length: int) -> None:
    engine.prefill(embeds(10))
    with pytest.raises(ValueError, match=f"10 to {length}"):
        engine.rewind(length)
    assert engine.length == 10


@pytest.mark.parametrize("chunk", [1, 7, 64, 99, 100, 0])
def test_a_prompt_in_chunks_is_the_prompt(bundle: Path, chunk: int) -> None:
    x, told = embeds(100), []
    engine = opened(bundle, prefill_chunk=chunk)
    logits = engine.prefill(x, lambda stage, done, total: told.append((stage, done, total)))
    assert same(logits, opened(bundle, prefill_chunk=0).prefill(x))
    assert engine.length == 100
    assert {(stage, total) for stage, _, total in told} == {("prefill", 100)}
    assert sum(done for _, done, _ in told) == 100


def test_the_cache_is_written_in_place_and_never_moves(engine: ort.OrtEngine) -> None:
    """Position by position: what was written stays, only the new row changes, in the memory that was allocated."""
    where = {name: value.data_ptr() for name, value in engine._cache.items()}
    key = engine._cache["1.key"].numpy()  # [1, heads, capacity, head size]
    assert key.shape[2] == engine.capacity == 512
    engine.prefill(embeds(5))
    before = engine._cache["1.key"].numpy().copy()
    assert before[:, :, :5].any()
    assert not before[:, :, 5:].any()
    for row in embeds(3, seed=1):
        engine.step(row[None])
    after = engine._cache["1.key"].numpy()
    assert np.array_equal(after[:, :, :5], before[:, :, :5])
    assert after[:, :, 5:8].any(axis=(0, 1, 3)).all()
    assert not after[:, :, 8:].any()
    assert {name: value.data_ptr() for name, value in engine._cache.items()} == where


def test_the_cache_takes_memory_as_it_fills() -> None:
    """One row of each head, as a token writes them: a page each, not the two megabytes of a huge one."""
    cache = ort._untouched([1, 8, 4096, 128], np.float32)  # a head is 2 MB
    before = resident()
    cache[:, :, 0] = 1
    assert resident() - before < 1 << 20
    assert cache.sum() == 8 * 128
    cache[:] = 1
    assert resident() - before > 15 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("needs Linux's /proc")
    return int(pages.read_text().split()[1]) * mmap.PAGESIZE


def test_a_full_cache_refuses_more(bundle: Path) -> None:
    engine, x = opened(bundle, context=16), embeds(17)
    assert engine.capacity == 16
    expected = opened(bundle).prefill(x[:16]).copy()
    for run, length in (
        (lambda: engine.prefill(x), 0),
        (lambda: (engine.prefill(x[:15]), engine.step(x[:2])), 15),
        (lambda: (engine.rewind(0), engine.prefill(x[:16]), engine.step(x[:1])), 16),
    ):
        with pytest.raises(EngineError, match=r"17 tokens do not fit a cache of 16"):
            run()
        assert engine.length == length
    engine.rewind(0)
    assert same(engine.prefill(x[:16]), expected)


def test_a_prefill_that_fails_midway_leaves_the_length(bundle: Path) -> None:
    engine, x = opened(bundle, prefill_chunk=4), embeds(20)
    expected = opened(bundle).prefill(x).copy()
    engine.prefill(x[:6])

    def interrupt(stage: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.prefill(embeds(12, seed=3), interrupt)
    assert engine.length == 6
    assert same(engine.prefill(x[6:]), expected)


@pytest.mark.parametrize("shape", [(1, HIDDEN + 1), (1, 3, 56, 56, 1)])
def test_input_of_the_wrong_shape(engine: ort.OrtEngine, shape: tuple[int, ...]) -> None:
    if len(shape) == 2:
        with pytest.raises((EngineError, ValueError)):
            engine.step(np.zeros(shape, np.float32))
        assert engine.length == 0
    else:
        with pytest.raises(EngineError, match="vision graph failed"):
            engine.encode(np.zeros(shape, np.float32))


def test_views_do_not_see_each_other(engine: ort.OrtEngine) -> None:
    pixels = np.random.default_rng(0).normal(size=(5, 3, 56, 56)).astype(np.float32)
    features = engine.encode(pixels)
    assert features.shape == (5, 16, HIDDEN)
    for view, feature in zip(pixels, features, strict=True):
        assert same(engine.encode(view[None])[0], feature)


def test_a_binding_owns_what_it_reads(engine: ort.OrtEngine) -> None:
    """The arrays behind the bound inputs live as long as the run: ONNX Runtime itself keeps none of them alive."""
    run = engine._single
    held = {id(v) for v in vars(run).values() if isinstance(v, np.ndarray)}
    assert len(held) == 5  # embeds, lengths, total, rows, logits
    assert run._wanted.tolist() == [0]


def test_options_reach_the_session(bundle: Path) -> None:
    engine = opened(bundle, threads=2, context=100)
    assert engine._decoder.get_session_options().intra_op_num_threads == 2
    told = engine.describe()
    assert (told["engine"], told["threads"], told["context"], told["device"]) == ("onnxruntime", 2, 100, "cpu")
    assert opened(bundle, context=10**6).capacity == 512  # the model's own


@pytest.mark.parametrize(
    "options",
    [
        {"threads": -1},
        {"threads": 1.5},
        {"prefill_chunk": -1},
        {"prefill_chunk": None},
        {"context": 0},
        {"context": "9"},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ParameterError, match=f"^{name} is .* must be a whole number from"):
        EngineOptions(**options)


# --- devices -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cuda_bundle(bundles: Bundles) -> Path:
    return bundles("fp16", target="cuda")


def test_unknown_device(bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"'tpu' is not one of auto, cpu, cuda"):
        opened(bundle, device="tpu")


def test_a_cpu_bundle_does_not_run_on_cuda(bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"exported for cpu .* --target cuda, or use --device cpu"):
        opened(bundle, device="cuda")


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({"onnxruntime"}, r"needs the GPU build.*pip uninstall -y onnxruntime && pip install 'pulse-edge\[gpu\]'"),
        ({"onnxruntime", "onnxruntime-gpu"}, r"both installed.*pip uninstall -y onnxruntime onnxruntime-gpu &&"),
        ({"onnxruntime-gpu"}, r"has no CUDAExecutionProvider; it has CPUExecutionProvider"),
    ],
)
def test_cuda_without_its_provider(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str], message: str
) -> None:
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "_installed", installed.__contains__)
    for device in ("auto", "cuda"):
        with pytest.raises(EngineError, match=message):
            opened(cuda_bundle, device=device)


def test_a_cuda_bundle_runs_on_the_cpu_when_told_to(cuda_bundle: Path, bundle: Path) -> None:
    """The two providers run the same graph, so half precision can be checked without a GPU."""
    x = embeds(30)
    half, full = opened(cuda_bundle, device="cpu").prefill(x), opened(bundle).prefill(x)
    assert same(half, full, 0.02)


@pytest.mark.parametrize("graph", [VISION_GRAPH, DECODER_GRAPH])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_graph_is_an_engine_error(bundle: Path, tmp_path: Path, graph: str, damage: str) -> None:
    """What gets past an integrity check that was switched off."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    good = open_bundle(copy)
    file = copy / graph
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "text": b"x" * len(content), "empty": b""}[damage])
    with pytest.raises(EngineError, match=rf"{graph}: ONNX Runtime cannot load it \(.+\)$"):
        open_engine(good, EngineOptions(threads=1))
