"""ONNX -> TensorRT plan.

`tensorrt` builds on the device that will run it, `tensorrt_rtx` ahead of time.

The two modules have one Python API. Their differences, with the sources:
* Networks are always strongly typed: 10.x needs a flag for that, 11 and RTX ignore it (migration
  guide 10.x to 11.x).
* Only RTX builds for GPUs that are not in the machine: `IBuilderConfig.set_compute_capability` (its
  docstring).
* RTX needs a flag for plans that are captured as CUDA graphs:
  `BuilderFlag.REQUIRE_USER_ALLOCATION` (release notes of RTX 1.2).
* Timing caches do nothing in RTX (deprecated in 1.2, says the module). `tensorrt` keeps one, beside
  the plans.
* IStreamWriter, IProgressMonitor and the rest are the same from 10.15 to 11.1, and in RTX 1.7
  (python/src/infer at the tags of NVIDIA/TensorRT, which has no `set_compute_capability`; the
  module's docstrings).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.plans import (
    DECODER_PLAN,
    LIBRARIES,
    VISION_PLAN,
    PlanKey,
    error_log,
    load_library,
    publish,
    staged,
)
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.decode.speculation import DRAFTS
from pulse_edge.engines.chunk import SMALL_PLAN, plan_rows, scratch
from pulse_edge.engines.cuda_runtime import Cuda
from pulse_edge.errors import EngineError, ExportError
from pulse_edge.measure.devices import DEVICES, PLAN_DEVICES
from pulse_edge.progress import Progress
from pulse_export.plan.callbacks import Callbacks
from pulse_export.quantize.precision import STORAGES

PREFILL_ROWS = SMALL_PLAN  # tokens of a prompt at a time that any device has room for
LOGIT_ROWS = 1 + DRAFTS[-1]  # most rows of a step: a token and the longest draft

# A profile: least, best and largest value of every symbolic dimension, by its name.
Spans = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Profiles:
    """A graph's optimization profiles.

    Attributes:
        step: index of the profile for single tokens.
        several: index of the profile for a few tokens.
    """

    spans: tuple[Spans, ...]
    step: int = 0
    several: int = 0


# Host memory that a build takes at its peak, besides mapped files: this, and a multiple of the
# graph's weights (`Storage.plan_memory`). TensorRT on a device also has the weights on the GPU to
# time kernels; that they are there once is an assumption.
PEAK_FIXED = 300e6
# A plan that is larger than this holds its weights twice. All else is about 2.4 MB a profile.
ONCE = 1.3
KERNELS = 2.5e6


class CannotBuildHere(ExportError):
    """This machine's libraries do not build for the device that was asked for."""


@dataclass(frozen=True)
class Builder:
    """A TensorRT library, and what it builds for.

    Attributes:
        library: the Python module.
        key: what the plans will run with.
        ahead: it builds for a GPU that need not be in this machine.
        shared: it builds on a GPU whose memory is the host's.
        memory: bytes of the device that the plans are for, None if unknown.
    """

    library: Any
    key: PlanKey
    ahead: bool
    shared: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class BuiltPlans:
    """What a build did. Sizes in bytes."""

    path: str
    key: PlanKey
    files: dict[str, int]
    seconds: float
    expected_memory: int


def check_device(name: str) -> None:
    """Raises `ExportError` for a device that plans cannot be built for."""
    if name not in PLAN_DEVICES:
        raise ExportError(f"device {name!r} is not one of {', '.join(DEVICES)}")


def choose_builder(bundle: Bundle, device: str | None = None) -> Builder:
    """The builder for a device, or for the GPU in this machine.

    Args:
        bundle: named in the error's advice.
        device: a name in `PLAN_DEVICES`; None for this machine's GPU.

    Raises:
        CannotBuildHere: no library in this machine builds for the device.
        ExportError: no device has this name.
    """
    here: int | EngineError
    shared = False
    memory = None
    try:
        cuda = Cuda()
        here, shared = cuda.capability(), cuda.integrated()
        _, memory = cuda("cudaMemGetInfo")
    except EngineError as error:
        here = error
    if device is None:
        if isinstance(here, EngineError):
            devices = ", ".join(DEVICES)
            raise CannotBuildHere(f"no GPU to build for ({here}); name one of --device {devices}")
        capability = here
    else:
        check_device(device)
        capability = PLAN_DEVICES[device].capability
        memory = PLAN_DEVICES[device].memory
    reasons = []
    for name in LIBRARIES:
        try:
            library = load_library(name)
        except EngineError as error:
            reasons.append(str(error))
            continue
        ahead = hasattr(getattr(library, "ComputeCapability", None), f"SM{capability}")
        if ahead or (name == "tensorrt" and capability == here):
            key = PlanKey(name, library.__version__, capability)
            return Builder(library, key, ahead, shared and not ahead, memory)
        reasons.append(f"{name} {library.__version__} builds {_reach(library)}")
    raise CannotBuildHere(
        f"plans for {device or 'this GPU'} (compute capability {capability / 10}) "
        f"cannot be built here: {'; '.join(reasons)}; "
        f"copy {bundle.path} to the device and run there: pulse-edge build {bundle.path.name}"
    )


def _reach(library: Any) -> str:
    kinds = getattr(library, "ComputeCapability", None)
    if kinds is None:
        return "for the GPU of the machine it runs on only"
    return f"for {', '.join(name for name in kinds.__members__ if name.startswith('SM'))}"


def rows_of(bundle: Bundle, builder: Builder, asked: int | None = None) -> int:
    """Tokens of a prompt at a time: those asked for or the device's default, within the context."""
    return min(asked or plan_rows(builder.memory), bundle.manifest.model.text.context)


def expected_memory(bundle: Bundle, builder: Builder, rows: int) -> int:
    """Host memory at the peak of building the larger graph, in bytes.

    Args:
        rows: tokens of a prompt at a time. Kernels are timed with as many. Their activations lie in
            the GPU's memory, which some devices share with the host.
    """
    precision, sizes = bundle.manifest.precision, _sizes(bundle)
    activations = scratch(bundle.manifest.model.text, rows) if builder.shared else 0
    weights = max(
        int((STORAGES[storage].plan_memory + builder.shared) * sizes[f"{graph}.data"])
        for graph, storage in ((VISION_GRAPH, precision.vision), (DECODER_GRAPH, precision.decoder))
    )
    return int(PEAK_FIXED) + activations + weights


def build_plans(
    bundle: Bundle,
    builder: Builder | str | None = None,
    *,
    prefill_rows: int | None = None,
    progress: Progress | None = None,
) -> BuiltPlans:
    """Build both plans of a bundle into its `plans/`. They replace those with the same key.

    Args:
        bundle: exported for the target `standard`.
        builder: from `choose_builder`, or the device's name; None for the GPU in this machine.
        prefill_rows: tokens of a prompt at a time; None is the device's default (`plan_rows`).
        progress: called with (graph, steps done since the last call, steps in all).

    Raises:
        ExportError: the bundle is for another target, memory or disk do not suffice, TensorRT
            failed, or (`CannotBuildHere`) no library here builds for the device.
    """
    start = time.perf_counter()
    if builder is None or isinstance(builder, str):
        builder = choose_builder(bundle, builder)
    key = builder.key
    rows = rows_of(bundle, builder, prefill_rows)
    check_build(bundle, builder, rows)
    try:
        with staged(bundle, key) as staging:
            write_plan(bundle, builder, VISION_GRAPH, staging / VISION_PLAN, rows, progress)
            profiles = write_plan(
                bundle, builder, DECODER_GRAPH, staging / DECODER_PLAN, rows, progress
            )
            index = publish(
                bundle,
                key,
                staging,
                prefill_rows=rows,
                logit_rows=min(LOGIT_ROWS, rows),
                views=bundle.manifest.model.most_views,
                step_profile=profiles.step,
                several_profile=profiles.several,
            )
    except OSError as error:
        raise ExportError(f"{error.filename or bundle.path / PLANS}: {error.strerror}") from None
    sizes = {f.path: f.size for f in index.files}
    seconds = time.perf_counter() - start
    return BuiltPlans(str(bundle.path), key, sizes, seconds, expected_memory(bundle, builder, rows))


def write_plan(
    bundle: Bundle,
    builder: Builder,
    graph: str,
    plan: Path,
    rows: int,
    progress: Progress | None = None,
) -> Profiles:
    """Build one graph, for up to `rows` tokens at a time, into the file `plan`.

    The first choice of profiles is kept whose plan holds its weights once.
    """
    weights = _sizes(bundle)[f"{graph}.data"]
    for profiles in profile_choices(bundle, builder, graph, rows):
        PlanWriter(bundle, builder, graph, progress).write(plan, profiles.spans)
        if plan.stat().st_size < ONCE * weights + KERNELS * len(profiles.spans):
            break
    return profiles


def profile_choices(bundle: Bundle, builder: Builder, graph: str, rows: int) -> list[Profiles]:
    """A graph's profiles, the fastest choice first.

    Each profile is best for one kind of call: a full piece of a prompt, a single token, or the
    tokens of a verified draft. A profile of single tokens alone gets an attention kernel that reads
    the cache in place; others copy the cache first. With that profile tensorrt_rtx 1.7 stores the
    weights of some storages twice (`Storage.stored_twice`; fp16, two layers and the head of 7B:
    2,148 against 1,076 MB), so it is not tried for those. For the others a further profile costs
    2.4 MB. The rows of logits always vary: with exactly one, the product of an int8 head is not
    fused.
    """
    if graph == VISION_GRAPH:
        views = bundle.manifest.model.most_views
        return [Profiles(({"views": (1, views, views)},))]
    most = min(LOGIT_ROWS, rows)
    whole: Spans = {"rows": (1, rows, rows), "logit_rows": (1, 1, most)}
    single: Spans = {"rows": (1, 1, 1), "logit_rows": (1, 1, most)}
    several: Spans = {"rows": (1, most, most), "logit_rows": (1, most, most)}
    few: Spans = {"rows": (1, 1, most), "logit_rows": (1, 1, most)}  # and mostly one
    choices = [
        Profiles((whole, single, several), 1, 2),
        Profiles((whole, few), 1, 1),
        Profiles((whole,)),
    ]
    decoder = STORAGES[bundle.manifest.precision.decoder]
    twice = builder.key.library == "tensorrt_rtx" and decoder.stored_twice
    return choices[twice:]


def check_build(bundle: Bundle, builder: Builder, rows: int) -> None:
    """Refuse a build that is certain to fail.

    Raises:
        ExportError: the bundle is for another target, or memory or disk do not suffice.
    """
    manifest = bundle.manifest
    if manifest.target != "standard" or manifest.precision.io != "fp16":
        raise ExportError(
            f"{bundle.path} ({manifest.target}, {manifest.precision.name}) is not for TensorRT; "
            "export the checkpoint with --target tensorrt --precision fp16, int8 or int4"
        )
    needed = expected_memory(bundle, builder, rows)
    free = free_memory()
    if free is not None and free < needed:
        raise ExportError(
            f"building needs about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free (swap included); "
            "close other programs, add swap, give fewer --prefill-rows, or export with fewer bits"
        )
    needed = sum(_sizes(bundle)[f"{graph}.data"] for graph in (VISION_GRAPH, DECODER_GRAPH))
    free = free_disk(bundle)
    if free < needed:
        raise ExportError(
            f"{bundle.path}: its plans take about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB of the disk are free"
        )


def _sizes(bundle: Bundle) -> dict[str, int]:
    return {f.path: f.size for f in bundle.manifest.files}


def free_disk(bundle: Bundle) -> int:
    """Bytes free where the bundle lies."""
    return shutil.disk_usage(bundle.path).free


def free_memory() -> int | None:
    """Bytes that can be allocated, swap included; None if the system does not tell."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


class PlanWriter:
    """One graph on its way to a plan."""

    def __init__(
        self, bundle: Bundle, builder: Builder, graph: str, progress: Progress | None
    ) -> None:
        self._trt, self._key, self._ahead = builder.library, builder.key, builder.ahead
        self._path, self._progress = bundle.file(graph), progress
        self._timing = bundle.path / PLANS / f"{builder.key}.timing"
        self._log = error_log(self._trt)

    def write(self, plan: Path, profiles: Sequence[Spans]) -> None:
        """Build the graph into the file `plan`.

        TensorRT writes the file as it goes: in memory the plan would take as much as the weights.
        """
        trt = self._trt
        maker = trt.Builder(self._log)
        network = maker.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(self._path)):
            raise self._failed(
                "parse_from_file", [parser.get_error(i).desc() for i in range(parser.num_errors)]
            )
        config = maker.create_builder_config()
        if self._ahead:
            config.num_compute_capabilities = 1
            capability = getattr(trt.ComputeCapability, f"SM{self._key.capability}")
            if not config.set_compute_capability(capability, 0):
                raise self._failed("set_compute_capability", self._log.complaints)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        # A decoder is a chain, so side streams would only keep activations alive for longer.
        config.max_aux_streams = 0
        for spans in profiles:
            self._add_profile(maker, network, config, spans)
        callbacks = Callbacks(self._path.stem, self._progress)
        # Keep a reference while the build runs: the configuration may not hold one.
        monitor = callbacks.monitor(trt)
        config.progress_monitor = monitor
        cache = self._timing_cache(config)
        with plan.open("wb") as file, callbacks.handling_interrupts():
            built = maker.build_serialized_network_to_stream(
                network, config, callbacks.writer(trt, file)
            )
        if callbacks.raised is not None:
            raise callbacks.raised
        if not built:
            raise self._failed("build_serialized_network_to_stream", self._log.complaints)
        if cache is not None:
            self._keep(cache)

    def _add_profile(self, maker: Any, network: Any, config: Any, spans: Spans) -> None:
        profile = maker.create_optimization_profile()
        for tensor in map(network.get_input, range(network.num_inputs)):
            if -1 in tensor.shape:
                names = [tensor.get_dimension_name(i) for i in range(len(tensor.shape))]
                shapes = (
                    tuple(
                        spans[n][at] if d == -1 else d
                        for d, n in zip(tensor.shape, names, strict=True)
                    )
                    for at in range(3)
                )
                profile.set_shape(tensor.name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise self._failed("add_optimization_profile", self._log.complaints)

    def _timing_cache(self, config: Any) -> Any:
        """Times of kernels in earlier builds.

        TensorRT itself refuses a cache from another version or GPU.
        """
        if self._key.library != "tensorrt":
            return None
        kept = self._timing.read_bytes() if self._timing.exists() else b""
        for content in (kept, b""):
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return cache
        raise self._failed("set_timing_cache", self._log.complaints)

    def _keep(self, cache: Any) -> None:
        pending = self._timing.with_suffix(".pending")
        pending.write_bytes(cache.serialize())
        pending.rename(self._timing)

    def _failed(self, call: str, complaints: list[str]) -> ExportError:
        reason = " ".join(complaints[-3:]) or "it did not say why"
        return ExportError(
            f"{self._path}: {self._key.library} {self._key.version}: {call} failed ({reason})"
        )
