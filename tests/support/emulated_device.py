"""A GPU in emulation, as pulse_edge/engines/native/steps.py wants one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.kernels import Kernel
from pulse_edge.engines.native.steps import Launch

from support.emulation import Emulated, Kind, Memory, Workshop


class EmulatedDevice:
    """Memory and numbers of a small GPU; runs launches one after the other."""

    def __init__(
        self, workshop: Workshop, multiprocessors: int = 2, shared_bytes: int = 99 << 10
    ) -> None:
        self.multiprocessors = multiprocessors
        self.shared_bytes = shared_bytes
        self.memory = Memory()
        self._workshop = workshop
        self._kernels: dict[Kernel, Emulated] = {}
        self._launches = 0

    def allocate(self, size: int) -> int:
        """Zeros."""
        name = f"allocation {len(self.memory)}"
        return self.memory.put(name, np.zeros(size, np.uint8))

    def write(self, to: int, array: NDArray[Any]) -> None:
        self.memory.replace(to, array)

    def put(self, name: str, array: NDArray[Any], kind: Kind) -> int:
        """A buffer with an array's content."""
        return self.memory.put(name, array, kind)

    def run(self, launches: Iterable[Launch], seed: int = 0) -> None:
        """Raises EmulationError: a fault of a kernel was found, or a launch does not fit it."""
        for launch in launches:
            kernel = launch.kernel
            if kernel not in self._kernels:
                self._kernels[kernel] = self._workshop.build(kernel)
            emulated = self._kernels[kernel]
            assert kernel.shared_bytes <= self.shared_bytes
            self._launches += 1
            emulated.launch(
                launch.argument,
                launch.grid,
                self.memory,
                seed=seed + self._launches,
                late=bool(self._launches & 1),
            )
