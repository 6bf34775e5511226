"""Engine `native` on a real GPU, against ONNX Runtime on the same GPU and the same bundle."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fixture_types import Bundles
from support.paths import ROOT

pytest.importorskip("onnxruntime")
pytest.importorskip("cuda.bindings", reason="needs pulse-edge[native]")

import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.cubins import cubin_folder
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines import cuda_runtime as cuda
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.native.check import BOUND
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine
from pulse_edge.errors import EngineError

VISION = {"vision_width": 512, "vision_heads": 8, "vision_mlp": 2048}
CONTEXT = 1024


def shape(head_size: int, heads: int, kv_heads: int, ffn: int) -> dict[str, Any]:
    return {
        "hidden": head_size * heads,
        "heads": heads,
        "kv_heads": kv_heads,
        "ffn": ffn,
        "context": CONTEXT,
        **VISION,
    }


# Precision and block, head size, heads, heads of keys and values, inner width.
DECODERS = {
    "int4-128, heads of 128": ("int4", 128, shape(128, 4, 4, 1024)),
    "int4-32, heads of 64, grouped": ("int4", 32, shape(64, 8, 2, 896)),
    "int4-64, heads of 32": ("int4", 64, shape(32, 8, 8, 640)),
    "int8-128, heads of 128, grouped": ("int8", 128, shape(128, 4, 1, 1024)),
    "int8-32, heads of 64": ("int8", 32, shape(64, 4, 4, 384)),
    "int8-64, heads of 32": ("int8", 64, shape(32, 4, 4, 512)),
    "fp16, heads of 64, grouped": ("fp16", None, shape(64, 8, 4, 896)),
    "fp16, heads of 128": ("fp16", None, shape(128, 4, 4, 1024)),
}


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


@pytest.fixture(scope="module", params=DECODERS)
def bundle(request: pytest.FixtureRequest, bundles: Bundles) -> Bundle:
    precision, block, geometry = DECODERS[request.param]
    return open_bundle(bundles(precision, block, "cuda", **geometry))


@pytest.fixture(scope="module")
def pair(bundle: Bundle) -> Iterator[tuple[Engine, Engine]]:
    """Both engines, once for each bundle; their caches are empty when a test begins."""
    yield on("native", bundle), on("onnxruntime", bundle)
    gc.collect()


@pytest.fixture
def native(pair: tuple[Engine, Engine]) -> Engine:
    pair[0].reset()
    return pair[0]


@pytest.fixture
def base(pair: tuple[Engine, Engine]) -> Engine:
    pair[1].reset()
    return pair[1]


@pytest.fixture
def one(bundles: Bundles) -> Bundle:
    """The first, for tests that no geometry matters to."""
    precision, block, geometry = next(iter(DECODERS.values()))
    return open_bundle(bundles(precision, block, "cuda", **geometry))


def on(engine: str, bundle: Bundle, **options: Any) -> Engine:
    return open_engine(bundle, EngineOptions(device="cuda", engine=engine, **options))


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 512, count)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest of a row, in the 2-norm."""
    difference = np.linalg.norm(got.astype(np.float64) - expected, axis=-1)
    return float((difference / np.linalg.norm(expected, axis=-1)).max())


def run(engine: Engine, x: np.ndarray) -> np.ndarray:
    """Logits after a prompt of 600 tokens, then of steps of 1 to 8 rows twice, then of one row."""
    engine.rewind(0)
    found = [engine.prefill(x[:600])[None].copy()]
    at = 600
    for rows in (*range(1, 9), *range(8, 0, -1), *[1] * 10):
        found.append(engine.step(x[at : at + rows]).copy())
        at += rows
    return np.concatenate(found)


def test_logits_are_those_of_onnx_runtime(
    bundle: Bundle, native: Engine, base: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after prompts that fill no split, and at the cache's end."""
    x = tokens(CONTEXT)
    described = native.describe()
    got, expected = run(native, x), run(base, x)
    worst = error(got, expected)
    with capsys.disabled():
        print(f"\n{bundle.manifest.precision.name}: error {worst:.2g}; {described['native']}")
    assert described["engine"] == "native"
    assert worst < BOUND
    for length in (1, 15, 63, 64, 65, 255, 256, 257, 700, CONTEXT - 8):
        for engine in (native, base):
            engine.rewind(0)
            engine.prefill(x[:length])
        assert error(native.step(x[length:][:8]), base.step(x[length:][:8])) < BOUND, length


def test_a_page_comes_from_the_shared_table(native: Engine, base: Engine) -> None:
    """Rows of features, which the tower wrote into the table, as rows of a step."""
    pixels = np.random.default_rng(5).normal(size=(2, 3, 56, 56)).astype(np.float32)
    logits = []
    for engine in (native, base):
        page = engine.encode(pixels)
        engine.prefill(engine.rows(np.concatenate([tokens(9), 512 + np.arange(20)]), page))
        logits.append(engine.step(engine.rows(512 + np.arange(20, 27), page)).copy())
    assert error(*logits) < BOUND


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 12])
def test_choices_are_the_largest_logits(one: Bundle, rows: int) -> None:
    native, x = on("native", one), tokens(200)
    native.prefill(x[:50])
    for at in range(50, 54):
        part = x[at : at + rows]
        chosen = native.choose(part)
        native.rewind(50)
        logits = native.step(part)
        native.rewind(50)
        assert (logits[np.arange(rows), chosen] == logits.max(axis=1)).all()


def test_the_same_bytes_twice(bundle: Bundle, native: Engine) -> None:
    """First runs, replays and another engine."""
    x = tokens(CONTEXT)
    logits = run(native, x)
    assert np.array_equal(run(native, x), logits)
    assert np.array_equal(run(on("native", bundle), x), logits)


def test_rewound_drafts(native: Engine) -> None:
    """Rejected drafts leave nothing behind: steps and drafts are one computation."""
    x = tokens(200)
    native.prefill(x[:100])
    singles = np.concatenate([native.step(row[None]).copy() for row in x[100:108]])
    for rows in range(2, 9):
        native.rewind(100)
        native.step(tokens(8, seed=rows))
        native.rewind(100)
        assert error(native.step(x[100 : 100 + rows]), singles[:rows]) < BOUND


def test_onnx_runtime_and_kernels_in_turns(native: Engine, base: Engine) -> None:
    """Each reads what the other wrote to the cache."""
    x = tokens(400)
    for engine in (native, base):
        engine.prefill(x[:30])
    at, worst = 30, 0.0
    for rows in (1, 12, 8, 3, 20, 1, 1, 9, 2):
        part = x[at : at + rows]
        worst = max(worst, error(native.step(part).copy(), base.step(part).copy()))
        at += rows
        assert native.length == base.length == at
        if rows == 3:
            logits = [engine.prefill(x[at : at + 17]).copy() for engine in (native, base)]
            worst = max(worst, error(*logits))
            at += 17
    assert worst < BOUND


def test_a_cache_that_is_full(one: Bundle) -> None:
    native, x = on("native", one, context=64), tokens(80)
    native.prefill(x[:60])
    before = native.step(x[60:62]).copy()
    native.rewind(60)
    with pytest.raises(EngineError, match="do not fit"):
        native.step(x[60:68])
    assert native.length == 60
    assert np.array_equal(native.step(x[60:62]), before)


def test_cancelled_and_failed_calls(one: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length stays, and later calls give the same bytes."""
    native, x = on("native", one, prefill_chunk=10), tokens(100)
    native.prefill(x[:40])
    expected = native.step(x[40:43]).copy()
    native.rewind(40)
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled):
        native.prefill(x[40:90], cancellation=cancellation)
    assert native.length == 40
    assert np.array_equal(native.step(x[40:43]), expected)
    native.rewind(40)
    with pytest.raises(ValueError, match="rows"):
        native.step(np.zeros((2, 512), np.float16))
    with pytest.raises(ValueError, match="slot"):
        native.step(x[40:42], slot=1)
    assert np.array_equal(native.step(x[40:43]), expected)


def test_logits_that_are_not_finite(one: Bundle) -> None:
    native = on("native", one)
    expected = run(native, tokens(CONTEXT))
    page = native.encode(np.full((2, 3, 56, 56), np.inf, np.float32))
    native.reset()
    native.prefill(native.rows(512 + np.arange(32), page))
    assert native.choose(tokens(1)).tolist() == [-1]
    assert native.choose(tokens(3)).tolist() == [-1, -1, -1]
    native.reset()
    assert np.array_equal(run(native, tokens(CONTEXT)), expected)


def free_memory() -> int:
    gc.collect()
    return int(cuda.Cuda()("cudaMemGetInfo")[0])


def test_memory(bundles: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights lie there once, and engines give back what they took."""
    geometry = shape(128, 16, 16, 5504) | {"layers": 4}
    opened = open_bundle(bundles("int4", 128, "cuda", **geometry))
    weights = opened.manifest
    size = next(f.size for f in weights.files if f.path == "decoder.onnx.data")
    for name in ("onnxruntime", "native"):
        run(on(name, opened), tokens(CONTEXT))  # CUDA's context, kernels, arenas
    taken: dict[str, list[int]] = {"onnxruntime": [], "native": []}
    left = []
    for name in ("onnxruntime", "native") * 2:
        before = free_memory()
        engine = on(name, opened)
        run(engine, tokens(CONTEXT))
        taken[name].append(before - free_memory())
        del engine
        left.append(free_memory())
    with capsys.disabled():
        print(f"\nweights {size / 1e6:.0f} MB; taken, bytes: {taken}; left {left}")
    assert min(taken["native"]) - min(taken["onnxruntime"]) < size / 2
    assert max(left[1:]) - min(left[1:]) < 16 << 20


def test_answers_of_pulse_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Greedy tokens are equal, or part where the two best logits are nearly equal."""
    from pulse_export.pipeline import export

    checkpoint = ROOT / "pulse_nano" / "pulse-nano"
    question = "What is the heart rate?"
    for precision in ("int4", "fp16"):
        export(checkpoint, tmp_path / precision, precision=precision, target="cuda")
        answers = {}
        for name in ("native", "onnxruntime"):
            model = pulse_edge.load(tmp_path / precision, device="cuda", engine=name)
            for speculate in (False, True):
                answer = model.ask(SAMPLE_PAGE, question, max_new_tokens=64, speculate=speculate)
                answers[name, speculate] = answer.token_ids
        with capsys.disabled():
            print(f"\npulse-nano {precision}: {len(set(answers.values()))} different answers")
            for key, found in answers.items():
                print(f"  {key}: {found[:24]}")
        first = answers["onnxruntime", False]
        assert all(found[:3] == first[:3] for found in answers.values())


def test_kernels_of_the_bundle(one: Bundle, tmp_path: Path) -> None:
    """Those that `build` made run; altered ones do not."""
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(one.path, copy)
    opened = open_bundle(copy)
    capability = cuda.Cuda().capability()
    engine_module("native").build_kernels(opened, f"sm{capability}")
    expected = run(on("native", one), tokens(CONTEXT))
    assert np.array_equal(run(on("native", opened), tokens(CONTEXT)), expected)
    cubin = next(cubin_folder(opened, capability).glob("*.cubin"))
    cubin.write_bytes(cubin.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineError, match="altered"):
        on("native", opened)


CHILD = """
import sys
import numpy as np
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
engine = open_engine(open_bundle(sys.argv[1]), EngineOptions(device="cuda", engine="native"))
engine.prefill(np.arange(20))
print("chosen", engine.choose(np.arange(3)).tolist())
"""


def test_the_end_of_a_process(one: Bundle) -> None:
    """An engine that nobody closes does not crash the interpreter's exit."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(one.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("chosen")
    assert "rror" not in done.stderr


def test_several_threads(one: Bundle) -> None:
    """The context is current wherever a call comes from."""
    import threading

    native, x = on("native", one), tokens(60)
    native.prefill(x[:40])
    expected = native.step(x[40:43]).copy()
    found: list[np.ndarray] = []

    def work() -> None:
        native.rewind(40)
        found.append(native.step(x[40:43]).copy())

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert all(np.array_equal(logits, expected) for logits in found)
