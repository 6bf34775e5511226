"""What `pulse-edge bench` measures, from a request down to the engine. One run is one record,
JSON-ready, whose schema is docs/bench.schema.json.

A repetition is a cold request (nothing known of the page), then a second question about the same
page (warm). `sweep.py` then measures the engine alone.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pulse_edge import system
from pulse_edge.answer import Answer
from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine
from pulse_edge.measure.figures import SCHEMA_VERSION, Better, Unit, figure
from pulse_edge.measure.peaks import measure_peaks
from pulse_edge.measure.sweep import FULL, SWEPT, Run, RunCost, Settings, point_of_run, sweep
from pulse_edge.model import Model
from pulse_edge.page.source import ImageSource, read_page
from pulse_edge.page.views import preprocess
from pulse_edge.progress import Progress

T = TypeVar("T")
PAGE = SAMPLE_PAGE
QUESTIONS = (REPORT_QUESTION, RATE_QUESTION)  # of a cold request and of the warm one after it

# name: what it is, unit, which way is better, whether a comparison may fail on it (a figure that is
# measured only once may not)
FIGURES: dict[str, tuple[str, Unit, Better, bool]] = {
    "load_check": ("SHA-256 of the bundle's files", "s", "lower", False),
    "load_engine": ("sessions and cache made; the page cache as it was", "s", "lower", False),
    "ttft_first": ("time to first token of the first request after loading", "s", "lower", False),
    "decode_image": ("image file to RGB pixels", "s", "lower", False),
    "preprocess": ("pixels to normalised views", "s", "lower", False),
    "vision": ("all views to image tokens: tower, projector and merge", "s", "lower", False),
    "projector": (
        "of vision: the projector's kernels, from the engine's profile; CPU only",
        "s",
        "lower",
        False,
    ),
    "vision_per_view": ("vision / views", "s", "lower", False),
    "prefill": ("the whole prompt through the decoder", "s", "lower", False),
    "decode_step": ("engine time of one token after the first", "s", "lower", False),
    "sample": ("logits to a token, per token", "s", "lower", False),
    "detokenise": ("a token to text, per token", "s", "lower", False),
    "outside_engine": (
        "TPOT less the decode step: sampling, text, embedding, our loop",
        "s",
        "lower",
        False,
    ),
    "ttft_cold": (
        "time to first token, nothing known of the page; reading its file not included",
        "s",
        "lower",
        True,
    ),
    "ttft_warm": ("the same for a second question about the page", "s", "lower", True),
    "tpot": ("time per output token: (E2E - TTFT) / (N - 1), cold requests", "s", "lower", True),
    "e2e": ("a whole cold request of N tokens", "s", "lower", False),
    "peak_memory": (
        "largest resident set after the requests; mapped file pages count",
        "bytes",
        "lower",
        True,
    ),
    "device_memory": (
        "what this process holds of a GPU after the requests",
        "bytes",
        "lower",
        True,
    ),
}

Samples = dict[str, list[float]]  # by the name of a figure


def run(
    bundle: str | Path,
    options: EngineOptions,
    settings: Settings = FULL,
    image: ImageSource = PAGE,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a bundle on this machine.

    Args:
        bundle: its directory.
        options: how the engine runs it.
        settings: how much to measure.
        image: the page that is asked about.
        progress: told how far each stage is.

    Returns:
        The record.

    Raises:
        PulseEdgeError: what loading and asking raise.
    """
    say = progress or (lambda *_: None)
    begun = time.time()
    host = system.describe()
    samples: Samples = defaultdict(list)
    opened = _timed(samples, "load_check", lambda: open_bundle(bundle, progress=progress))
    say("loading", 0, 1)
    engine = _timed(samples, "load_engine", lambda: open_engine(opened, options))
    model = Model(endless(opened), engine)
    about = engine.describe()

    cold, warm = _requests(model, engine.capacity, image, settings, samples, say)
    samples["peak_memory"].append(system.peak_memory())
    if gpu_bytes := system.device_memory(os.getpid()):
        samples["device_memory"].append(gpu_bytes)
    on_cpu = about["device"] == "cpu"
    if on_cpu:
        samples["projector"] = _projector(opened, options, image, settings)

    runs, skipped = model.run_on_engine(
        lambda engine, stop: sweep(engine, opened.manifest.model.text, settings, say, stop)
    )
    say("peaks", 0, 1)
    peaks = measure_peaks(options.threads, settings.quick) if on_cpu else None
    cost_of = RunCost(opened, about["prefill_chunk"])
    points = [point_of_run(run, cost_of, peaks, host["last_level_cache"]) for run in runs]
    return {
        "schema": SCHEMA_VERSION,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "commit": _commit(),
        "settings": dataclasses.asdict(settings),
        "machine": host,
        "provenance": cold.provenance,
        "tokens": {
            "prompt": cold.usage.prompt_tokens,
            "image": cold.usage.image_tokens,
            "new": cold.usage.new_tokens,
            "reused": warm.usage.cached_tokens,
        },
        "peaks": dataclasses.asdict(peaks) if peaks else None,
        "gemm_type": cost_of.gemm_type if peaks else None,
        "figures": _figures(samples, runs),
        "sweeps": [dataclasses.asdict(p) for p in points],
        "skipped": skipped,
    }


def _figures(samples: Samples, runs: list[Run]) -> dict[str, dict[str, Any]]:
    """The record's figures: those of requests that have samples, then a rate for each run."""
    figures = {name: figure(*row, samples[name]) for name, row in FIGURES.items() if samples[name]}
    for run in runs:
        rates = (run.tokens / seconds for seconds in run.seconds)
        figures[run.name] = figure(SWEPT[run.kind], "tokens/s", "higher", True, rates)
    return {name: dataclasses.asdict(each) for name, each in figures.items()}


def endless(bundle: Bundle) -> Bundle:
    """The same bundle, whose model never ends an answer: no sampler returns its end token."""
    model = bundle.manifest.model
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, eos=(-1,)))
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, model=model))


def cold_samples(answer: Answer) -> Iterator[tuple[str, Iterable[float]]]:
    """What one cold answer says about each figure. Its N tokens took N - 1 steps."""
    timings = answer.timings
    count = answer.usage.new_tokens
    assert len(timings.decode_steps) == count - 1, "an answer of fixed length ended early"
    ttft = _measured(timings.ttft)
    tpot = (timings.total - ttft) / (count - 1)
    for stage in ("decode_image", "preprocess", "vision", "prefill"):
        yield stage, [getattr(timings, stage)]
    yield "vision_per_view", [timings.vision / answer.provenance["image"]["views"]]
    yield "decode_step", timings.decode_steps
    yield "sample", [timings.sample / count]
    yield "detokenise", [timings.detokenise / count]
    yield "outside_engine", [tpot - statistics.fmean(timings.decode_steps)]
    yield "ttft_cold", [ttft]
    yield "tpot", [tpot]
    yield "e2e", [timings.total]


def _timed(samples: Samples, name: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    samples[name].append(time.perf_counter() - start)
    return result


def _requests(
    model: Model,
    capacity: int,
    image: ImageSource,
    settings: Settings,
    samples: Samples,
    say: Progress,
) -> tuple[Answer, Answer]:
    """Fill `samples` from cold and warm requests; return the last two answers."""
    first = model.ask(image, QUESTIONS[0], max_new_tokens=1)
    samples["ttft_first"].append(_measured(first.timings.ttft))
    room = capacity - first.usage.prompt_tokens + 1  # the last token takes no place in the cache
    count = min(settings.new_tokens, room)
    for repetition in range(settings.warmup + settings.repetitions):
        say("requests", int(repetition > 0), settings.warmup + settings.repetitions)
        model.forget()
        cold = model.ask(image, QUESTIONS[0], max_new_tokens=count)
        warm = model.ask(image, QUESTIONS[1], max_new_tokens=1)
        if repetition >= settings.warmup:
            for name, values in cold_samples(cold):
                samples[name].extend(values)
            samples["ttft_warm"].append(_measured(warm.timings.ttft))
    return cold, warm


def _projector(
    bundle: Bundle, options: EngineOptions, image: ImageSource, settings: Settings
) -> list[float]:
    """Seconds of the projector in each repetition. ONNX Runtime runs bundles on the CPU."""
    engine = engine_module("onnxruntime")
    pixels = preprocess(read_page(image).image, bundle.manifest.model)
    repetitions = settings.warmup + settings.repetitions
    seconds: list[float] = engine.profile_projector(bundle, options, pixels, repetitions)
    return seconds[settings.warmup :]


def _measured(measured: float | None) -> float:
    assert measured is not None, "a request without a token"
    return measured


def _commit() -> str | None:
    """Of the clone that this file lies in; None in an installed package."""
    root = Path(__file__).parents[2]
    return system.commit_of(root) if (root / ".git").exists() else None
