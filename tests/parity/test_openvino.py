"""OpenVINO keeps the contract of `Engine`, and gives ONNX Runtime's numbers.

These need `openvino`, and are skipped without it.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines.openvino import OpenVinoEngine
from pulse_edge.engines.openvino_graph import stateful_decoder
from pulse_edge.engines.openvino_requests import native_type
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import BundleError, EngineError

from support.fixture_types import Bundles, Checkpoints
from support.numbers import relative
from support.paths import ROOT
from support.traced import trace, why_no_trace

openvino = pytest.importorskip("openvino", reason="needs pulse-edge[openvino]")

pytestmark = pytest.mark.parity

HIDDEN, VOCAB = 64, 512
SAME = 1e-5  # of the largest logit


def opened(bundle: Path, **options: Any) -> OpenVinoEngine:
    defaults: dict[str, Any] = {"threads": 1, "engine": "openvino"}
    chosen = EngineOptions(**defaults | options)
    engine = open_engine(open_bundle(bundle), chosen)
    assert isinstance(engine, OpenVinoEngine)
    return engine


@pytest.fixture(scope="module")
def shared(bundle: Path) -> OpenVinoEngine:
    return opened(bundle)


@pytest.fixture
def engine(shared: OpenVinoEngine) -> OpenVinoEngine:
    """Of the fp32 bundle, and empty."""
    shared.reset()
    return shared


def embeds(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


def pixels(views: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(views, 3, 56, 56)).astype(np.float32)


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("execution", "precision", "block_size", "cache", "bound"),
    [
        ("f32", "fp32", None, "float", SAME),
        ("f32", "fp32", None, "int8", 0.05),
        ("f32", "int8", None, "float", 0.05),
        ("f32", "int4", 32, "float", 0.05),
        ("f32", "int4", 64, "int8", 0.05),
        ("f32", "w8a8", None, "float", 0.05),
        ("native", "int8", 32, "float", 0.05),
        ("native", "int4", 32, "int8", 0.05),
        ("native", "w8a8", 32, "float", 0.05),
    ],
)
def test_logits_are_those_of_onnx_runtime(
    bundles: Bundles,
    monkeypatch: pytest.MonkeyPatch,
    execution: str,
    precision: str,
    block_size: int | None,
    cache: str,
    bound: float,
) -> None:
    """Of a prompt, of a step, of several rows, and after a rewind. Rounding of activations and of
    the cache differs. On a CPU that has nothing but float32, and on this one."""
    if execution == "f32":
        monkeypatch.setattr("pulse_edge.engines.openvino.native_type", lambda: execution)
    path = bundles(precision, block_size, cache=cache)
    both = opened(path), open_engine(open_bundle(path), EngineOptions(threads=1))
    x = embeds(60)
    logits: list[list[Any]] = []
    for engine in both:
        logits.append([engine.prefill(x[:40])[None].copy()])
        logits[-1] += [engine.step(x[40:41]).copy(), engine.step(x[41:45]).copy()]
        engine.rewind(20)
        logits[-1] += [engine.prefill(x[45:])[None].copy(), engine.step(x[:1]).copy()]
    for got, expected in zip(*logits, strict=True):
        assert relative(got, expected) < bound
        assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.998
    assert relative(both[0].encode(pixels(3)), both[1].encode(pixels(3))) < bound


@pytest.mark.parametrize("options", [{"kv_heads": 2}, {"kv_heads": 1, "merge": "spatial_unpad"}])
def test_heads_that_share_keys(bundles: Bundles, options: dict[str, Any]) -> None:
    path = bundles(**options)
    engine, other = opened(path), open_engine(open_bundle(path), EngineOptions(threads=1))
    assert relative(engine.step(embeds(30)), other.step(embeds(30))) < SAME
    assert relative(engine.step(embeds(2, 1)), other.step(embeds(2, 1))) < SAME


def test_answers_are_those_of_onnx_runtime(bundle: Path) -> None:
    """Greedily, in fp32: pages, further questions about them, text, and a page once more."""
    pages = [np.random.default_rng(n).integers(0, 255, (80, 120, 3), np.uint8) for n in range(2)]
    told = []
    for name in ("openvino", "onnxruntime"):
        model = pulse_edge.load(bundle, threads=1, engine=name)
        answers = [
            model.ask(page, question, max_new_tokens=16)
            for page in (pages[0], None, pages[1], pages[0])
            for question in ("Normal?", "What is the rate?")
        ]
        told.append([answer.token_ids for answer in answers])
        assert answers[-1].provenance["engine"]["engine"] == name
    assert told[0] == told[1]


def test_the_plugin_runs_each_attention_with_its_cache_as_one_node(bundles: Bundles) -> None:
    """Else every step would copy the cache."""
    engine = opened(bundles("int4", 32, cache="int8", kv_heads=2))
    model = engine.decoder.model
    operations = model.get_runtime_model().get_ordered_ops()
    kinds = Counter(str(node.get_rt_info()["layerType"].value) for node in operations)
    assert kinds["ScaledDotProductAttention"] == 2
    assert kinds["MemoryInput"] == kinds["RoPE"] == 4
    assert not {"Softmax", "MatMul", "GroupQueryAttention"} & kinds.keys()
    assert model.get_property("KV_CACHE_PRECISION") == openvino.Type.u8


def test_the_same_input_gives_the_same_bytes(bundles: Bundles) -> None:
    path = bundles("int4", 32, cache="int8")
    x, runs = embeds(50), []
    for engine in (opened(path), opened(path)):
        for _ in range(2):
            engine.reset()
            runs.append([engine.prefill(x).copy(), engine.step(x[:3]).copy()])
    for run in runs[1:]:
        np.testing.assert_array_equal(run[0], runs[0][0])
        np.testing.assert_array_equal(run[1], runs[0][1])


# --- prefill, step, rewind ------------------------------------------------------------------------


def test_several_rows_are_as_many_single_steps(engine: OpenVinoEngine) -> None:
    x = embeds(20)
    engine.prefill(x[:12])
    together = engine.step(x[12:]).copy()
    assert (together.shape, engine.length) == ((8, VOCAB), 20)
    engine.rewind(12)
    single = np.concatenate([engine.step(row[None]) for row in x[12:]])
    assert relative(together, single) < SAME
    engine.rewind(0)
    assert relative(engine.prefill(x), together[-1]) < SAME
    engine.rewind(12)
    assert engine.choose(x[12:]).tolist() == together.argmax(axis=1).tolist()


def test_rewinding_forgets(engine: OpenVinoEngine) -> None:
    x, other = embeds(10), embeds(10, seed=1)
    first = engine.prefill(x).copy()
    engine.rewind(4)
    elsewhere = engine.prefill(other).copy()
    engine.rewind(4)
    assert relative(engine.prefill(x[4:]), first) < SAME
    assert relative(elsewhere, first) > 0.01
    for length in (-1, 11):
        with pytest.raises(ValueError, match=f"10 to {length}"):
            engine.rewind(length)


@pytest.mark.parametrize(("cache", "bound"), [("float", SAME), ("int8", 0.05)])
def test_rewinding_again_and_again(bundles: Bundles, cache: str, bound: float) -> None:
    """As rejected drafts do: what is forgotten does not pile up, and nothing else is."""
    path = bundles(cache=cache)
    engine, plain = opened(path, context=40), opened(path, context=40)
    kept: list[int] = []
    x, random = embeds(400), np.random.default_rng(0)
    copied = 0
    for start in range(0, 390, 7):
        while len(kept) > 33:
            kept = kept[: int(random.integers(1, 30))]
            engine.rewind(len(kept))
        before = engine.cached.total
        last = engine.step(x[start : start + 7])[-1]
        copied += engine.cached.total < before
        kept += range(start, start + 7)
        assert engine.cached.total <= engine.cached.most
        assert engine.length == len(kept)
    assert copied > 1
    plain.prefill(x[kept[:-7]])
    assert relative(last, plain.step(x[kept[-7:]])[-1]) < bound


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 0])
def test_a_prompt_in_chunks_is_the_prompt(bundle: Path, engine: OpenVinoEngine, chunk: int) -> None:
    x, told = embeds(100), []
    parts = opened(bundle, prefill_chunk=chunk)
    logits = parts.prefill(x, lambda stage, done, total: told.append((stage, done, total)))
    assert relative(logits, engine.prefill(x)) < SAME
    assert {(stage, total) for stage, _, total in told} == {("prefill", 100)}
    assert sum(done for _, done, _ in told) == parts.length == 100


def test_a_full_cache_refuses_more(bundle: Path, engine: OpenVinoEngine) -> None:
    small, x = opened(bundle, context=16), embeds(17)
    assert small.capacity == 16
    for length in (0, 15, 16):
        small.rewind(0)
        if length:
            small.prefill(x[:length])
        append = small.step if length else small.prefill
        with pytest.raises(EngineError, match=r"17 tokens do not fit a cache of 16"):
            append(x[length:])
        assert small.length == length
    small.rewind(0)
    assert relative(small.prefill(x[:16]), engine.prefill(x[:16])) < SAME


@pytest.mark.parametrize("shape", [(1, HIDDEN + 1), (HIDDEN,), (1, 1, HIDDEN), (3,)])
def test_rows_of_the_wrong_kind(engine: OpenVinoEngine, shape: tuple[int, ...]) -> None:
    for run in (engine.prefill, engine.step, engine.choose):
        with pytest.raises(ValueError, match=r"rows are of shape"):
            run(np.zeros(shape, np.float32))
        assert engine.length == 0


def test_views_do_not_see_each_other(engine: OpenVinoEngine) -> None:
    seen = pixels(5)
    features = engine.encode(seen)
    assert features.shape == (5, 16, HIDDEN)
    for view, feature in zip(seen, features, strict=True):
        assert relative(engine.encode(view[None])[0], feature) < SAME
    with pytest.raises(EngineError, match="the vision graph failed"):
        engine.encode(np.zeros((1, 4, 56, 56), np.float32))


# --- what ends early ------------------------------------------------------------------------------


class Before(Cancellation):
    """Is requested once the call has said how to interrupt it, and before it starts."""

    @contextmanager
    def interrupting(self, interrupt: Any) -> Iterator[None]:
        with super().interrupting(interrupt):
            self.request()
            yield


@pytest.mark.parametrize("length", [0, 6])
def test_a_cancelled_prompt_leaves_the_cache_as_it_was(
    bundle: Path, engine: OpenVinoEngine, length: int
) -> None:
    x = embeds(30)
    expected = engine.prefill(x).copy()
    cancelled = opened(bundle, prefill_chunk=8)
    cancelled.rewind(0)
    if length:
        cancelled.prefill(x[:length])
    cancellation = Cancellation()

    def progress(stage: str, done: int, total: int) -> None:
        if done:
            cancellation.request()

    with pytest.raises(Cancelled):
        cancelled.prefill(embeds(20, 1), progress, cancellation=cancellation)
    assert cancelled.length == length
    for late in (Before(), Before()):
        with pytest.raises(Cancelled):
            cancelled.prefill(embeds(20, 2), cancellation=late)
    assert cancelled.length == length
    assert relative(cancelled.prefill(x[length:], cancellation=Cancellation()), expected) < SAME


class Soon(Cancellation):
    """Is requested by another thread while the call runs."""

    @contextmanager
    def interrupting(self, interrupt: Any) -> Iterator[None]:
        thread = threading.Thread(target=self.request)
        with super().interrupting(interrupt):
            thread.start()
            yield
        thread.join()


def test_a_run_is_cancelled_amid(bundles: Bundles) -> None:
    path = bundles(hidden=128, heads=2, ffn=4096, layers=4)
    engine = opened(path, prefill_chunk=0)
    x = np.random.default_rng(0).normal(size=(512, 128)).astype(np.float32)
    expected = engine.prefill(x).copy()
    engine.rewind(100)
    with pytest.raises(Cancelled):
        engine.prefill(x[100:], cancellation=Soon())
    assert engine.length == 100
    assert relative(engine.prefill(x[100:]), expected) < SAME


def test_a_page_that_is_cancelled(engine: OpenVinoEngine) -> None:
    expected = engine.encode(pixels(2))
    with pytest.raises(Cancelled):
        engine.encode(pixels(2), Before())
    np.testing.assert_array_equal(engine.encode(pixels(2), Cancellation()), expected)


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), KeyboardInterrupt()])
@pytest.mark.parametrize("length", [0, 9])
def test_a_run_that_fails_after_it_has_written(
    engine: OpenVinoEngine,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    length: int,
) -> None:
    x = embeds(20)
    expected = engine.prefill(x).copy()
    engine.rewind(length)
    real = engine.decoder.run

    def fails(*arguments: Any) -> None:
        real(*arguments)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine.decoder, "run", fails)
        with pytest.raises((EngineError, KeyboardInterrupt)) as raised:
            engine.step(embeds(4, seed=5))
    if isinstance(error, RuntimeError):
        assert str(raised.value) == f"the decoder graph failed at {length + 4} tokens: out of luck"
    assert engine.length == length
    assert relative(engine.prefill(x[length:]), expected) < SAME


def test_a_copy_that_is_interrupted(
    engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some layers are copied then and others are not: what is left is nobody's sequence."""
    x = embeds(20)
    expected = engine.prefill(x).copy()
    engine.rewind(9)
    states = list(engine.decoder.states().items())

    def half() -> dict[str, Any]:
        class Broken:
            @property
            def state(self) -> Any:
                raise KeyboardInterrupt

        return dict([*states[:2], ("broken", Broken())])

    with monkeypatch.context() as patch:
        patch.setattr(engine.cached, "most_forgotten", 0)
        patch.setattr(engine.decoder, "states", half)
        with pytest.raises(KeyboardInterrupt):
            engine.step(x[9:])
    assert engine.length == 9
    for run in (engine.step, engine.prefill):
        with pytest.raises(EngineError, match="cache was lost when a call was interrupted; ask ag"):
            run(x[9:])
    engine.reset()
    assert relative(engine.prefill(x), expected) < SAME


# --- the bundle -----------------------------------------------------------------------------------


def mapped_files() -> dict[str, int]:
    """Resident bytes of each mapped file of weights, by its name."""
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("needs Linux's /proc")
    resident: dict[str, int] = {}
    name = ""
    for line in smaps.read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = line.split("/", 1)[-1] if line.endswith(".onnx.data") else ""
        elif name and line.startswith("Rss:"):
            resident[name] = resident.get(name, 0) + 1024 * int(line.split()[1])
    return resident


@pytest.mark.parametrize(
    ("precision", "block_size"), [("int4", 32), ("int8", None), ("w8a8", None), ("fp32", None)]
)
def test_no_run_reads_the_weights_from_their_files(
    checkpoints: Checkpoints, tmp_path: Path, precision: str, block_size: int | None
) -> None:
    """Codes are packed while the bundle is loaded, and what is read in place is a copy."""
    from pulse_export.pipeline import export

    path = tmp_path / "bundle"
    export(
        checkpoints(hidden=256, heads=4, ffn=704), path, precision=precision, block_size=block_size
    )
    engine = opened(path)
    x = np.random.default_rng(0).normal(size=(300, 256)).astype(np.float32)
    for rows in (1, 2, 5, 17, 33, 64, 128, 300):
        engine.rewind(0)
        engine.step(x[:rows])
    engine.encode(pixels(5))
    own = {name: size for name, size in mapped_files().items() if str(tmp_path)[1:] in name}
    assert bool(own) == (precision != "fp32")
    assert sum(own.values()) == 0


def test_a_file_that_is_written_to_after_the_load(bundles: Bundles, tmp_path: Path) -> None:
    path = copied(bundles("int4", 32), tmp_path)
    engine = opened(path)
    engine.prefill(embeds(3))
    weights = path / "decoder.onnx.data"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="was changed while it was in use; load it again"):
        engine.prefill(embeds(3))


def test_an_altered_weight_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    path = copied(bundles("int4", 32), tmp_path)
    weights = path / "decoder.onnx.data"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"decoder\.onnx\.data: altered"):
        pulse_edge.load(path, engine="openvino", threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "no.such.weight"},
            r"reads 'no\.such\.weight' in a way of its own.*--engine onnx",
        ),
        (
            {"size": 8},
            r"takes \d+ bytes for 'layers\.0\..*', which has 8; use --engine onnxruntime",
        ),
    ],
)
def test_a_weight_that_is_converted_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    """What OpenVINO would make of it could not be compared with what was hashed."""
    found = open_bundle(bundle).tensors(DECODER_GRAPH)
    chosen = next(tensor for tensor in found if tensor.name.startswith("layers.0."))
    altered = (*(t for t in found if t is not chosen), replace(chosen, **change))
    monkeypatch.setattr(Bundle, "tensors", lambda self, graph: altered)
    with pytest.raises(EngineError, match=message):
        opened(bundle)


@pytest.mark.parametrize(
    ("layers", "value", "message"),
    [
        (3, 0.0, "it has 2 nodes GroupQueryAttention for 3 layers"),
        (2, 0.5, r"its attention has scale 0\.0, not 0\.5; use --engine onnxruntime"),
    ],
)
def test_an_attention_of_another_kind_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, layers: int, value: float, message: str
) -> None:
    monkeypatch.setattr("pulse_edge.engines.openvino_graph.ATTRIBUTES", {"scale": value})
    text = replace(open_bundle(bundle).manifest.model.text, layers=layers)
    model = openvino.Core().read_model(bundle / DECODER_GRAPH)
    with pytest.raises(EngineError, match=f"^engine openvino cannot run this decoder: {message}"):
        stateful_decoder(model, text)


def copied(bundle: Path, folder: Path) -> Path:
    path = folder / "copy"
    path.mkdir()
    for file in bundle.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_options_reach_the_plugin(bundles: Bundles) -> None:
    engine = opened(bundles(cache="int8"), threads=2, context=100, prefill_chunk=9)
    model = engine.decoder.model
    assert model.get_property("INFERENCE_NUM_THREADS") == 2
    assert model.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    told = engine.describe()
    assert re.fullmatch(r"\d+\.\d+\.\d+", told.pop("engine_version"))
    assert told == {
        "engine": "openvino",
        "device": "cpu",
        "provider": "CPU",
        "threads": 2,
        "context": 100,
        "prefill_chunk": 9,
        "execution": "f32",
        "cache": "u8",
    }


def test_an_fp32_bundle_runs_in_float32(bundles: Bundles) -> None:
    """Whatever the CPU has. Others run in what it has, and say so; but not if a block is not full,
    which crashes OpenVINO 2026.4.1 in bfloat16."""
    full, packed, padded = (
        opened(bundles(*precision)) for precision in ((), ("int4", 32), ("int8", 64))
    )
    for engine, execution in ((full, "f32"), (packed, native_type()), (padded, "f32")):
        assert engine.describe()["execution"] == engine.describe()["cache"] == execution
        found = engine.decoder.model.get_property("INFERENCE_PRECISION_HINT")
        assert found.get_type_name() == execution
    model = packed.decoder.model
    assert model.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 32


# --- the process ----------------------------------------------------------------------------------

LOAD = """
import os, sys, numpy as np
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
engine = open_engine(open_bundle(sys.argv[1]), EngineOptions(threads=2, engine="openvino"))
engine.encode(np.zeros((1, 3, 56, 56), np.float32))
engine.prefill(np.zeros((40, 64), np.float32))
assert "CI" not in os.environ
"""
FORK = """
if (child := os.fork()) == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(bool(why_no_trace()), reason=why_no_trace())
def test_it_asks_no_network_and_writes_no_file(bundle: Path, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    places = os.pathsep.join(filter(None, (str(ROOT), variables.get("PYTHONPATH"))))
    variables |= {"HOME": str(tmp_path), "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    command: list[str | Path] = [sys.executable, "-c", LOAD, bundle]
    traced = trace(command, tmp_path / "log", variables, tmp_path)
    assert traced.code == 0, traced.stderr
    assert traced.network() == []
    assert traced.writes_outside([]) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ends(bundle: Path) -> None:
    """OpenVINO's threads exist in the parent alone, and nothing may wait for them."""
    import subprocess

    variables = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-c", LOAD + FORK, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)
    assert done.stdout == "7\n", done.stderr
