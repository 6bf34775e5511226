"""What `pulse-edge bench` measures, from a request down to the engine. One run is one record, JSON-ready, whose schema
is docs/bench.schema.json; `figures.py` compares and prints records.

A repetition is a cold request (nothing known of the page), then a second question about the same page (warm). Then the
engine alone, in llama-bench's manner: `pp512` prefills 512 positions, `tg128 @ d512` takes 128 steps after 512.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from pulse_edge import system
from pulse_edge.answer import Answer
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure.figures import SCHEMA_VERSION, Better, Point, Unit, figure, point_name
from pulse_edge.measure.peaks import Peaks, measure_peaks
from pulse_edge.model import Model
from pulse_edge.page.source import ImageSource, read_page
from pulse_edge.page.views import preprocess
from pulse_edge.progress import Progress

_T = TypeVar("_T")
PAGE = Path(__file__).parents[1] / "assets" / "sample.png"
QUESTIONS = ("Please write a clinical report based on this ECG image.", "What is the heart rate?")  # cold, warm

# name: what it is, unit, which way is better, whether a comparison may fail on it (not what is timed only once)
FIGURES: dict[str, tuple[str, Unit, Better, bool]] = {
    "load_check": ("SHA-256 of the bundle's files", "s", "lower", False),
    "load_engine": ("sessions and cache made; the page cache as it was", "s", "lower", False),
    "ttft_first": ("time to first token of the first request after loading", "s", "lower", False),
    "decode_image": ("image file to RGB pixels", "s", "lower", False),
    "preprocess": ("pixels to normalised views", "s", "lower", False),
    "vision": ("all views to image tokens: tower, projector and merge", "s", "lower", False),
    "projector": ("of vision: the projector's kernels, from the engine's profile; CPU only", "s", "lower", False),
    "vision_per_view": ("vision / views", "s", "lower", False),
    "prefill": ("the whole prompt through the decoder", "s", "lower", False),
    "decode_step": ("engine time of one token after the first", "s", "lower", False),
    "sample": ("logits to a token, per token", "s", "lower", False),
    "detokenise": ("a token to text, per token", "s", "lower", False),
    "outside_engine": ("TPOT less the decode step: sampling, text, embedding, our loop", "s", "lower", False),
    "ttft_cold": ("time to first token, nothing known of the page; reading its file not included", "s", "lower", True),
    "ttft_warm": ("the same for a second question about the page", "s", "lower", True),
    "tpot": ("time per output token: (E2E - TTFT) / (N - 1), cold requests", "s", "lower", True),
    "e2e": ("a whole cold request of N tokens", "s", "lower", False),
    "peak_memory": ("largest resident set after the requests; mapped file pages count", "bytes", "lower", True),
    "device_memory": ("what this process holds of a GPU after the requests", "bytes", "lower", True),
}


@dataclass(frozen=True)
class Settings:
    """How much to measure. Points of a sweep that the context does not hold are skipped, and named in the record.

    repetitions: of a request and of each point, after `warmup` that are thrown away. new_tokens: N, of a cold request
    and of each tg run. prompt_lengths, depths: points of the sweeps. quick: peaks from small buffers, a rough figure.
    """

    repetitions: int = 5
    warmup: int = 1
    new_tokens: int = 128
    prompt_lengths: tuple[int, ...] = (128, 512, 1024, 2048, 2933)
    depths: tuple[int, ...] = (0, 512, 3000)
    quick: bool = False

    def __post_init__(self) -> None:
        for name, least in (("repetitions", 1), ("warmup", 0), ("new_tokens", 2), ("prompt_lengths", 1), ("depths", 0)):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=least) < least:
                raise ParameterError(f"{name} is {value!r}, but must be whole numbers from {least}")


FULL, QUICK = Settings(), Settings(repetitions=2, new_tokens=16, prompt_lengths=(128,), depths=(0,), quick=True)


def run(
    bundle: str | Path,
    options: EngineOptions,
    settings: Settings = FULL,
    image: ImageSource = PAGE,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure. Raises what loading and asking raise."""
    say = progress or (lambda *_: None)
    begun, host = time.time(), system.describe()
    samples: dict[str, list[float]] = defaultdict(list)
    opened = _timed(samples, "load_check", lambda: open_bundle(bundle, progress=progress))
    say("loading", 0, 1)
    engine = _timed(samples, "load_engine", lambda: open_engine(opened, options))
    model = Model(_endless(opened), engine)

    cold, warm = _requests(model, engine.capacity, image, settings, samples, say)
    samples["peak_memory"].append(system.peak_memory())
    if held := system.device_memory(os.getpid()):
        samples["device_memory"].append(held)
    on_cpu = engine.describe()["device"] == "cpu"
    if on_cpu:
        samples["projector"] = _projector(opened, options, image, settings)
    figures = {name: figure(*row, samples[name]) for name, row in FIGURES.items() if samples[name]}

    model.forget()
    runs, skipped = sweep(engine, opened.manifest.model.text, settings, say)
    say("peaks", 0, 1)
    peaks = measure_peaks(options.threads, settings.quick) if on_cpu else None
    costs = _Cost(opened, engine.describe()["prefill_chunk"])
    points = [_point(r, costs, peaks, host["last_level_cache"]) for r in runs]
    for point, r in zip(points, runs, strict=True):
        figures[point.name] = figure(SWEPT[r.kind], "tokens/s", "higher", True, (r.tokens / s for s in r.seconds))
    return {
        "schema": SCHEMA_VERSION,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "commit": _commit(),
        "settings": dataclasses.asdict(settings),
        "machine": host,
        "provenance": cold.provenance,
        "tokens": {
            "prompt": cold.usage.prompt_tokens, "image": cold.usage.image_tokens, "new": cold.usage.new_tokens,
            "reused": warm.usage.cached_tokens,
        },
        "peaks": dataclasses.asdict(peaks) if peaks else None,
        "gemm_type": costs.gemm_type if peaks else None,
        "figures": {name: dataclasses.asdict(f) for name, f in figures.items()},
        "sweeps": [dataclasses.asdict(p) for p in points],
        "skipped": skipped,
    }  # fmt: skip


def _timed(samples: dict[str, list[float]], name: str, work: Callable[[], _T]) -> _T:
    start = time.perf_counter()
    result = work()
    samples[name].append(time.perf_counter() - start)
    return result


def _endless(bundle: Bundle) -> Bundle:
    """The same bundle, whose model never ends an answer: its end token is one that no sampler returns."""
    model = bundle.manifest.model
    endless = dataclasses.replace(model, text=dataclasses.replace(model.text, eos=(-1,)))
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, model=endless))


def _requests(
    model: Model, capacity: int, image: ImageSource, settings: Settings, samples: dict[str, list[float]], say: Progress
) -> tuple[Answer, Answer]:
    """Fill `samples` from cold and warm requests; return the last two answers."""
    first = model.ask(image, QUESTIONS[0], max_new_tokens=1)
    samples["ttft_first"].append(_known(first.timings.ttft))
    count = min(settings.new_tokens, capacity - first.usage.prompt_tokens + 1)  # from 2: the last one needs no place
    for repetition in range(settings.warmup + settings.repetitions):
        say("requests", int(repetition > 0), settings.warmup + settings.repetitions)
        model.forget()
        cold = model.ask(image, QUESTIONS[0], max_new_tokens=count)
        warm = model.ask(image, QUESTIONS[1], max_new_tokens=1)
        if repetition >= settings.warmup:
            for name, values in _cold_samples(cold):
                samples[name].extend(values)
            samples["ttft_warm"].append(_known(warm.timings.ttft))
    return cold, warm


def _cold_samples(answer: Answer) -> Iterator[tuple[str, Iterable[float]]]:
    """What one cold answer says about each figure. Its N tokens took N - 1 steps."""
    t, count = answer.timings, answer.usage.new_tokens
    assert len(t.decode_steps) == count - 1, "an answer of fixed length ended early"
    ttft = _known(t.ttft)
    tpot = (t.total - ttft) / (count - 1)
    yield from ((stage, [getattr(t, stage)]) for stage in ("decode_image", "preprocess", "vision", "prefill"))
    yield "vision_per_view", [t.vision / answer.provenance["image"]["views"]]
    yield "decode_step", t.decode_steps
    yield "sample", [t.sample / count]
    yield "detokenise", [t.detokenise / count]
    yield "outside_engine", [tpot - statistics.fmean(t.decode_steps)]
    yield from (("ttft_cold", [ttft]), ("tpot", [tpot]), ("e2e", [t.total]))


def _projector(bundle: Bundle, options: EngineOptions, image: ImageSource, settings: Settings) -> list[float]:
    from pulse_edge.engines.onnxruntime import profile_projector  # what runs bundles on the CPU

    pixels = preprocess(read_page(image).image, bundle.manifest.model)
    return profile_projector(bundle, options, pixels, settings.warmup + settings.repetitions)[settings.warmup :]


def _known(seconds: float | None) -> float:
    assert seconds is not None, "a request without a token"
    return seconds


SWEPT = {"pp": "prefill from an empty cache, engine alone", "tg": "single steps at a depth, engine alone"}


@dataclass(frozen=True)
class Run:
    """A point of a sweep, and the seconds of each of its repetitions."""

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    seconds: list[float]

    @property
    def name(self) -> str:
        return point_name(self.kind, self.tokens, self.depth)


def sweep(
    engine: Engine, text: TextSpec, settings: Settings, say: Progress = lambda *_: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Run], list[str]]:  # fmt: skip
    """The points that fit, and the names of those that do not. Leaves the engine's cache filled with noise."""
    wanted = [Run("pp", n, 0, []) for n in dict.fromkeys(settings.prompt_lengths)]
    wanted += [Run("tg", settings.new_tokens, d, []) for d in dict.fromkeys(settings.depths)]
    runs = [r for r in wanted if r.depth + r.tokens <= engine.capacity]
    skipped = [f"{r.name}: context {engine.capacity}" for r in wanted if r not in runs]
    rng = np.random.default_rng(0)
    for r in runs:
        noise = engine.rows(rng.integers(0, text.vocab, r.depth + r.tokens))
        engine.rewind(0)
        if r.depth:
            engine.prefill(noise[: r.depth])
        for repetition in range(settings.warmup + settings.repetitions):
            say(r.name, int(repetition > 0), settings.warmup + settings.repetitions)
            engine.rewind(r.depth)
            seconds = _run_once(engine, r.kind, noise[r.depth :], clock)
            if repetition >= settings.warmup:
                r.seconds.append(seconds)
    return runs, skipped


def _run_once(engine: Engine, kind: str, rows: Rows, clock: Callable[[], float]) -> float:
    """Seconds of one prefill of n rows, or of n greedy steps."""
    start = clock()
    if kind == "pp":
        engine.prefill(rows)
    else:
        for at in range(len(rows)):
            engine.choose(rows[at : at + 1])
    return clock() - start


class _Cost:
    """What the decoder has to compute and to read at least."""

    def __init__(self, bundle: Bundle, chunk: int) -> None:
        manifest, t = bundle.manifest, bundle.manifest.model.text
        self._text, self._chunk = t, chunk
        # What the CPU's kernels multiply, and so the peak that prefill is measured against.
        self.gemm_type = "int8" if manifest.target == "cpu" and manifest.precision.activations != "fp32" else "fp32"
        self.weights = sum(f.size for f in manifest.files if f.path.startswith(DECODER_GRAPH))
        self._cached = cost.cache_row(t, manifest.precision.kv_cache)

    def __call__(self, run: Run) -> tuple[int, int]:
        """(FLOP, bytes) of one repetition, pass by pass: each reads the weights and what the cache holds before it."""
        flop = read = 0
        for before, rows in cost.passes(run.tokens, run.depth, 1 if run.kind == "tg" else self._chunk):
            flop += cost.linear(self._text, rows) + cost.attention(self._text, before, rows)
            read += self.weights + self._cached * before
        return flop, read


def _point(run: Run, costs: _Cost, peaks: Peaks | None, cache: int | None) -> Point:
    (flop, read), seconds = costs(run), statistics.median(run.seconds)
    from_memory = peaks is not None and costs.weights > 2 * (cache or 0)
    gemm = peaks.gemm.get(costs.gemm_type) if peaks else None
    return Point(
        run.kind, run.tokens, run.depth, flop, read,
        flop_per_s=flop / seconds, gemm_share=flop / seconds / gemm if gemm else None,
        read_per_s=read / seconds, read_share=read / seconds / peaks.read if peaks and from_memory else None,
    )  # fmt: skip


def _commit() -> str | None:
    """Of the clone that this file lies in, where it lies in one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    return system.said_by("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
