"""Stand-ins for CUDA's runtime and TensorRT that need no GPU and keep the rules of their manuals.

The device's memory is the host's. A stream is a list of work that is done when somebody waits for
it, so whoever reads too early, or overwrites what was not yet copied, gets wrong numbers. Fresh
memory is full of NaN. An engine is the ONNX graph that its plan names, run by ONNX Runtime's CPU
provider on that memory. Breaking a rule gives a status if the real library does, and an
`AssertionError` if it has undefined behaviour.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

Work = Callable[[], None]


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class CopyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class DeviceAttribute(enum.IntEnum):
    cudaDevAttrIntegrated = 18
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


OK = Status.cudaSuccess


@dataclass
class Stream:
    work: list[Work] = field(default_factory=list)
    capture: list[Work] | None = None  # since cudaStreamBeginCapture

    def put(self, work: Work) -> None:
        (self.work if self.capture is None else self.capture).append(work)


class Cuda:
    """`cuda.bindings.runtime` on a GPU of `capability` with `total` bytes.

    fail: name of a call -> status that it returns. calls: names of all calls, in order.
    """

    cudaError_t = Status
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode
    cudaDeviceAttr = DeviceAttribute
    cudaStreamNonBlocking = 1

    def __init__(self, capability: int = 87, total: int = 1 << 30) -> None:
        self.capability, self.total = capability, total
        self.device: dict[int, Any] = {}  # address -> its memory
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.handles = 1000
        self.fail: dict[str, Status] = {}
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any) -> Any:
            self.calls.append(name)
            return (self.fail[name], None) if name in self.fail else found(*args)

        return call

    @property
    def capturing(self) -> bool:
        return any(stream.capture is not None for stream in self.streams.values())

    @property
    def live(self) -> int:
        """Things that were not given back."""
        return sum(
            map(len, (self.device, self.pinned, self.streams, self.graphs, self.executables))
        )

    def handle(self) -> int:
        self.handles += 1
        return self.handles

    def view(self, address: int, size: int, pool: dict[int, Any]) -> Any:
        """Bytes of memory that was allocated and not freed."""
        for start, memory in pool.items():
            if start <= address and address + size <= start + len(memory):
                return np.frombuffer(memory, np.uint8, size, address - start)
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def cudaGetErrorString(self, status: Status) -> Any:
        return OK, status.name.removeprefix("cudaError").encode()

    def cudaGetDevice(self) -> Any:
        return OK, 0

    def cudaDeviceGetAttribute(self, attribute: DeviceAttribute, device: int) -> Any:
        major, minor = divmod(self.capability, 10)
        return OK, {
            DeviceAttribute.cudaDevAttrIntegrated: int(self.capability in (87, 110)),
            DeviceAttribute.cudaDevAttrComputeCapabilityMajor: major,
            DeviceAttribute.cudaDevAttrComputeCapabilityMinor: minor,
        }[attribute]

    def cudaMemGetInfo(self) -> Any:
        return OK, self.total - sum(map(len, self.device.values())), self.total

    def _allocate(self, size: int, pool: dict[int, Any]) -> Any:
        if self.capturing:
            return Status.cudaErrorStreamCaptureUnsupported, None
        block = ctypes.create_string_buffer(size + 256)
        start = -ctypes.addressof(block) % 256
        memory = (ctypes.c_char * size).from_buffer(block, start)
        ctypes.memset(ctypes.addressof(memory), 0xFF, size)
        pool[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    def cudaMalloc(self, size: int) -> Any:
        if size > self.cudaMemGetInfo()[1]:
            return Status.cudaErrorMemoryAllocation, None
        return self._allocate(size, self.device)

    def cudaMallocHost(self, size: int) -> Any:
        return self._allocate(size, self.pinned)

    def cudaFree(self, address: int) -> Any:
        for stream in self.streams.values():
            self._run(stream)  # it waits for the device
        del self.device[address]
        return (OK,)

    def cudaFreeHost(self, address: int) -> Any:
        del self.pinned[address]
        return (OK,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> Any:
        self.streams[stream].put(lambda: self.view(address, size, self.device).fill(value))
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: CopyKind, stream: int) -> Any:
        pools = (
            (self.device, self.pinned)
            if kind == CopyKind.cudaMemcpyHostToDevice
            else (self.pinned, self.device)
        )

        def copy() -> None:
            self.view(to, size, pools[0])[:] = self.view(source, size, pools[1])

        self.streams[stream].put(copy)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        self.streams[handle := self.handle()] = Stream()
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> Any:
        self._run(self.streams.pop(stream))
        return (OK,)

    def _run(self, stream: Stream) -> None:
        while stream.work:
            stream.work.pop(0)()

    def cudaStreamSynchronize(self, stream: int) -> Any:
        if self.streams[stream].capture is not None:
            return (Status.cudaErrorStreamCaptureUnsupported,)
        self._run(self.streams[stream])
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> Any:
        assert self.streams[stream].capture is None
        self.streams[stream].capture = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        captured, self.streams[stream].capture = self.streams[stream].capture, None
        assert captured is not None
        self.graphs[handle := self.handle()] = captured
        return OK, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        self.executables[handle := self.handle()] = list(self.graphs[graph])
        return OK, handle

    def cudaGraphDestroy(self, graph: int) -> Any:
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> Any:
        del self.executables[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        assert self.streams[stream].capture is None
        self.streams[stream].work.extend(self.executables[graph])
        return (OK,)


# --- TensorRT -------------------------------------------------------------------------------------


def plan(graph: Path, profiles: list[dict[str, tuple[int, int]]]) -> bytes:
    """A plan of this TensorRT. profiles: (least, largest) of each dynamic dimension, by name."""
    return json.dumps({"graph": str(graph), "profiles": profiles}).encode()


class Library:
    """The module `tensorrt`, or with `rtx` `tensorrt_rtx`.

    `refuse`: methods that fail by returning None or False.
    """

    IKVCacheUpdateLayer = object
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user", STATIC="static")

    class ILogger:
        ERROR, WARNING = 1, 2

    def __init__(self, cuda: Cuda, version: str = "10.16.1", rtx: bool = False) -> None:
        self.cuda, self.__version__, self.rtx = cuda, version, rtx
        self.__name__: Literal["tensorrt", "tensorrt_rtx"] = "tensorrt_rtx" if rtx else "tensorrt"
        self.refuse: dict[str, str] = {}  # method -> what the logger hears
        self.fail_after: int | None = None  # runs that are still accepted
        self.contexts: list[Context] = []
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(
                EAGER="eager", LAZY="lazy"
            )

    def Runtime(self, log: Any) -> Runtime:
        return Runtime(self, log)


class Runtime:
    def __init__(self, library: Library, log: Any) -> None:
        self.library, self.log = library, log

    def refused(self, method: str) -> bool:
        if method in self.library.refuse:
            self.log.log(Library.ILogger.ERROR, self.library.refuse[method])
        return method in self.library.refuse

    def deserialize_cuda_engine(self, content: Any) -> Engine | None:
        return (
            None
            if self.refused("deserialize_cuda_engine")
            else Engine(self, json.loads(bytes(content)))
        )


class Engine:
    device_memory_size_v2 = 4096

    def __init__(self, runtime: Runtime, content: Any) -> None:
        self.runtime, self.profiles = runtime, content["profiles"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(
            content["graph"], options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {v.name: v for v in self.session.get_inputs()}
        self.outputs = {v.name: v for v in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        names: list[str] = [*self.inputs, *self.outputs]
        return names[index]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return name.replace("present.", "past.") if name.startswith("present.") else None

    def create_runtime_config(self) -> Any:
        assert self.runtime.library.rtx
        config = SimpleNamespace(
            dynamic_shapes_kernel_specialization_strategy="lazy", strategy="static"
        )
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(
            config, "strategy", strategy
        )
        config.create_runtime_cache = object
        config.cache = None

        def set_runtime_cache(cache: object) -> bool:
            config.cache = cache
            return not self.runtime.refused("set_runtime_cache")

        config.set_runtime_cache = set_runtime_cache
        return config

    def create_execution_context(self, config: Any) -> Context | None:
        assert (config.strategy if self.runtime.library.rtx else config) == "user"
        if self.runtime.refused("create_execution_context"):
            return None
        return RtxContext(self, config) if self.runtime.library.rtx else Context(self, config)


NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class Context:
    """IExecutionContext of a context whose memory is the user's."""

    def __init__(self, engine: Engine, config: Any) -> None:
        self.engine, self.runtime = engine, engine.runtime
        self.cuda = self.runtime.library.cuda
        self.profile: int | None = None
        self.memory = (0, 0)
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.settled = False  # has been enqueued since its shapes changed
        self.eager = getattr(config, "dynamic_shapes_kernel_specialization_strategy", "") == "eager"
        self.cache = getattr(config, "cache", None)
        self.runtime.library.contexts.append(self)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        """Raises where others return False, as the bindings do (pyCore.cpp)."""
        assert stream in self.cuda.streams
        if not 0 <= profile < len(self.engine.profiles) or self.runtime.refused(
            "set_optimization_profile_async"
        ):
            raise RuntimeError("Error in set optimization profile async.")
        self.profile = profile
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        assert size >= self.engine.device_memory_size_v2
        self.memory = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.engine.inputs or name in self.engine.outputs
        assert address % 256 == 0
        self.addresses[name] = address
        return address != 0 and not self.runtime.refused("set_tensor_address")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """False outside of the profile. The profile has to be chosen before."""
        assert self.profile is not None
        declared = self.engine.inputs[name].shape
        spans = self.engine.profiles[self.profile]
        legal = len(shape) == len(declared) and all(
            spans[d][0] <= n <= spans[d][1] if isinstance(d, str) else n == d
            for n, d in zip(shape, declared, strict=True)
        )
        if not legal or self.runtime.refused("set_input_shape"):
            return False
        if self.shapes.get(name) != tuple(shape):
            self.shapes[name], self.settled = tuple(shape), False
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.runtime.refused("execute_async_v3"):
            return False
        if (left := self.runtime.library.fail_after) is not None:
            self.runtime.library.fail_after = left - 1
            if left == 0:
                return False
        capturing = self.cuda.streams[stream].capture is not None
        assert self.settled or not capturing, (
            "captured before the first run after a change of shapes"
        )
        assert self.addresses.keys() == self.engine.inputs.keys() | self.engine.outputs.keys()
        self.settled = True
        shapes, addresses = dict(self.shapes), dict(self.addresses)

        def run() -> None:
            assert shapes == self.shapes, (
                "a graph was launched after its context's shapes had changed"
            )
            self._run(shapes, addresses)

        self.cuda.streams[stream].put(run)
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        self.cuda.view(*self.memory, self.cuda.device)[:] = (
            0xA5  # scratch: nobody else's is safe there
        )
        binding = self.engine.session.io_binding()
        for name, value in self.engine.inputs.items():
            shape = (
                tuple(value.shape) if all(isinstance(d, int) for d in value.shape) else shapes[name]
            )
            binding.bind_ortvalue_input(name, self._tensor(value, shape, addresses[name]))
        sizes = {
            d: n
            for name, shape in shapes.items()
            for d, n in zip(self.engine.inputs[name].shape, shape, strict=True)
        }
        for name, value in self.engine.outputs.items():
            aliased = self.engine.get_aliased_input_tensor(name)
            assert aliased is None or addresses[name] == addresses[aliased], (
                f"{name} is not where {aliased} is"
            )
            shape = tuple(sizes.get(d, d) for d in value.shape)
            binding.bind_ortvalue_output(name, self._tensor(value, shape, addresses[name]))
        self.engine.session.run_with_iobinding(binding)

    def _tensor(self, value: Any, shape: tuple[int, ...], address: int) -> Any:
        dtype = np.dtype(NUMPY[value.type])
        memory = self.cuda.view(address, int(np.prod(shape)) * dtype.itemsize, self.cuda.device)
        return ort.OrtValue.ortvalue_from_numpy(memory.view(dtype).reshape(shape))


class RtxContext(Context):
    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.cuda.streams
        return self.eager and not self.runtime.refused("is_stream_capturable")
