"""The kernels that a bundle's steps need, and their code."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import compiled_for, read_cubins, write_cubins
from pulse_edge.engines.native.compiler import Compiler, digest
from pulse_edge.engines.native.kernels import MOST_ROWS, Kernel
from pulse_edge.engines.native.steps import Address, Cache, Gain, StepBuilder
from pulse_edge.engines.native.weights import arranged, matrices
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

# Most shared memory of a CTA by compute capability, in KiB (CUDA C++ Programming Guide, table
# "Technical Specifications per Compute Capability"). It decides how kernels are compiled.
SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}


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


def needed_kernels(bundle: Bundle, shared_bytes: int) -> list[Kernel]:
    """The kernels of a bundle's steps on a GPU with so much shared memory for a CTA."""
    text = bundle.manifest.model.text
    nowhere = (0,) * text.layers
    weights = arranged(text, matrices(bundle), lambda _: Gain(0, 1.0), 0, (0, 0))
    cache = Cache(nowhere, nowhere, slots=1, capacity=text.context)
    return kernels_of(StepBuilder(text, weights, cache, PlannedDevice(shared_bytes)))


def kernels_of(builder: StepBuilder) -> list[Kernel]:
    """All kernels of a builder's steps, each once."""
    launches = [launch for rows in (1, MOST_ROWS) for launch in builder.launches(rows)]
    return list(dict.fromkeys(launch.kernel for launch in launches))


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
    made: dict[Kernel, bytes] = {}
    if missing:
        try:
            made = Compiler().compile(missing, capability)
        except EngineError as error:
            have = f" (it has {', '.join(compiled_for(bundle))})" if compiled_for(bundle) else ""
            raise EngineError(
                f"{bundle.path} holds no kernels of this version for compute capability "
                f"{capability / 10}{have}, and they cannot be compiled here: {error}; "
                f"or build them elsewhere: pulse-edge build {bundle.path} --device sm{capability}"
            ) from None
    return {kernel: made.get(kernel) or stored[names[kernel]] for kernel in kernels}


def build_cubins(
    bundle: Bundle, capability: int, progress: Progress | None = None
) -> dict[str, int]:
    """Compile all kernels of a bundle for a compute capability into its `plans/`.

    Returns:
        The bytes of each.

    Raises:
        EngineError: there is no compiler, or it does not know this GPU.
    """
    if capability not in SHARED_KIB:
        known = ", ".join(f"sm{number}" for number in SHARED_KIB)
        raise EngineError(f"the kernels are not made for sm{capability}; they are for {known}")
    kernels = needed_kernels(bundle, SHARED_KIB[capability] << 10)
    compiler = Compiler()
    cubins = compiler.compile(kernels, capability, progress)
    named = {digest(kernel, capability): cubin for kernel, cubin in cubins.items()}
    write_cubins(bundle, capability, compiler.name, named)
    return {name: len(cubin) for name, cubin in named.items()}


def digest_of_all(kernels: Collection[Kernel], capability: int) -> str:
    """Names a set of kernels, for provenance."""
    names = sorted(digest(kernel, capability) for kernel in kernels)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
