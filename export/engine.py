"""ONNX -> TensorRT plan, with `tensorrt` on the device that will run it, or with `tensorrt_rtx` ahead of time.

The two modules have one Python API. What differs, and where it was read:
* Networks are always strongly typed: 10.x wants a flag for that, 11 and RTX ignore it (migration guide 10.x to 11.x).
* Only RTX builds for GPUs that are not there: `IBuilderConfig.set_compute_capability` (its docstring).
* RTX has to be told that a plan's runs will be captured as CUDA graphs: `BuilderFlag.REQUIRE_USER_ALLOCATION`
  (release notes of RTX 1.2).
* Timing caches do nothing in RTX (deprecated in 1.2, says the module); `tensorrt` keeps one, beside the plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.backends.cuda import Cuda
from pulse_edge.bundle import DECODER_GRAPH, VISION_GRAPH, Bundle, ModelSpec, Progress
from pulse_edge.errors import EngineError, ExportError
from pulse_edge.plans import DECODER_PLAN, PLANS, VISION_PLAN, PlanKey, error_log, load_library, publish, staged

PREFILL_ROWS = 512  # tokens of a prompt at a time
LOGIT_ROWS = 8  # tokens of an answer that are verified at a time

# Compute capabilities: developer.nvidia.com/cuda-gpus.
DEVICES = {
    "t4": 75, "a100": 80, "a10": 86, "rtx30": 86, "orin-nano": 87, "orin-nx": 87, "agx-orin": 87, "l4": 89, "rtx40": 89,
    "h100": 90, "b200": 100, "agx-thor": 110, "rtx50": 120, "dgx-spark": 121,
}  # fmt: skip

# Host memory at the peak of a build: a fixed part, and so many times the graph's weights. Measured with tensorrt_rtx
# 1.7 on decoders of 3 to 205 MB: 3.0 times in fp16 and int8, 4.5 times in int4.
PEAK_FIXED = 300e6
PEAK_FACTOR = {"fp16": 3.0, "int8": 3.0, "int4": 4.5}


class CannotBuildHere(ExportError):
    """This machine's libraries do not build for the device that was asked for."""


@dataclass(frozen=True)
class Builder:
    """A library, and what it is to build for. `ahead`: for a GPU that need not be here."""

    library: Any
    key: PlanKey
    ahead: bool


@dataclass(frozen=True)
class Built:
    """What a build did. Sizes in bytes."""

    path: str
    key: PlanKey
    files: dict[str, int]
    seconds: float
    expected_memory: int


def check_device(name: str) -> None:
    if name not in DEVICES:
        raise ExportError(f"device {name!r} is not one of {', '.join(DEVICES)}")


def choose_builder(bundle: Bundle, device: str | None = None) -> Builder:
    """For a device of the table, or for the GPU in this machine. Raises `CannotBuildHere`, `EngineError`."""
    here: int | EngineError
    try:
        here = Cuda().capability()
    except EngineError as error:
        here = error
    if device is None:
        if isinstance(here, EngineError):
            raise CannotBuildHere(f"no GPU to build for ({here}); name one of --device {', '.join(DEVICES)}")
        wanted = here
    else:
        wanted = DEVICES[device]
    reasons = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            library = load_library(name)
        except EngineError as error:
            reasons.append(str(error))
            continue
        ahead = hasattr(getattr(library, "ComputeCapability", None), f"SM{wanted}")
        if ahead or (name == "tensorrt" and wanted == here):
            return Builder(library, PlanKey(name, library.__version__, wanted), ahead)
        reasons.append(f"{name} {library.__version__} builds {_reach(library)}")
    raise CannotBuildHere(
        f"plans for {device or 'this GPU'} (compute capability {wanted / 10}) cannot be built here: "
        f"{'; '.join(reasons)}; "
        f"copy {bundle.path} to the device and run there: pulse-edge build {bundle.path.name}"
    )


def _reach(library: Any) -> str:
    kinds = getattr(library, "ComputeCapability", None)
    if kinds is None:
        return "for the GPU of the machine it runs on only"
    return f"for {', '.join(name for name in kinds.__members__ if name.startswith('SM'))}"


def expected_memory(bundle: Bundle) -> int:
    """Host memory at the peak of building the larger graph, in bytes."""
    precision = bundle.manifest.precision
    sizes = {f.path: f.size for f in bundle.manifest.files}
    return int(PEAK_FIXED) + max(
        int(PEAK_FACTOR[storage] * sizes.get(f"{graph}.data", 0))
        for graph, storage in ((VISION_GRAPH, precision.vision), (DECODER_GRAPH, precision.decoder))
    )


def build(
    bundle: Bundle, builder: Builder, *, prefill_rows: int = PREFILL_ROWS, progress: Progress | None = None
) -> Built:
    """Build both plans of a bundle and put them in its `plans/`, in the place of those that were there for this key.

    progress: called with (graph, steps done since the last call, steps in all).
    Raises `ExportError` for a bundle of another target, too little memory, and where TensorRT fails.
    """
    start = time.perf_counter()
    manifest, key = bundle.manifest, builder.key
    if manifest.target != "standard" or manifest.precision.io != "fp16":
        raise ExportError(
            f"{bundle.path} ({manifest.target}, {manifest.precision.name}) is not for TensorRT; "
            "export the checkpoint with --target tensorrt --precision fp16, int8 or int4"
        )
    _check_memory(bundle)
    rows = min(prefill_rows, manifest.model.text.context)
    step_profile = len(_decoder_rows(manifest.precision.decoder, rows)) - 1
    views = most_views(manifest.model)
    try:
        with staged(bundle, key) as staging:
            for graph, plan in ((VISION_GRAPH, VISION_PLAN), (DECODER_GRAPH, DECODER_PLAN)):
                shapes = [{"views": (1, views)}]
                if graph == DECODER_GRAPH:
                    spans = _decoder_rows(manifest.precision.decoder, rows)
                    shapes = [{"rows": span, "logit_rows": (1, LOGIT_ROWS)} for span in spans]
                (staging / plan).write_bytes(_Build(bundle, builder, graph, progress).plan(shapes))
            index = publish(
                bundle, key, staging,
                prefill_rows=rows, logit_rows=LOGIT_ROWS, views=views, step_profile=step_profile,
            )  # fmt: skip
    except OSError as error:
        raise ExportError(f"{error.filename or bundle.path / PLANS}: {error.strerror}") from None
    sizes = {f.path: f.size for f in index.files}
    return Built(str(bundle.path), key, sizes, time.perf_counter() - start, expected_memory(bundle))


def _decoder_rows(storage: str, rows: int) -> list[tuple[int, int]]:
    """(fewest, most) rows of each of the decoder's profiles.

    One of single tokens alone gets an attention kernel that reads the cache in place, where others copy it first. With
    it, tensorrt_rtx 1.7 stores fp16 weights twice (two layers and the head of 7B: 2,148 against 1,076 MB), int8 and
    int4 once (102.5 MB of weights: 107.3 MB with both profiles, 105.0 MB with one), so fp16 does without.
    """
    return [(1, rows)] if storage == "fp16" else [(1, rows), (1, 1)]


def most_views(spec: ModelSpec) -> int:
    """Views of one image: its tiles in the largest grid, and the whole."""
    side = spec.vision.image_size
    if spec.image.aspect != "anyres":
        return 1
    return 1 + max((width // side) * (height // side) for width, height in spec.image.grids)


def _check_memory(bundle: Bundle) -> None:
    needed, free = expected_memory(bundle), _free_memory()
    if free is not None and free < needed:
        raise ExportError(
            f"building needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free (swap included); "
            "close other programs, add swap, or export with fewer bits"
        )


def _free_memory() -> int | None:
    """Bytes that can be allocated, swap included; None where the system does not say."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


class _Build:
    """One graph on its way to a plan."""

    def __init__(self, bundle: Bundle, builder: Builder, graph: str, progress: Progress | None) -> None:
        self._trt, self._key, self._ahead = builder.library, builder.key, builder.ahead
        self._path, self._progress = bundle.file(graph), progress
        self._timing = bundle.path / PLANS / f"{builder.key}.timing"
        self._log = error_log(self._trt)

    def plan(self, shapes: list[dict[str, tuple[int, int]]]) -> memoryview:
        """shapes: for each profile, the least and the largest value of every symbolic dimension."""
        trt = self._trt
        maker = trt.Builder(self._log)
        network = maker.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(self._path)):
            raise self._failed("parse", [parser.get_error(i).desc() for i in range(parser.num_errors)])
        config = maker.create_builder_config()
        if self._ahead:
            config.num_compute_capabilities = 1
            capability = getattr(trt.ComputeCapability, f"SM{self._key.capability}")
            if not config.set_compute_capability(capability, 0):
                raise self._failed("set_compute_capability", self._log.complaints)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        for spans in shapes:
            self._add_profile(maker, network, config, spans)
        monitor = _monitor(trt, self._path.stem, self._progress)
        config.progress_monitor = monitor
        cache = self._timing_cache(config)
        plan = maker.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if plan is None:
            raise self._failed("build_serialized_network", self._log.complaints)
        if cache is not None:
            self._timing.write_bytes(cache.serialize())
        return memoryview(plan)

    def _add_profile(self, maker: Any, network: Any, config: Any, spans: dict[str, tuple[int, int]]) -> None:
        profile = maker.create_optimization_profile()
        for tensor in map(network.get_input, range(network.num_inputs)):
            if -1 in tensor.shape:
                names = [tensor.get_dimension_name(i) for i in range(len(tensor.shape))]
                least, most = (
                    tuple(spans[n][end] if d == -1 else d for d, n in zip(tensor.shape, names, strict=True))
                    for end in (0, 1)
                )
                # Best for what runs most: a full piece of a prompt, and one row of logits.
                profile.set_shape(tensor.name, least, least if tensor.name == "logit_rows" else most, most)
        if config.add_optimization_profile(profile) < 0:
            raise self._failed("add_optimization_profile", self._log.complaints)

    def _timing_cache(self, config: Any) -> Any:
        """How long kernels took in earlier builds; TensorRT itself refuses one from another version or GPU."""
        if self._key.library != "tensorrt":
            return None
        cache = config.create_timing_cache(self._timing.read_bytes() if self._timing.exists() else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _failed(self, call: str, complaints: list[str]) -> ExportError:
        said = " ".join(complaints[-3:]) or "it did not say why"
        return ExportError(f"{self._path}: {self._key.library} {self._key.version}: {call} failed ({said})")


def _monitor(trt: Any, graph: str, progress: Progress | None) -> Any:
    """Reports the steps of the outermost phase. Ctrl-C must not pass through TensorRT: it ends the build instead."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.interrupted = False
            self._outermost: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outermost[name] = steps
                self._told(lambda report: report(graph, 0, steps))

        def step_complete(self, name: str, step: int) -> bool:
            if name in self._outermost:
                self._told(lambda report: report(graph, 1, self._outermost[name]))
            return not self.interrupted

        def phase_finish(self, name: str) -> None:
            self._outermost.pop(name, None)

        def _told(self, tell: Callable[[Progress], None]) -> None:
            try:
                if progress:
                    tell(progress)
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()
