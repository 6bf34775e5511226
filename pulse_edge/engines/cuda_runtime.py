"""The TensorRT engine's stream, memory and graphs, by the CUDA runtime.

It also allocates pinned buffers, and checks every status. The export's plan builder uses it, too.
Calls have the names of CUDA's manual and of cuda-python's `cuda.bindings.runtime`.
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
    """The module `cuda.bindings.runtime`. Raises `EngineError` if it is not installed."""
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
    """`cuda("cudaMalloc", size)` returns what the call does, without its status.

    Raises `CudaError`, which names the call, if the status is not success.
    """

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
        """An attribute of the current device: `cudaDevAttr` + `name` of the manual."""
        device = int(self("cudaGetDevice"))
        number = getattr(self.api.cudaDeviceAttr, f"cudaDevAttr{name}")
        return int(self("cudaDeviceGetAttribute", number, device))

    def capability(self) -> int:
        """Compute capability: 87 is 8.7."""
        major = self.attribute("ComputeCapabilityMajor")
        minor = self.attribute("ComputeCapabilityMinor")
        return 10 * major + minor

    def integrated(self) -> bool:
        """Whether the GPU shares the host's memory, as on a Jetson."""
        return bool(self.attribute("Integrated"))


class CudaDevice:
    """The current GPU. Closing `stack` gives back all that was handed out, last first.

    Attributes:
        used: bytes allocated on the device, by purpose.
        capability: compute capability, 87 for 8.7.
        stream: the only one that the engine uses.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.cuda = Cuda()
        self.stack = stack
        self.used: dict[str, int] = {}
        self.capability = self.cuda.capability()
        self.stream = self.cuda("cudaStreamCreateWithFlags", self.cuda.api.cudaStreamNonBlocking)
        stack.callback(self.release, "cudaStreamDestroy", self.stream)

    def release(self, name: str, handle: Any) -> None:
        """Give something back."""
        with suppress(CudaError):  # at the end of a process the driver may be gone
            self.cuda(name, handle)

    def allocate(self, size: int, purpose: str, remedy: str = "close other programs") -> int:
        """Allocate zeros on the device.

        Args:
            size: in bytes.
            purpose: a noun for `used` and for the error.
            remedy: what to do if there is no memory for it.

        Returns:
            Their address, aligned to 256 bytes.

        Raises:
            EngineError: there is no memory for it.
        """
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
        """The GPU's free memory, and what this model has of it, as text for error messages."""
        free, total = self.cuda("cudaMemGetInfo")
        parts = [f"{purpose} {size / 1e9:.2f}" for purpose, size in self.used.items()]
        own = ", ".join(parts) or "nothing"
        free_share = f"{free / 1e9:.2f} of {total / 1e9:.2f} GB"
        return f"{free_share} of the GPU are free, this model has {own} of them"

    def buffer(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Buffer:
        """A new buffer. Raises `EngineError` if there is no memory for it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.allocate(size, "buffers")
        what = f"pinned buffers of {size / 1e9:.2f} GB"
        pinned = self._get("cudaMallocHost", size, what, "close other programs")
        self.stack.callback(self.release, "cudaFreeHost", pinned)
        memory = memoryview((ctypes.c_byte * size).from_address(pinned))
        return Buffer(self, address, np.frombuffer(memory, dtype).reshape(shape))

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        self.cuda("cudaStreamSynchronize", self.stream)

    def capture(self, issue: Callable[[], None]) -> Any:
        """Capture the work that `issue` puts on the stream. It does not run yet.

        Returns:
            A graph for `cudaGraphLaunch`; give it back with `cudaGraphExecDestroy`.
        """
        # Thread-local, because other threads may allocate meanwhile.
        mode = self.cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.cuda("cudaStreamBeginCapture", self.stream, mode)
        try:
            issue()
        except BaseException:
            with suppress(CudaError):  # the first error matters
                graph = self.cuda("cudaStreamEndCapture", self.stream)
                if graph is not None:  # the failure may have been another library's
                    self.release("cudaGraphDestroy", graph)
            raise
        graph = self.cuda("cudaStreamEndCapture", self.stream)
        try:
            return self.cuda("cudaGraphInstantiate", graph, 0)
        finally:
            self.release("cudaGraphDestroy", graph)


class Buffer:
    """`host`, an array in pinned memory, and as much memory at `address` on the device."""

    def __init__(self, device: CudaDevice, address: int, host: NDArray[Any]) -> None:
        self._device = device
        self.address = address
        self.host = host

    def upload(self, count: int) -> None:
        """Copy the first `count` items of the first axis to the device, in the stream's order."""
        kind = self._device.cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self.address, self.host.ctypes.data, count, kind)

    def download(self, count: int) -> None:
        """Copy the first `count` items back. They are complete after `CudaDevice.synchronize`."""
        kind = self._device.cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(self.host.ctypes.data, self.address, count, kind)

    def _copy(self, to: int, source: int, count: int, kind: Any) -> None:
        size = count * self.host.strides[0]
        self._device.cuda("cudaMemcpyAsync", to, source, size, kind, self._device.stream)
