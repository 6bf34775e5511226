"""The CUDA runtime, every status checked; and what an engine has of a GPU: one stream, memory, pinned buffers, graphs.

Calls have the names they have in CUDA's manual and in cuda-python's `cuda.bindings.runtime`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import EngineError


def runtime() -> Any:
    """The module `cuda.bindings.runtime`. Raises `EngineError` where it is missing."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError(
            f"cuda-python is not installed ({error}); pip install cuda-bindings, "
            "of the driver's CUDA version (see nvidia-smi): for 12, 'cuda-bindings<13'"
        ) from None
    return runtime


class CudaError(EngineError):
    """A call that failed; `code` is cudaError_t."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Cuda:
    """`cuda("cudaMalloc", size)`: what the call returns without its status. Raises `CudaError` naming the call."""

    def __init__(self) -> None:
        self.api = runtime()

    def __call__(self, name: str, *args: Any) -> Any:
        status, *values = getattr(self.api, name)(*args)
        if status != self.api.cudaError_t.cudaSuccess:
            text = self.api.cudaGetErrorString(status)[1]
            text = text.decode() if isinstance(text, bytes) else text
            raise CudaError(f"{name} failed: {status.name} ({text})", int(status))
        return values[0] if len(values) == 1 else values

    def attribute(self, name: str) -> int:
        """Of the current device: `name` without the manual's `cudaDevAttr`."""
        return int(self("cudaDeviceGetAttribute", getattr(self.api.cudaDeviceAttr, f"cudaDevAttr{name}"), self._device))

    @property
    def _device(self) -> int:
        return int(self("cudaGetDevice"))

    def capability(self) -> int:
        """Compute capability: 87 is 8.7."""
        return 10 * self.attribute("ComputeCapabilityMajor") + self.attribute("ComputeCapabilityMinor")

    def integrated(self) -> bool:
        """Whether its memory is the host's, as on a Jetson."""
        return bool(self.attribute("Integrated"))


class Device:
    """The current GPU. What it hands out is given back when `stack` closes, last first.

    `used`: bytes allocated on the device, by purpose.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.cuda, self.stack = Cuda(), stack
        self.used: dict[str, int] = {}
        self.capability = self.cuda.capability()
        self.stream = self.cuda("cudaStreamCreateWithFlags", self.cuda.api.cudaStreamNonBlocking)
        stack.callback(self.release, "cudaStreamDestroy", self.stream)

    def release(self, name: str, handle: Any) -> None:
        """Give something back. At the end of a process the driver may be gone, and there is nothing to be done."""
        with suppress(CudaError):
            self.cuda(name, handle)

    def allocate(self, size: int, purpose: str, remedy: str = "close other programs") -> int:
        """Address of `size` bytes of zeros, aligned to 256. Raises `EngineError` that says what to lower."""
        address = self._get("cudaMalloc", size, f"{purpose} of {size / 1e9:.2f} GB", remedy)
        self.stack.callback(self.release, "cudaFree", address)
        self.used[purpose] = self.used.get(purpose, 0) + size
        self.cuda("cudaMemsetAsync", address, 0, size, self.stream)
        return address

    def _get(self, name: str, size: int, what: str, remedy: str) -> int:
        try:
            return int(self.cuda(name, size))
        except CudaError as error:
            if error.code != self.cuda.api.cudaError_t.cudaErrorMemoryAllocation:
                raise
        raise EngineError(f"{name}: no memory for {what}: {self.memory()}; {remedy}")

    def memory(self) -> str:
        """What is free, and what this model has."""
        free, total = self.cuda("cudaMemGetInfo")
        held = ", ".join(f"{purpose} {size / 1e9:.2f}" for purpose, size in self.used.items()) or "nothing"
        return f"{free / 1e9:.2f} of {total / 1e9:.2f} GB of the GPU are free, this model has {held} of them"

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Buffer:
        """Raises `EngineError`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.allocate(size, "buffers")
        pinned = self._get("cudaMallocHost", size, f"pinned buffers of {size / 1e9:.2f} GB", "close other programs")
        self.stack.callback(self.release, "cudaFreeHost", pinned)
        host = np.frombuffer(memoryview((ctypes.c_byte * size).from_address(pinned)), dtype).reshape(shape)
        return Buffer(self, address, host)

    def synchronize(self) -> None:
        self.cuda("cudaStreamSynchronize", self.stream)

    def capture(self, issue: Callable[[], None]) -> Any:
        """What `issue` puts on the stream, as a graph that can be launched; nothing of it runs yet."""
        # Other threads may allocate meanwhile: only this one must not.
        self.cuda(
            "cudaStreamBeginCapture", self.stream, self.cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        try:
            issue()
        except BaseException:
            with suppress(CudaError):  # what broke the capture is what matters
                graph = self.cuda("cudaStreamEndCapture", self.stream)
                if graph is not None:  # it need not have been CUDA that failed
                    self.release("cudaGraphDestroy", graph)
            raise
        graph = self.cuda("cudaStreamEndCapture", self.stream)
        try:
            return self.cuda("cudaGraphInstantiate", graph, 0)
        finally:
            self.release("cudaGraphDestroy", graph)


class Buffer:
    """An array in pinned memory, and as much memory on the device."""

    def __init__(self, device: Device, address: int, host: NDArray[Any]) -> None:
        self._device, self.address, self.host = device, address, host

    def upload(self, count: int) -> None:
        """Copy the first `count` items of the first axis to the device, in the stream's order."""
        kind = self._device.cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self.address, self.host.ctypes.data, count, kind)

    def download(self, count: int) -> None:
        """Copy them back. They are there after `Device.synchronize`."""
        kind = self._device.cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(self.host.ctypes.data, self.address, count, kind)

    def _copy(self, to: int, source: int, count: int, kind: Any) -> None:
        size = count * self.host.strides[0]
        self._device.cuda("cudaMemcpyAsync", to, source, size, kind, self._device.stream)
