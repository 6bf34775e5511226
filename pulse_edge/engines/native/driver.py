"""The CUDA driver with every status checked, and what decode steps take of a GPU.

Calls have their names of the CUDA driver API's manual and of cuda-python's `cuda.bindings.driver`.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.cuda_runtime import CudaError
from pulse_edge.engines.native.kernels import Kernel
from pulse_edge.engines.native.steps import Address, Launch
from pulse_edge.errors import EngineError

REPLAYS = 9  # of a graph that is timed
EARLY_CAPABILITY = 90  # from which kernels may start before the one before has ended


def driver_module() -> Any:
    """The module `cuda.bindings.driver`. Raises `EngineError` if it is not installed."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(
            f"cuda-python is not installed ({error}); pip install 'pulse-edge[native]', "
            "or cuda-bindings of the driver's CUDA version (see nvidia-smi): "
            "for 12, 'cuda-bindings<13'"
        ) from None
    return driver


class Driver:
    """`driver("cuMemAlloc", size)` returns what the call does, without its status.

    Raises `CudaError`, which names the call, if the status is not success.
    """

    def __init__(self) -> None:
        self.api = driver_module()
        try:
            self("cuInit", 0)
        except EngineError:
            raise
        except Exception as error:  # cuda-python's own, where it finds no libcuda
            raise EngineError(f"no NVIDIA driver here ({error}); see nvidia-smi") from None

    def __call__(self, name: str, *args: Any) -> Any:
        status, *values = getattr(self.api, name)(*args)
        if status != self.api.CUresult.CUDA_SUCCESS:
            text = self.api.cuGetErrorString(status)[1]
            text = text.decode() if isinstance(text, bytes) else text
            raise CudaError(f"{name} failed: {status.name} ({text})", int(status))
        return values[0] if len(values) == 1 else values


class Gpu:
    """The first GPU: its memory, kernels and graphs, and the one stream that all work goes to.

    Closing `stack` gives back all that was handed out, last first. Calls need the primary context,
    which ONNX Runtime uses too: `current` makes it the thread's own for a while.

    Attributes:
        stack: what has to be given back.
        capability: compute capability, 90 for 9.0.
        multiprocessors: how many there are.
        shared_bytes: most shared memory of a CTA.
        used: bytes of memory that were handed out.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.used = 0
        self._driver = Driver()
        self._functions: dict[Kernel, Any] = {}
        device = self._driver("cuDeviceGet", 0)
        self._device = device
        self.capability = 10 * self._attribute("COMPUTE_CAPABILITY_MAJOR")
        self.capability += self._attribute("COMPUTE_CAPABILITY_MINOR")
        self.multiprocessors = self._attribute("MULTIPROCESSOR_COUNT")
        self.shared_bytes = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        self._context = self._driver("cuDevicePrimaryCtxRetain", device)
        stack.callback(self._forget, "cuDevicePrimaryCtxRelease", device)
        with self.current():
            flags = self._driver.api.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self._driver("cuStreamCreate", int(flags))
        stack.callback(self._release, "cuStreamDestroy", self._stream)

    @property
    def name(self) -> str:
        """As NVIDIA calls it."""
        name: bytes = self._driver("cuDeviceGetName", 100, self._device)
        return name.decode(errors="replace").rstrip("\0")

    @property
    def driver_version(self) -> int:
        """The newest CUDA version that the driver knows: 13000 for 13.0."""
        return int(self._driver("cuDriverGetVersion"))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context the thread's own in the block."""
        self._driver("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver("cuCtxPopCurrent")

    def allocate(self, size: int) -> Address:
        """Zeros on the device, aligned to 256 bytes. Raises `EngineError` if there is no memory."""
        with self.current():
            try:
                address = int(self._driver("cuMemAlloc", max(size, 1)))
            except CudaError as error:
                if error.code != int(self._driver.api.CUresult.CUDA_ERROR_OUT_OF_MEMORY):
                    raise
                free, total = self._driver("cuMemGetInfo")
                raise EngineError(
                    f"no memory for {size / 1e9:.2f} GB: {free / 1e9:.2f} of {total / 1e9:.2f} GB "
                    "of the GPU are free; lower --context, or close other programs"
                ) from None
            self.stack.callback(self._release, "cuMemFree", address)
            self.used += size
            self._driver("cuMemsetD8Async", address, 0, size, self._stream)
        return address

    def write(self, to: Address, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device, and wait for it."""
        with self.current():
            source = array.ctypes.data
            self._driver("cuMemcpyHtoDAsync", to, source, array.nbytes, self._stream)
            self.finish()

    def read(self, array: NDArray[Any], source: Address) -> None:
        """Copy from the device to a contiguous array, after all work of the stream."""
        with self.current():
            self._driver("cuMemcpyDtoHAsync", array.ctypes.data, source, array.nbytes, self._stream)
            self.finish()

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Zeros on the host that copies of the stream may read and write."""
        with self.current():
            address = int(self._driver("cuMemAllocHost", size))
        self.stack.callback(self._release, "cuMemFreeHost", address)
        memory = memoryview((ctypes.c_byte * size).from_address(address))
        array = np.frombuffer(memory, np.uint8)
        array[:] = 0
        return array

    def load(self, cubins: Mapping[Kernel, bytes]) -> None:
        """Load kernels, each from a file of its own."""
        attributes = self._driver.api.CUfunction_attribute
        shared = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        carveout = attributes.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
        with self.current():
            for kernel, cubin in cubins.items():
                image = ctypes.create_string_buffer(cubin, len(cubin))
                module = self._driver("cuModuleLoadData", ctypes.addressof(image))
                self.stack.callback(self._release, "cuModuleUnload", module)
                function = self._driver("cuModuleGetFunction", module, kernel.entry.encode())
                self._driver("cuFuncSetAttribute", function, shared, kernel.shared_bytes)
                # Kernels that prefer another split of L1 would wait for the multiprocessors to
                # empty.
                self._driver("cuFuncSetAttribute", function, carveout, 100)
                self._functions[kernel] = function

    def launch(self, launch: Launch, early: bool) -> None:
        """Put a kernel on the stream. The context must be current.

        Args:
            launch: the kernel and its argument, which is copied.
            early: let it start before the kernel before has ended, if the GPU can.
        """
        api = self._driver.api
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
        config.blockDimX = launch.kernel.threads
        config.blockDimY = config.blockDimZ = 1
        config.sharedMemBytes = launch.kernel.shared_bytes
        config.hStream = self._stream
        config.numAttrs = 0
        if early and self.capability >= EARLY_CAPABILITY:
            kinds = api.CUlaunchAttributeID
            attribute = api.CUlaunchAttribute()
            attribute.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            value = api.CUlaunchAttributeValue()
            value.programmaticStreamSerializationAllowed = 1
            attribute.value = value
            config.attrs = [attribute]
            config.numAttrs = 1
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(launch.argument))
        function = self._functions[launch.kernel]
        self._driver("cuLaunchKernelEx", config, function, ctypes.addressof(arguments), 0)

    def upload(self, to: Address, source: NDArray[Any]) -> None:
        """Put a copy of pinned memory to the device on the stream. The context must be current."""
        self._driver("cuMemcpyHtoDAsync", to, source.ctypes.data, source.nbytes, self._stream)

    def download(self, to: NDArray[Any], source: Address) -> None:
        """Put a copy to pinned memory on the stream. The context must be current."""
        self._driver("cuMemcpyDtoHAsync", to.ctypes.data, source, to.nbytes, self._stream)

    def capture(self, issue: Callable[[], None]) -> Any:
        """Capture what `issue` puts on the stream; it does not run. The context must be current.

        Kernels must have run before, because the first launch loads their code.

        Returns:
            A graph for `replay`.
        """
        # Thread-local, because other threads may allocate meanwhile.
        mode = self._driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            self._driver("cuStreamBeginCapture", self._stream, mode)
            issue()
        except BaseException:
            with suppress(CudaError):  # the first error matters
                graph = self._driver("cuStreamEndCapture", self._stream)
                if graph is not None and int(graph):
                    self._release("cuGraphDestroy", graph)
            raise
        graph = self._driver("cuStreamEndCapture", self._stream)
        try:
            executable = self._driver("cuGraphInstantiate", graph, 0)
        finally:
            self._release("cuGraphDestroy", graph)
        self.stack.callback(self._release, "cuGraphExecDestroy", executable)
        return executable

    def replay(self, graph: Any) -> None:
        """Put a captured graph on the stream. The context must be current."""
        self._driver("cuGraphLaunch", graph, self._stream)

    def milliseconds(self, graph: Any) -> float:
        """Of a captured graph: the median of `REPLAYS` replays. The context must be current."""
        events = [self._driver("cuEventCreate", 0) for _ in range(2)]
        try:
            times = []
            for _ in range(REPLAYS + 1):
                self._driver("cuEventRecord", events[0], self._stream)
                self.replay(graph)
                self._driver("cuEventRecord", events[1], self._stream)
                self._driver("cuEventSynchronize", events[1])
                times.append(float(self._driver("cuEventElapsedTime", *events)))
            return statistics.median(times[1:])
        finally:
            for event in events:
                self._release("cuEventDestroy", event)

    def finish(self) -> None:
        """Wait until all work on the stream is done. The context must be current."""
        self._driver("cuStreamSynchronize", self._stream)

    def wait_for_others(self) -> None:
        """Wait for all work of the GPU, also other streams'. The context must be current."""
        self._driver("cuCtxSynchronize")

    def _attribute(self, name: str) -> int:
        attributes = self._driver.api.CUdevice_attribute
        number = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._driver("cuDeviceGetAttribute", number, self._device))

    def _release(self, name: str, handle: Any) -> None:
        """Give something back that belongs to the context."""
        with suppress(CudaError), self.current():  # at the end of a process CUDA may be gone
            self._driver(name, handle)

    def _forget(self, name: str, handle: Any) -> None:
        with suppress(CudaError):
            self._driver(name, handle)
