"""What `pulse-edge bench` measures, from a request down to the engine. One run is one record,
JSON-ready, whose schema is docs/bench.schema.json.

`requests.py` measures whole requests. `sweep.py` then measures the engine alone.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pulse_edge import system
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine
from pulse_edge.measure.contention import Contention, ContentionWatch
from pulse_edge.measure.energy import EnergyLog, find_meters
from pulse_edge.measure.figures import SCHEMA_VERSION, Better, Unit, figure
from pulse_edge.measure.goodput import Objectives, goodput
from pulse_edge.measure.peaks import Peaks, measure_peaks
from pulse_edge.measure.requests import RequestRuns, Samples
from pulse_edge.measure.sweep import (
    FULL,
    SWEPT,
    Run,
    RunCost,
    Settings,
    plan_runs,
    point_of_run,
    sweep,
)
from pulse_edge.model import Model
from pulse_edge.page.source import ImageSource, read_page
from pulse_edge.page.views import preprocess
from pulse_edge.progress import Progress

T = TypeVar("T")
PAGE = SAMPLE_PAGE

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
    "itl": (
        "inter-token latency: between pieces of text, as a reader of the stream sees it",
        "s",
        "lower",
        False,
    ),
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


def run(
    bundle: str | Path,
    options: EngineOptions,
    settings: Settings = FULL,
    image: ImageSource = PAGE,
    progress: Progress | None = None,
    slo: Objectives | None = None,
) -> dict[str, Any]:
    """Measure a bundle on this machine.

    Args:
        bundle: its directory.
        options: how the engine runs it.
        settings: how much to measure.
        image: the page that is asked about.
        progress: told how far each stage is.
        slo: objectives that goodput is counted by.

    Returns:
        The record. If Ctrl-C came after the first repetition, it holds what was measured until
        then, and names under "interrupted" what was not finished.

    Raises:
        KeyboardInterrupt: Ctrl-C came earlier.
        PulseEdgeError: what loading and asking raise.
    """
    measurement = BenchRun(bundle, options, settings, image, progress)
    try:
        measurement.run()
    except BaseException as end:
        # What ends the process: Ctrl-C, or a signal that the command has made an exception of.
        if isinstance(end, Exception) or measurement.requests.last is None:
            raise
        measurement.interrupted = measurement.stage
    finally:
        measurement.close()
    return measurement.record(slo or {})


class BenchRun:
    """One run on its way: what was measured is kept if it is interrupted.

    Attributes:
        stage: what is being measured.
        interrupted: the stage that was not finished; None if all were.
        requests: whole requests.
    """

    def __init__(
        self,
        bundle: str | Path,
        options: EngineOptions,
        settings: Settings,
        image: ImageSource = PAGE,
        progress: Progress | None = None,
    ) -> None:
        """Load the bundle. See `run`."""
        self.stage = "requests"
        self.interrupted: str | None = None
        self._begun = time.time()
        self._host = system.describe()
        self._options = options
        self._settings = settings
        self._image = image
        self._say = progress or (lambda *_: None)
        self._loaded: Samples = defaultdict(list)
        self._opened = self._timed("load_check", lambda: open_bundle(bundle, progress=progress))
        self._say("loading", 0, 1)
        engine = self._timed("load_engine", lambda: open_engine(self._opened, options))
        self._capacity = engine.capacity
        self._about = engine.describe()
        self._model = Model(endless(self._opened), engine)
        self._runs, self._skipped = plan_runs(settings, engine.capacity)
        self._peaks: Peaks | None = None
        self._energy = EnergyLog(find_meters(self._about["device"]))
        self._watch = ContentionWatch()
        self._contention: Contention | None = None
        self.requests = RequestRuns(self._model, image, settings, self._watch, self._energy)

    def run(self) -> None:
        """Measure everything. `stage` says how far it is."""
        settings = self._settings
        self.requests.run(self._capacity, self._say)
        samples = self.requests.samples
        samples["peak_memory"].append(system.peak_memory())
        if gpu_bytes := system.device_memory(os.getpid()):
            samples["device_memory"].append(gpu_bytes)
        on_cpu = self._about["device"] == "cpu"
        if on_cpu:
            self.stage = "projector"
            samples["projector"] = _projector(self._opened, self._options, self._image, settings)
        self.stage = "sweeps"
        text = self._opened.manifest.model.text
        self._model.run_on_engine(
            lambda engine, stop: sweep(engine, text, settings, self._runs, self._say, stop)
        )
        self._contention = self._watch.result()
        if on_cpu:
            self.stage = "peaks"
            self._say("peaks", 0, 1)
            self._peaks = measure_peaks(self._options.threads, settings.quick)

    def close(self) -> None:
        """End the meters."""
        self._energy.close()

    def record(self, slo: Objectives) -> dict[str, Any]:
        """What was measured, after a repetition at least. `slo`: of the goodput."""
        assert self.requests.last is not None, "nothing was measured"
        cold, warm = self.requests.last
        cost_of = RunCost(self._opened, self._about["prefill_chunk"])
        runs = [run for run in self._runs if run.seconds]
        cache = self._host["last_level_cache"]
        points = [point_of_run(run, cost_of, self._peaks, cache) for run in runs]
        samples = self._loaded | self.requests.samples
        warmed = {"requests": self.requests.warmed} | {run.name: run.warmed for run in runs}
        return {
            "schema": SCHEMA_VERSION,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._begun)),
            "commit": _commit(),
            "settings": dataclasses.asdict(self._settings),
            "interrupted": self.interrupted,
            "warmup": warmed,
            "contention": dataclasses.asdict(self._contention or self._watch.result()),
            "machine": self._host,
            "provenance": cold.provenance,
            "tokens": {
                "prompt": cold.usage.prompt_tokens,
                "image": cold.usage.image_tokens,
                "new": cold.usage.new_tokens,
                "reused": warm.usage.cached_tokens,
            },
            "peaks": dataclasses.asdict(self._peaks) if self._peaks else None,
            "gemm_type": cost_of.gemm_type if self._peaks else None,
            "figures": _figures(samples, runs),
            "goodput": goodput(samples, slo),
            "energy": self._energy.record(),
            "sweeps": [dataclasses.asdict(p) for p in points],
            "skipped": self._skipped,
        }

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self._loaded[name].append(time.perf_counter() - start)
        return result


def _figures(samples: Samples, runs: list[Run]) -> dict[str, dict[str, Any]]:
    """The record's figures: those of requests that have samples, then a rate for each run."""
    figures = {
        name: figure(*row, samples[name]) for name, row in FIGURES.items() if samples.get(name)
    }
    for run in runs:
        rates = (run.tokens / seconds for seconds in run.seconds)
        figures[run.name] = figure(SWEPT[run.kind], "tokens/s", "higher", True, rates)
    return {name: dataclasses.asdict(each) for name, each in figures.items()}


def endless(bundle: Bundle) -> Bundle:
    """The same bundle, whose model never ends an answer: no sampler returns its end token."""
    model = bundle.manifest.model
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, eos=(-1,)))
    return Bundle(bundle.path, dataclasses.replace(bundle.manifest, model=model))


def _projector(
    bundle: Bundle, options: EngineOptions, image: ImageSource, settings: Settings
) -> list[float]:
    """Seconds of the projector in each repetition. ONNX Runtime runs bundles on the CPU."""
    engine = engine_module("onnxruntime")
    pixels = preprocess(read_page(image).image, bundle.manifest.model)
    repetitions = settings.warmup + settings.repetitions
    seconds: list[float] = engine.profile_projector(bundle, options, pixels, repetitions)
    return seconds[settings.warmup :]


def _commit() -> str | None:
    """Of the clone that this file lies in; None in an installed package."""
    root = Path(__file__).parents[2]
    return system.commit_of(root) if (root / ".git").exists() else None
