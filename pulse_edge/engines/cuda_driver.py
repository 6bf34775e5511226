"""Asks the CUDA driver for the first GPU's properties and free memory.

It calls the driver through ctypes, and also clears memory for ONNX Runtime's KV cache. The calls
have the names of the CUDA driver API's manual; cuda.h gives some of them a suffix _v2. The driver
numbers the GPUs that CUDA_VISIBLE_DEVICES names, so its first is the one an engine takes. No
function here raises: None means that there is no driver, that it has no GPU, or that a call failed.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SUCCESS = 0  # CUDA_SUCCESS
# CUdevice_attribute of cuda.h: COMPUTE_CAPABILITY_MAJOR and _MINOR
MAJOR, MINOR = 75, 76
# Compute capabilities that ONNX Runtime's wheels have code for; they have no PTX, which a driver
# could compile for others (onnxruntime-gpu 1.31.1, read with cuobjdump). The code for 9.0 and 12.0
# is of the kind that runs there only (sm_90a, sm_120a); code for 8.0 runs on every 8.x.
X86 = (75, 80, 86, 89, 90, 120)
ARM = (89, 90, 120, 121)  # neither Orin (8.7) nor Thor (11.0)
# By `platform.machine`, on Linux, Windows and macOS.
WHEELS = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}


class _Failed(Exception):
    """A call of the driver that did not succeed."""


class _Driver:
    """Calls of the driver. They raise `_Failed` if the status is not success or there is no such
    function."""

    def __init__(self) -> None:
        try:
            self._library: Any = _library()
        except OSError as error:
            raise _Failed(str(error)) from None
        self("cuInit", 0)
        device = ctypes.c_int()
        self("cuDeviceGet", ctypes.byref(device), 0)
        self.device = device.value

    def __call__(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise _Failed(f"{name} is missing") from None
        status = function(*arguments)
        if status != SUCCESS:
            raise _Failed(f"{name}: status {status}")

    def attribute(self, number: int) -> int:
        """One of the device's CUdevice_attribute."""
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), number, self.device)
        return value.value

    @contextmanager
    def context(self) -> Iterator[None]:
        """Make the device's primary context current in the block, and the thread's own after it."""
        context = ctypes.c_void_p()
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        try:
            self("cuCtxPushCurrent_v2", context)
            try:
                yield
            finally:
                self("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        finally:
            self("cuDevicePrimaryCtxRelease_v2", self.device)


def _library() -> Any:
    """Raises `OSError` if there is no driver."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def compute_capability() -> int | None:
    """The first GPU's compute capability, 90 for 9.0; None if not known."""
    try:
        driver = _Driver()
        return 10 * driver.attribute(MAJOR) + driver.attribute(MINOR)
    except _Failed:
        return None


def gpu_memory() -> tuple[int, int] | None:
    """Memory of the first GPU.

    It needs the primary context, which CUDA's runtime and so ONNX Runtime share. With an engine
    open this takes microseconds. Otherwise it makes a context and gives it back in some
    tenths of a second.

    Returns:
        (free, total) in bytes; None if not known.
    """
    free = ctypes.c_size_t()
    total = ctypes.c_size_t()
    try:
        driver = _Driver()
        with driver.context():
            driver("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    except _Failed:
        return None
    return free.value, total.value


def clear(address: int, size: int) -> bool:
    """Fill memory of the first GPU with zeros.

    Args:
        address: of its first byte, on the device.
        size: in bytes.

    Returns:
        Whether it is done.
    """
    try:
        driver = _Driver()
        with driver.context():
            start = ctypes.c_uint64(address)
            driver("cuMemsetD8_v2", start, ctypes.c_ubyte(0), ctypes.c_size_t(size))
            driver("cuCtxSynchronize")
    except _Failed:
        return False
    return True


def unsupported(capability: int | None, machine: str) -> str | None:
    """Why ONNX Runtime's wheel cannot run on a GPU, and what to do.

    Args:
        capability: the GPU's, as `compute_capability` has it; None if not known.
        machine: as `platform.machine` has it.

    Returns:
        A message; None if it can run, or may.
    """
    wheel = WHEELS.get(machine)
    if capability is None or wheel is None:
        return None
    if capability in wheel or (80 in wheel and 80 <= capability < 90):
        return None
    return (
        f"this GPU has compute capability {_dotted(capability)}, "
        "for which ONNX Runtime's wheel holds no code "
        f"(it has {served(machine)}, and no PTX); "
        "use a bundle exported with --target cpu, "
        "or with --target tensorrt where TensorRT knows this GPU"
    )


def served(machine: str) -> str:
    """The compute capabilities that ONNX Runtime's wheel has code for: `7.5, 8.0 and 9.0`.

    Args:
        machine: as `platform.machine` has it, one of `WHEELS`.
    """
    names = [_dotted(capability) for capability in WHEELS[machine]]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"
