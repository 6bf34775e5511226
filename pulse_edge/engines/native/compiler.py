"""Kernels from sources to cubins by NVRTC, which needs neither a GPU nor a CUDA toolkit.

Calls have their names of NVRTC's manual and of cuda-python's `cuda.bindings.nvrtc`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pulse_edge.engines.native.kernels import FOLDER, HEADERS, Kernel
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

OPTIONS = ("--std=c++17",)
INSTALL = "pip install 'pulse-edge[native]' nvidia-cuda-nvrtc"


def digest(kernel: Kernel, capability: int) -> str:
    """Names a cubin: its sources, macros, options and architecture in 16 hex digits."""
    text = [(name, (FOLDER / name).read_text()) for name in (kernel.source, *HEADERS)]
    content = repr((text, kernel.entry, kernel.defines, OPTIONS, capability))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Compiler:
    """NVRTC. Raises `EngineError` if it is not installed; the message says how to install it."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import nvrtc
        except ImportError as error:
            raise EngineError(f"cuda-python is not installed ({error}); {INSTALL}") from None
        self._api: Any = nvrtc
        try:
            major, minor = self._call("nvrtcVersion")
        except EngineError:
            raise
        except Exception as error:  # cuda-python's own, where it finds no libnvrtc
            raise EngineError(f"NVRTC is not installed ({error}); {INSTALL}") from None
        self.name = f"NVRTC {major}.{minor}"

    def compile(
        self,
        kernels: Collection[Kernel],
        capability: int,
        progress: Progress | None = None,
    ) -> dict[Kernel, bytes]:
        """Cubins of the kernels for GPUs of one compute capability, in parallel.

        Raises:
            EngineError: NVRTC does not know the architecture, or refuses a source.
        """

        def one(kernel: Kernel) -> bytes:
            cubin = self._compile(kernel, capability)
            if progress:
                progress("compiling", 1, len(kernels))
            return cubin

        if progress:
            progress("compiling", 0, len(kernels))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC releases the interpreter's lock
            return dict(zip(kernels, pool.map(one, kernels), strict=True))

    def _compile(self, kernel: Kernel, capability: int) -> bytes:
        headers = [(FOLDER / name).read_bytes() for name in HEADERS]
        program = self._call(
            "nvrtcCreateProgram",
            (FOLDER / kernel.source).read_bytes(),
            kernel.source.encode(),
            len(headers),
            headers,
            [name.encode() for name in HEADERS],
        )
        try:
            options = [f"--gpu-architecture=sm_{capability}", *OPTIONS]
            options += [f"-D{name}={value}" for name, value in kernel.defines]
            encoded = [option.encode() for option in options]
            (status,) = self._api.nvrtcCompileProgram(program, len(encoded), encoded)
            if status != self._api.nvrtcResult.NVRTC_SUCCESS:
                raise EngineError(
                    f"{self.name} cannot compile {kernel.source} for compute capability "
                    f"{capability / 10}: {status.name}: {self._log(program)[:500]}"
                )
            cubin: bytes = b" " * self._call("nvrtcGetCUBINSize", program)
            self._call("nvrtcGetCUBIN", program, cubin)
            return cubin
        finally:
            self._api.nvrtcDestroyProgram(program)

    def _log(self, program: Any) -> str:
        log: bytes = b" " * self._call("nvrtcGetProgramLogSize", program)
        self._call("nvrtcGetProgramLog", program, log)
        return log.decode(errors="replace").rstrip("\0 \n")

    def _call(self, name: str, *args: Any) -> Any:
        status, *values = getattr(self._api, name)(*args)
        if status != self._api.nvrtcResult.NVRTC_SUCCESS:
            raise EngineError(f"{name} failed: {status.name}")
        return values[0] if len(values) == 1 else values
