"""The few functions of the CUDA driver that the measurement needs, by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu.gemv.check import Array

Pointer = int  # to device memory
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
SHARED_CARVEOUT = 9  # CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, percent
PROGRAMMATIC_STREAM_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_…
MAJOR = 75
MINOR = 76
SHARED_OPTIN = 97


class CudaError(Exception):
    """A call of the driver failed."""


class _Value(ctypes.Union):  # CUlaunchAttributeValue
    _fields_ = [("allowed", ctypes.c_int), ("pad", ctypes.c_char * 64)]


class _Attribute(ctypes.Structure):  # CUlaunchAttribute
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", _Value)]


class _Config(ctypes.Structure):  # CUlaunchConfig
    _fields_ = [
        *((f"grid_{axis}", ctypes.c_uint) for axis in "xyz"),
        *((f"block_{axis}", ctypes.c_uint) for axis in "xyz"),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint),
    ]


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel and how it is launched."""

    function: ctypes.c_void_p
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments.

    Attributes:
        pointers: the first arguments.
        number: the last one, an int.
        early: it may start before the kernel before it has ended (programmatic dependent launch).
    """

    kernel: Kernel
    grid: int
    pointers: tuple[Pointer, ...]
    number: int
    early: bool = False


class Gpu:
    """Device 0, its primary context, and one stream.

    Raises:
        CudaError: there is no driver, no GPU, or a call fails.
    """

    def __init__(self, library: str = "libcuda.so.1") -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from None
        self._call("cuInit", ctypes.c_uint(0))
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(NON_BLOCKING))
        self.multiprocessors = self._attribute(MULTIPROCESSORS)
        self.arch = 10 * self._attribute(MAJOR) + self._attribute(MINOR)
        self.shared_bytes = self._attribute(SHARED_OPTIN)

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(100)
        self._call("cuDeviceGetName", text, ctypes.c_int(len(text)), self._device)
        return text.value.decode(errors="replace")

    def load(self, cubin: bytes, name: str, threads: int, shared_bytes: int) -> Kernel:
        module = ctypes.c_void_p()
        function = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(cubin))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        # All kernels prefer the same split of L1: changing it between kernels would empty the SMs.
        for attribute, value in ((MAX_DYNAMIC_SHARED, shared_bytes), (SHARED_CARVEOUT, 100)):
            values = (ctypes.c_int(attribute), ctypes.c_int(value))
            self._call("cuFuncSetAttribute", function, *values)
        return Kernel(function, threads, shared_bytes)

    def allocate(self, size: int) -> Pointer:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def free(self, pointer: Pointer) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def write(self, to: Pointer, array: Array) -> None:
        """From a contiguous array."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(to), source, ctypes.c_size_t(array.nbytes))

    def read(self, array: Array, source: Pointer) -> None:
        """Into a contiguous array, after all work of the stream."""
        self.synchronize()
        to = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoH_v2", to, ctypes.c_uint64(source), ctypes.c_size_t(array.nbytes))

    def copy(self, to: Pointer, source: Pointer, size: int) -> None:
        """On the stream."""
        pointers = (ctypes.c_uint64(to), ctypes.c_uint64(source))
        self._call("cuMemcpyDtoDAsync_v2", *pointers, ctypes.c_size_t(size), self._stream)

    def fill(self, to: Pointer, byte: int, size: int) -> None:
        """On the stream."""
        arguments = (ctypes.c_uint64(to), ctypes.c_ubyte(byte), ctypes.c_size_t(size))
        self._call("cuMemsetD8Async", *arguments, self._stream)

    def launch(self, launch: Launch) -> None:
        """On the stream."""
        kernel = launch.kernel
        values = [ctypes.c_uint64(pointer) for pointer in launch.pointers]
        number = ctypes.c_int(launch.number)
        addresses = [ctypes.addressof(value) for value in (*values, number)]
        arguments = (ctypes.c_void_p * len(addresses))(*addresses)
        if not launch.early:
            sizes = (launch.grid, 1, 1, kernel.threads, 1, 1, kernel.shared_bytes)
            self._call(
                "cuLaunchKernel",
                kernel.function,
                *(ctypes.c_uint(size) for size in sizes),
                self._stream,
                arguments,
                ctypes.c_void_p(),
            )
            return
        attribute = _Attribute(id=PROGRAMMATIC_STREAM_SERIALIZATION)
        attribute.value.allowed = 1
        config = _Config(
            launch.grid,
            1,
            1,
            kernel.threads,
            1,
            1,
            kernel.shared_bytes,
            self._stream,
            ctypes.pointer(attribute),
            1,
        )
        extra = ctypes.c_void_p()
        self._call("cuLaunchKernelEx", ctypes.byref(config), kernel.function, arguments, extra)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def capture(self, launches: Sequence[Launch]) -> Graph:
        """Their graph. Each kernel must have run before: its code is loaded at the first launch."""
        graph = ctypes.c_void_p()
        executable = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(RELAXED))
        try:
            for launch in launches:
                self.launch(launch)
        finally:  # also after a failure, so that the stream can be used again
            ended = self._library.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        self._check("cuStreamEndCapture", ended)
        flags = ctypes.c_ulonglong(0)
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags)
        self._call("cuGraphDestroy", graph)
        return Graph(executable)

    def replay(self, graph: Graph) -> None:
        """On the stream."""
        self._call("cuGraphLaunch", graph.executable, self._stream)

    def destroy(self, graph: Graph) -> None:
        self._call("cuGraphExecDestroy", graph.executable)

    def event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """On the stream."""
        self._call("cuEventRecord", event, self._stream)

    def elapsed_ms(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        milliseconds = ctypes.c_float()
        self._call("cuEventSynchronize", end)
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        arguments = (ctypes.byref(value), ctypes.c_int(number), self._device)
        self._call("cuDeviceGetAttribute", *arguments)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise CudaError(f"the CUDA driver has no {name}") from None
        self._check(name, function(*arguments))

    def _check(self, name: str, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'error %d' % code).decode()}")


@dataclass(frozen=True)
class Graph:
    """An instantiated graph of launches."""

    executable: ctypes.c_void_p
