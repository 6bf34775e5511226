"""The CUDA runtime, every status checked. Calls have the names they have in its manual."""

from __future__ import annotations

from typing import Any

from ..errors import EngineError


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

    def capability(self) -> int:
        """Compute capability of the current device: 87 is 8.7."""
        attributes, device = self.api.cudaDeviceAttr, self("cudaGetDevice")
        major = self("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMajor, device)
        minor = self("cudaDeviceGetAttribute", attributes.cudaDevAttrComputeCapabilityMinor, device)
        return int(10 * major + minor)
