"""The kernels that a bundle's steps need, and their code."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import NO_SHAPES, compiled_for, read_cubins, write_cubins
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.native.compiler import Compiler, digest
from pulse_edge.engines.native.kernels import MOST_ROWS, Kernel
from pulse_edge.engines.native.steps import (
    GATE_UP,
    Address,
    ByteCache,
    Gain,
    Launch,
    SharedCache,
    StepBuilder,
)
from pulse_edge.engines.native.tuning import Choices, Tuned, choices_of, tune_bundle
from pulse_edge.engines.native.weights import arranged, matrices, why_not
from pulse_edge.errors import EngineError, UnknownDeviceError
from pulse_edge.progress import Progress

# Most shared memory of a CTA by compute capability, in KiB (CUDA C++ Programming Guide, table
# "Technical Specifications per Compute Capability"). It decides how kernels are compiled.
SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}

LAYER_KERNELS = ("qkv", "attention", "output", GATE_UP, "down")  # in the order of their launches


@dataclass(frozen=True)
class PlannedDevice:
    """A GPU that need not be there: what decides which kernels a bundle needs."""

    shared_bytes: int
    multiprocessors: int = 1

    def allocate(self, size: int) -> Address:
        """Nothing."""
        return 0

    def write(self, to: Address, array: NDArray[Any]) -> None:
        """Nothing."""


def needed_kernels(
    bundle: Bundle,
    shared_bytes: int,
    byte_cache: bool,
    choices: Choices | None = None,
) -> list[Kernel]:
    """The kernels of a bundle's steps.

    Args:
        bundle: that the kernels can run.
        shared_bytes: most shared memory of a CTA of the GPU.
        byte_cache: steps read a cache of bytes.
        choices: launch shapes; None for the defaults.
    """
    text = bundle.manifest.model.text
    nowhere = (0,) * text.layers
    weights = arranged(text, matrices(bundle), lambda _: Gain(0, 1.0), 0, (0, 0))
    rounded = ByteCache(nowhere, nowhere, nowhere) if byte_cache else None
    cache = SharedCache(nowhere, nowhere, slots=1, capacity=text.context, rounded=rounded)
    device = PlannedDevice(shared_bytes)
    return kernels_of(StepBuilder(text, weights, cache, device, tunings=choices))


def kernels_of(builder: StepBuilder) -> list[Kernel]:
    """All kernels of a builder's steps, each once."""
    launches = [launch for rows in (1, MOST_ROWS) for launch in builder.launches(rows)]
    launches += builder.round_cache(0, 1)
    return list(dict.fromkeys(launch.kernel for launch in launches))


def launch_shapes(launches: list[Launch]) -> dict[str, str]:
    """For provenance: how each kernel of a layer, and the head's, is launched in a step."""
    of_layer = dict(zip(LAYER_KERNELS, launches[1:], strict=False))
    shapes = {}
    for name, launch in (of_layer | {"head": launches[-2]}).items():
        defines = dict(launch.kernel.defines)
        tiles = f"{defines['TILES']} tiles, " if "TILES" in defines else ""
        grid = " x ".join(str(size) for size in launch.grid if size > 1) or "1"
        warps, stages = defines["WARPS"], defines["STAGES"]
        shapes[name] = f"{warps} warps, {stages} stages, {tiles}{grid} CTAs"
    return shapes


def find_cubins(
    bundle: Bundle, kernels: Collection[Kernel], capability: int
) -> dict[Kernel, bytes]:
    """The code of kernels: the bundle's, or compiled now.

    Raises:
        EngineError: the bundle has not all of them, and there is no compiler. It says what to do.
    """
    stored = read_cubins(bundle, capability)
    names = {kernel: digest(kernel, capability) for kernel in kernels}
    missing = [kernel for kernel in kernels if names[kernel] not in stored]
    missing = [kernel for kernel in missing if names[kernel] not in compiled]
    if missing:
        try:
            cubins = Compiler().compile(missing, capability)
            compiled.update((names[kernel], cubin) for kernel, cubin in cubins.items())
        except EngineError as error:
            have = f" (it has {', '.join(compiled_for(bundle))})" if compiled_for(bundle) else ""
            raise EngineError(
                f"{bundle.path} holds no kernels of this version for compute capability "
                f"{capability / 10}{have}, and they cannot be compiled here: {error}; "
                f"or build them elsewhere: pulse-edge build {bundle.path} --device sm{capability}"
            ) from None
    return {kernel: (stored | compiled)[names[kernel]] for kernel in kernels}


compiled: dict[str, bytes] = {}  # by digest; what this process had to compile


@dataclass(frozen=True)
class BuiltKernels:
    """What `build_kernels` made.

    Attributes:
        folder: of the bundle, that holds them.
        architecture: that they run on: sm90 is compute capability 9.0.
        compiler: its name and version.
        count: how many kernels there are.
        size: their bytes.
        tuned: the launch shapes that were found, with the times before and after.
    """

    folder: Path
    architecture: str
    compiler: str
    count: int
    size: int
    tuned: Tuned


def build_kernels(
    bundle: Bundle,
    architecture: str | None = None,
    progress: Progress | None = None,
    tune: bool = False,
) -> BuiltKernels:
    """Compile all kernels of a bundle into its `plans/`. No GPU is needed, but to tune.

    Args:
        bundle: for CUDA.
        architecture: `sm90` for GPUs of compute capability 9.0; None for this machine's GPU.
        progress: is told about each kernel.
        tune: first find the launch shapes that are fastest on this machine's GPU.

    Raises:
        EngineError: the kernels cannot run the bundle or on that GPU, or there is no compiler.
    """
    if problem := why_not(bundle):
        raise EngineError(f"engine native cannot run {bundle.path}: {problem}")
    capability = _capability(architecture)
    room = SHARED_KIB[capability] << 10
    tuned = _tune(bundle, capability, progress) if tune else Tuned(NO_SHAPES, {})
    choices = choices_of(tuned.shapes)
    caches = [needed_kernels(bundle, room, byte_cache, choices) for byte_cache in (False, True)]
    kernels = list(dict.fromkeys(kernel for cache in caches for kernel in cache))
    compiler = Compiler()
    cubins = compiler.compile(kernels, capability, progress)
    named = {digest(kernel, capability): cubin for kernel, cubin in cubins.items()}
    folder = write_cubins(bundle, capability, compiler.name, named, tuned.shapes)
    size = sum(map(len, named.values()))
    return BuiltKernels(folder, f"sm{capability}", compiler.name, len(named), size, tuned)


def _tune(bundle: Bundle, capability: int, progress: Progress | None) -> Tuned:
    if cuda_driver.compute_capability() != capability:
        raise EngineError(f"tuning takes a GPU of compute capability {capability / 10} here")
    return tune_bundle(bundle, progress)


def _capability(architecture: str | None) -> int:
    capabilities = {f"sm{number}": number for number in SHARED_KIB}
    names = ", ".join(capabilities)
    if architecture is None:
        here = cuda_driver.compute_capability()
        if here is None:
            raise EngineError(f"no GPU here; name one with --device: {names}")
        architecture = f"sm{here}"
    if architecture not in capabilities:
        problem = f"the kernels are not made for {architecture}; they are for {names}"
        raise UnknownDeviceError(problem)
    return capabilities[architecture]


def digest_of_all(kernels: Collection[Kernel], capability: int) -> str:
    """Names a set of kernels, for provenance."""
    names = sorted(digest(kernel, capability) for kernel in kernels)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
