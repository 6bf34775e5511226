"""ONNX Runtime keeps the contract of `Engine`, and says why it cannot run."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, EMBEDDINGS, VISION_GRAPH
from pulse_edge.decode.speculation import DRAFTS
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.cursor import GRAPH_ROWS
from pulse_edge.engines.engine import likeliest
from pulse_edge.engines.onnxruntime import OnnxRuntimeEngine
from pulse_edge.engines.onnxruntime_providers import PROVIDERS, choose_attention
from pulse_edge.engines.onnxruntime_runs import TowerRun
from pulse_edge.engines.onnxruntime_tensors import DeviceTensor, lazy_zeros
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError, ParameterError

from support.fixture_types import Bundles

HIDDEN, VOCAB = 64, 512


def opened(bundle: Path, **options: Any) -> OnnxRuntimeEngine:
    engine = open_engine(open_bundle(bundle), EngineOptions(**{"threads": 1} | options))
    assert isinstance(engine, OnnxRuntimeEngine)
    return engine


@pytest.fixture
def engine(bundle: Path) -> OnnxRuntimeEngine:
    return opened(bundle)


def embeds(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


def same(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    return (
        got.shape == expected.shape
        and float(np.abs(got - expected).max() / np.abs(expected).max()) < tolerance
    )


# --- prefill, step, rewind ------------------------------------------------------------------------


def test_several_rows_are_as_many_single_steps(engine: OnnxRuntimeEngine) -> None:
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


def test_rewinding_forgets(engine: OnnxRuntimeEngine) -> None:
    x, other = embeds(10), embeds(10, seed=1)
    first = engine.prefill(x).copy()
    engine.rewind(4)
    assert engine.length == 4
    elsewhere = engine.prefill(other).copy()
    engine.rewind(4)
    assert same(engine.prefill(x[4:]), first)
    assert not same(elsewhere, first, 0.01)


@pytest.mark.parametrize("length", [-1, 11])
def test_rewinding_to_where_the_cache_never_was(engine: OnnxRuntimeEngine, length: int) -> None:
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


def test_the_cache_is_written_in_place_and_never_moves(engine: OnnxRuntimeEngine) -> None:
    """A step changes only its own position, in the memory that was allocated at the start."""
    where = {name: value.data_ptr() for name, value in engine.cache.values.items()}
    key = engine.cache.values["1.key"].numpy()  # [1, heads, capacity, head size]
    assert key.shape[2] == engine.capacity == 512
    engine.prefill(embeds(5))
    before = engine.cache.values["1.key"].numpy().copy()
    assert before[:, :, :5].any()
    assert not before[:, :, 5:].any()
    for row in embeds(3, seed=1):
        engine.step(row[None])
    after = engine.cache.values["1.key"].numpy()
    assert np.array_equal(after[:, :, :5], before[:, :, :5])
    assert after[:, :, 5:8].any(axis=(0, 1, 3)).all()
    assert not after[:, :, 8:].any()
    assert {name: value.data_ptr() for name, value in engine.cache.values.items()} == where


def test_the_cache_takes_memory_as_it_fills() -> None:
    """A token writes one row of each head, which takes 4 kB of memory, not a huge page of 2 MB."""
    cache = lazy_zeros([1, 8, 4096, 128], np.float32)  # a head is 2 MB
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
    for length in (0, 15, 16):
        engine.rewind(0)
        if length:
            engine.prefill(x[:length])
        append = engine.step if length else engine.prefill
        with pytest.raises(EngineError, match=r"17 tokens do not fit a cache of 16"):
            append(x[length:])
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
def test_input_of_the_wrong_shape(engine: OnnxRuntimeEngine, shape: tuple[int, ...]) -> None:
    if len(shape) == 2:
        with pytest.raises((EngineError, ValueError)):
            engine.step(np.zeros(shape, np.float32))
        assert engine.length == 0
    else:
        with pytest.raises(EngineError, match="vision graph failed"):
            engine.encode(np.zeros(shape, np.float32))


def test_views_do_not_see_each_other(engine: OnnxRuntimeEngine) -> None:
    pixels = np.random.default_rng(0).normal(size=(5, 3, 56, 56)).astype(np.float32)
    features = engine.encode(pixels)
    assert features.shape == (5, 16, HIDDEN)
    for view, feature in zip(pixels, features, strict=True):
        assert same(engine.encode(view[None])[0], feature)


def test_a_binding_owns_what_it_reads(engine: OnnxRuntimeEngine) -> None:
    """The arrays behind bound inputs live as long as the run; ONNX Runtime keeps none alive."""
    engine.step(embeds(1))
    run = engine.step_run(1)
    tensors = run.tensors()
    assert len(tensors) == 6  # embeds, lengths, total, position, rows of logits, logits
    assert all(t.value.data_ptr() == t.array.ctypes.data for t in tensors)
    assert [0] in [t.array.tolist() for t in tensors]  # the row of logits


def test_options_reach_the_session(bundle: Path) -> None:
    engine = opened(bundle, threads=2, context=100)
    assert engine.session.get_session_options().intra_op_num_threads == 2
    told = engine.describe()
    assert (told["engine"], told["threads"], told["context"], told["device"]) == (
        "onnxruntime",
        2,
        100,
        "cpu",
    )
    assert opened(bundle, context=10**6).capacity == 512  # the model's own


@pytest.mark.parametrize(
    "options",
    [
        {"threads": -1},
        {"threads": 1.5},
        {"prefill_chunk": -1},
        {"prefill_chunk": "all"},
        {"context": 0},
        {"context": "9"},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ParameterError, match=f"^{name} is .* must be a whole number from"):
        EngineOptions(**options)


# --- devices --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cuda_bundle(bundles: Bundles) -> Path:
    return bundles("fp16", target="cuda")


def test_unknown_device(bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"'tpu' is not one of auto, cpu, cuda"):
        opened(bundle, device="tpu")


def test_a_cpu_bundle_does_not_run_on_cuda(bundle: Path) -> None:
    with pytest.raises(
        EngineError, match=r"exported for cpu .* --target cuda, or use --device cpu"
    ):
        opened(bundle, device="cuda")


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (
            {"onnxruntime"},
            r"needs the GPU build.*pip uninstall -y onnxruntime && pip install 'pulse-edge\[gpu\]'",
        ),
        (
            {"onnxruntime", "onnxruntime-gpu"},
            r"both installed.*pip uninstall -y onnxruntime onnxruntime-gpu &&",
        ),
        ({"onnxruntime-gpu"}, r"has no CUDAExecutionProvider; it has CPUExecutionProvider"),
    ],
)
def test_cuda_without_its_provider(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str], message: str
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])

    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    for device in ("auto", "cuda"):
        with pytest.raises(EngineError, match=message):
            opened(cuda_bundle, device=device)


def test_what_suits_a_device(bundle: Path, cuda_bundle: Path, bundles: Bundles) -> None:
    assert [opened(bundle, prefill_chunk=n).describe()["prefill_chunk"] for n in (None, 7, 0)] == [
        512,
        7,
        0,
    ]
    here = opened(bundle)
    assert here.rows(tokens(2)).dtype == np.float32
    assert here.row_cost == 0.4
    assert opened(cuda_bundle, device="cpu").rows(tokens(2)).dtype == np.int64


# --- table and page on the device -----------------------------------------------------------------
# The CPU provider runs the graphs that are made for CUDA: half precision, rows gathered and tokens
# chosen in the graph.


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, count)


def pixels(views: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(views, 3, 56, 56)).astype(np.float32)


def test_a_cuda_bundle_runs_on_the_cpu_when_told_to(cuda_bundle: Path, bundle: Path) -> None:
    """A prompt with a page and steps give the fp32 bundle's numbers, to half precision."""
    got, seen = [], pixels(2)
    for engine in (opened(cuda_bundle, device="cpu"), opened(bundle)):
        assert engine.table_rows == VOCAB
        numbers = np.concatenate([tokens(9), VOCAB + np.arange(32), tokens(5, seed=1)])
        logits = [engine.prefill(engine.rows(numbers, engine.encode(seen)))[None].copy()]
        logits.append(engine.step(engine.rows(tokens(4, seed=2))).copy())
        got.append(np.concatenate(logits))
    assert same(got[0], got[1], 0.02)


def test_the_likeliest_tokens(cuda_bundle: Path, bundle: Path) -> None:
    """`choose` agrees with `step`, in graphs that choose and in those whose logits are read."""
    for engine in (opened(cuda_bundle, device="cpu"), opened(bundle)):
        engine.prefill(engine.rows(tokens(10)))
        for count in (1, 5, 1, GRAPH_ROWS + 1):
            rows, length = engine.rows(tokens(count, seed=count)), engine.length
            chosen = engine.choose(rows)
            assert chosen.dtype == np.int64
            assert chosen.shape == (count,)
            assert engine.length == length + count
            engine.rewind(length)
            assert np.array_equal(engine.step(rows).argmax(axis=1), chosen)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_without_finite_logits_has_no_likeliest_token(
    cuda_bundle: Path, bundle: Path, bad: float, tmp_path: Path
) -> None:
    """Overflow shows as a NaN or an infinity, in the graph and on the host."""
    for path in (cuda_bundle, bundle):
        copy = tmp_path / path.name
        shutil.copytree(path, copy)
        dtype = np.float16 if path == cuda_bundle else np.float32
        table = np.memmap(copy / EMBEDDINGS, dtype, "r+").reshape(VOCAB, HIDDEN)
        table[7] = bad  # a token's embedding
        table.base.flush()  # type: ignore[union-attr]
        altered = open_bundle(copy, check_hashes=False)
        engine = open_engine(altered, EngineOptions("cpu", threads=1))
        assert engine.choose(engine.rows(np.array([7]))).tolist() == [-1]
        engine.rewind(0)
        assert engine.choose(engine.rows(np.array([8])))[0] >= 0


def test_drafts_of_every_length_fit_a_kept_step() -> None:
    assert 1 + max(DRAFTS) <= GRAPH_ROWS


def test_likeliest_on_the_host() -> None:
    logits = np.array([[1, 3, 3], [np.nan, 1, 2], [1, np.inf, 2], [-np.inf, 4, 1]], np.float32)
    assert likeliest(logits).tolist() == [1, -1, -1, 1]


def test_the_device_keeps_one_page(cuda_bundle: Path) -> None:
    """Rows of an earlier page are refused, not taken from the last one."""
    engine, numbers = opened(cuda_bundle, device="cpu"), VOCAB + np.arange(16)
    first = engine.encode(pixels(1))
    features = np.asarray(first, np.float32)
    assert features.shape == (1, 16, HIDDEN)
    engine.rows(numbers, first)
    second = engine.encode(pixels(2, seed=1))
    engine.rows(numbers, second)
    for stale in (first, None):
        with pytest.raises(EngineError, match="last page only"):
            engine.rows(numbers, stale)
    with pytest.raises(EngineError, match="last page only"):
        np.asarray(first)
    with pytest.raises(EngineError, match="6 views, but a page of this model has at most 5"):
        engine.encode(pixels(6))
    assert np.array_equal(np.asarray(engine.encode(pixels(1)), np.float32), features)
    engine.rows(np.arange(VOCAB))  # text needs no page


def test_a_question_after_another_page_was_not_seen_to_its_end(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed page has overwritten the last one's features, so they are computed again."""
    model = pulse_edge.load(cuda_bundle, device="cpu")
    pages = [np.random.default_rng(n).integers(0, 255, (80, 120, 3), np.uint8) for n in range(2)]
    expected = model.ask(pages[0], "Normal?", max_new_tokens=8).token_ids
    real = TowerRun.__call__

    def fails(look: Any, *rest: Any) -> None:
        real(look, *rest)
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(TowerRun, "__call__", fails)
        with pytest.raises(EngineError, match="vision graph failed: out of luck"):
            model.ask(pages[1], "Normal?", max_new_tokens=8)
    model.ask(None, "Normal?", max_new_tokens=1)  # the cache forgets the page
    assert model.ask(pages[0], "Normal?", max_new_tokens=8).token_ids == expected


def test_rows_of_the_wrong_kind(cuda_bundle: Path, bundle: Path) -> None:
    for engine, rows in (
        (opened(cuda_bundle, device="cpu"), embeds(3)),
        (opened(bundle), tokens(3)),
    ):
        for run in (engine.prefill, engine.step, engine.choose):
            with pytest.raises(ValueError, match=r"rows are of shape"):
                run(rows)
            assert engine.length == 0


def test_a_bundle_of_before(cuda_bundle: Path, bundle: Path, tmp_path: Path) -> None:
    """Its decoder takes embeddings; the message says what to do."""
    shutil.copytree(bundle, tmp_path / "old")
    opened_bundle = open_bundle(tmp_path / "old")
    old = replace(opened_bundle, manifest=replace(opened_bundle.manifest, target="cuda"))
    with pytest.raises(
        EngineError, match="exported by an older pulse-edge; export the checkpoint again"
    ):
        open_engine(old, EngineOptions(device="cpu"))


def test_the_whole_prompt_where_memory_allows(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gb = 10**9
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], prefill_chunk=None))
    for free, chunk in ((gb, 0), (0, 512), (None, 2048)):
        monkeypatch.setattr(
            cuda_driver, "gpu_memory", lambda free=free: None if free is None else (free, 2 * gb)
        )
        assert opened(cuda_bundle, device="cpu").describe()["prefill_chunk"] == chunk
    assert opened(cuda_bundle, device="cpu", prefill_chunk=7).describe()["prefill_chunk"] == 7


def test_a_gpu_that_the_wheel_has_no_code_for(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: 100)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(EngineError, match=r"compute capability 10\.0"):
        opened(cuda_bundle, device="cuda")


@pytest.mark.parametrize(
    ("capability", "own", "expected"),
    [
        (90, None, "0"),
        (120, None, "0"),
        (89, None, None),
        (75, None, None),
        (None, None, None),
        (90, "1", "1"),
    ],
)
def test_attention_kernels_by_gpu(
    capability: int | None, own: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XQA is off where cuDNN's attention was measured to be faster, unless the user wants it."""
    monkeypatch.setenv("ORT_ENABLE_XQA", own or "")
    if own is None:
        monkeypatch.delenv("ORT_ENABLE_XQA")
    choose_attention(capability)
    assert os.environ.get("ORT_ENABLE_XQA") == expected


def test_a_provider_s_session_options(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"session.intra_op.allow_spinning": "0"}
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], config=entry))
    settings = opened(bundle).session.get_session_options()
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


# --- a device's own memory, and graphs ------------------------------------------------------------
# No GPU is needed. The CPU provider, with tensors that are copied and graphs that it does not
# capture, runs all but the capture itself.


class Recorded:
    """Copies and runs, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        for name in ("upload", "download"):
            monkeypatch.setattr(DeviceTensor, name, self.counting(getattr(DeviceTensor, name)))

    def counting(self, method: Any) -> Any:
        def wrapped(tensor: DeviceTensor) -> None:
            self.calls.append((method.__name__, tensor.array.nbytes))
            method(tensor)

        return wrapped


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The CPU as a device with memory of its own that takes graphs."""
    graphs = {"a.graph": "1"}
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], shared=False, graphs=graphs))
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    made = ort.InferenceSession

    def session(path: str, settings: Any, providers: Any) -> Any:
        assert providers[0][1] in ({}, graphs)
        return made(path, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", session)
    return Recorded(monkeypatch)


@pytest.fixture(params=["fp32", "int8"])
def quantized(request: pytest.FixtureRequest, bundles: Bundles) -> Path:
    return bundles(request.param)


def test_a_device_s_numbers_are_the_host_s(
    quantized: Path, remote: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the total length that a captured step states."""
    x, away = embeds(40), opened(quantized, prefill_chunk=16)
    monkeypatch.undo()
    here = opened(quantized, prefill_chunk=16)
    for engine in (away, here):
        assert ("cuda_graphs" in engine.describe()) is (engine is away)
    assert same(away.prefill(x[:20]), here.prefill(x[:20]))
    for rows in (1, 1, 4, 1, 9, 4):
        part = x[away.length : away.length + rows]
        assert same(away.step(part), here.step(part))
    for engine in (away, here):
        engine.rewind(11)
    assert same(away.step(x[:2]), here.step(x[:2]))
    pixels = np.random.default_rng(0).normal(size=(2, 3, 56, 56)).astype(np.float32)
    assert same(away.encode(pixels), here.encode(pixels))


def test_a_reset_clears_a_device_s_cache(bundle: Path, remote: Recorded) -> None:
    """Also beyond its length: attention multiplies it with 0, and a NaN stays a NaN."""
    engine = opened(bundle)
    # A new cache is cleared too, because a device's memory holds what others left.
    assert not any(value.numpy().any() for value in engine.cache.values.values())
    engine.prefill(embeds(5))
    engine.rewind(2)
    for value in engine.cache.values.values():
        value.update_inplace(np.full(value.shape(), np.nan, np.float32))
    engine.reset()
    assert engine.length == 0
    assert not any(value.numpy().any() for value in engine.cache.values.values())
    assert np.isfinite(engine.prefill(embeds(5))).all()


def test_a_step_copies_a_row_a_length_and_the_logits(bundle: Path, remote: Recorded) -> None:
    engine, x = opened(bundle), embeds(3)
    engine.step(x[:1])
    remote.calls.clear()
    engine.step(x[1:2])
    assert remote.calls == [("upload", 4 * HIDDEN), ("upload", 4), ("download", 4 * VOCAB)]


def test_steps_of_a_size_are_one_graph_and_prompts_none(bundle: Path, remote: Recorded) -> None:
    engine = opened(bundle)
    ran, run = [], engine.session.run_with_iobinding

    def record(binding: Any, options: Any) -> None:
        ran.append(options.get_run_config_entry("gpu_graph_id"))
        run(binding, options)

    engine.session.run_with_iobinding = record
    engine.prefill(embeds(20))
    for rows in (1, 4, 1, GRAPH_ROWS + 1):
        engine.step(embeds(rows))
    assert ran == ["-1", "1", "4", "1", "-1"]
    assert [engine.step_run(rows).total for rows in (1, 4)] == [512, 512]
    assert engine.describe()["cuda_graphs"] is True


def test_without_capture_where_the_provider_refuses_it(
    cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also checks the options that the CUDA provider gets."""
    asked, made = [], ort.InferenceSession
    names = {(cuda_bundle / name).read_bytes(): name for name in (VISION_GRAPH, DECODER_GRAPH)}

    def session(graph: bytes, settings: Any, providers: Any) -> Any:
        ((name, options),) = providers
        asked.append((names[graph], options))
        if "enable_cuda_graph" in options:
            raise RuntimeError(
                "This session cannot use the graph capture feature as requested by the user"
            )
        loaded = made(graph, settings, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(loaded, "get_providers", lambda: [name])
        return loaded

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    here = ort.OrtValue.ortvalue_from_shape_and_type
    monkeypatch.setattr(
        ort.OrtValue,
        "ortvalue_from_shape_and_type",
        lambda shape, kind, device, number: here(shape, kind),
    )
    engine = opened(cuda_bundle)
    plain = {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "DEFAULT",
        "cudnn_conv_use_max_workspace": "0",
    }
    assert [options for name, options in asked if name == VISION_GRAPH] == [plain]
    assert [options for name, options in asked if name == DECODER_GRAPH] == [
        plain | {"enable_cuda_graph": "1"},
        plain,
    ]
    assert engine.describe()["cuda_graphs"] is False
    engine.step(engine.rows(tokens(1)))
    assert engine.step_run(1).total == 1


def test_a_device_without_memory_says_what_to_lower(
    bundle: Path, remote: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, made = opened(bundle), ort.OrtValue.ortvalue_from_shape_and_type

    def full(*_: Any) -> Any:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 4194304")

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", full)
    with pytest.raises(
        EngineError, match=r"no memory for 40 tokens at a time .*lower --prefill-chunk"
    ):
        engine.prefill(embeds(40))
    with pytest.raises(EngineError, match=r"no memory for a cache of 512 tokens .*lower --context"):
        opened(bundle)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", made)
    assert engine.length == 0
    engine.prefill(embeds(40))


@pytest.mark.parametrize("graph", [VISION_GRAPH, DECODER_GRAPH])
def test_a_graph_that_onnx_runtime_refuses_is_an_engine_error(
    bundle: Path, tmp_path: Path, graph: str
) -> None:
    """With the integrity check switched off, damage reaches ONNX Runtime."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    file = copy / graph
    content = file.read_bytes()
    assert content.count(b"MatMul") > 1
    file.write_bytes(content.replace(b"MatMul", b"MatMux"))
    damaged = open_bundle(copy, check_hashes=False)
    with pytest.raises(EngineError, match=rf"{graph}: ONNX Runtime cannot load it \(.+\)$"):
        open_engine(damaged, EngineOptions(threads=1))
