"""A stand-in for `cuda.bindings.driver` and `nvrtc`: refuses what CUDA's manual forbids.

Device memory is the process's, kernels run in emulation (`emulation.py`), and work on a stream
waits until somebody waits for it. A cubin names what it was compiled from. Rules are from the CUDA
driver API's manual; `FakeCuda.fault` names the broken one where CUDA would only misbehave.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from pulse_edge.engines.native.kernels import Kernel

from support.emulation import Emulated, Kind, Memory, Workshop

STATIC_SHARED = 48 << 10  # more needs an attribute of the function
Work = Callable[[], None]


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Refused(Exception):
    """A call that CUDA answers with a status."""

    def __init__(self, status: CUresult) -> None:
        super().__init__(status.name)
        self.status = status


def require(condition: object, status: CUresult = CUresult.CUDA_ERROR_INVALID_VALUE) -> None:
    if not condition:
        raise Refused(status)


@dataclass
class Function:
    kernel: Emulated
    module: int
    shared: int = 0
    carveout: int | None = None
    loaded: bool = False  # lazily, by the first launch


@dataclass
class Stream:
    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    invalidated: bool = False
    last: str = ""  # what was put last: "kernel" or "copy"


class FakeCuda:
    """One GPU.

    Attributes:
        capability: compute capability, 90 for 9.0.
        driver_version: 13000 for CUDA 13.0.
        free: bytes of memory.
        memory: what kernels may access.
        counts: how often each call was made.
        early: launches that may start before the kernel before has ended.
        fault: what was done that CUDA does not notice.
        failing: the name of a call, which fails the next time.
        kind: of new allocations, when kernels may read them.
    """

    def __init__(self, workshop: Workshop, capability: int = 90, free: int = 1 << 30) -> None:
        self.capability = capability
        self.driver_version = 13000
        self.free = free
        self.memory = Memory()
        self.counts: dict[str, int] = {}
        self.early = 0
        self.fault = ""
        self.failing = ""
        self.kind = Kind.AFTER_PREVIOUS
        self._passing = 0
        self._workshop = workshop
        self._handles = itertools.count(1000)
        self._ready = False
        self._retained = 0
        self._contexts = threading.local()
        self._device: dict[int, int] = {}
        self._pinned: dict[int, np.ndarray] = {}
        self._streams: dict[int, Stream] = {}
        self._modules: dict[int, dict[str, Any]] = {}
        self._functions: dict[int, Function] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._executables: dict[int, list[Work]] = {}
        self._events: set[int] = set()
        self._launches = 0
        self.driver = self._driver_module()
        self.nvrtc = FakeNvrtc()

    def fails_after(self, name: str, calls: int) -> None:
        """Let a call fail when it was made so often."""
        self.failing = name
        self._passing = calls

    def leaks(self) -> str:
        """What was not given back; empty if all was."""
        kept = {
            "contexts": self._retained,
            "memory": len(self._device),
            "pinned": len(self._pinned),
            "streams": len(self._streams),
            "modules": len(self._modules),
            "events": len(self._events),
            "graphs": len(self._graphs) + len(self._executables),
        }
        return ", ".join(f"{name} {count}" for name, count in kept.items() if count)

    def _driver_module(self) -> Any:
        names = [name for name in dir(self) if name.startswith("cu") and name[2].isupper()]
        attributes = ("MAX_DYNAMIC_SHARED_SIZE_BYTES", "PREFERRED_SHARED_MEMORY_CARVEOUT")
        return SimpleNamespace(
            CUresult=CUresult,
            CUstream_flags=SimpleNamespace(CU_STREAM_NON_BLOCKING=1),
            CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1),
            CUfunction_attribute=SimpleNamespace(
                **{f"CU_FUNC_ATTRIBUTE_{name}": name for name in attributes}
            ),
            CUdevice_attribute=SimpleNamespace(
                **{
                    f"CU_DEVICE_ATTRIBUTE_{name}": name
                    for name in (
                        "COMPUTE_CAPABILITY_MAJOR",
                        "COMPUTE_CAPABILITY_MINOR",
                        "MULTIPROCESSOR_COUNT",
                        "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
                    )
                }
            ),
            CUlaunchAttributeID=SimpleNamespace(
                CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION="early"
            ),
            CUlaunchConfig=SimpleNamespace,
            CUlaunchAttribute=SimpleNamespace,
            CUlaunchAttributeValue=SimpleNamespace,
            cuGetErrorString=lambda status: (CUresult.CUDA_SUCCESS, status.name.encode()),
            **{name: self._answering(name) for name in names},
        )

    def _answering(self, name: str) -> Callable[..., tuple[Any, ...]]:
        function = getattr(self, name)
        needs_context = name not in (
            "cuInit",
            "cuDeviceGet",
            "cuDeviceGetName",
            "cuDriverGetVersion",
            "cuDeviceGetAttribute",
            "cuDevicePrimaryCtxRetain",
            "cuDevicePrimaryCtxRelease",
            "cuCtxPushCurrent",
        )

        def call(*args: Any) -> tuple[Any, ...]:
            self.counts[name] = self.counts.get(name, 0) + 1
            try:
                self._fail_if_due(name)
                require(self._ready or name == "cuInit", CUresult.CUDA_ERROR_NOT_INITIALIZED)
                if needs_context:
                    require(self._stack(), CUresult.CUDA_ERROR_INVALID_CONTEXT)
                value = function(*args)
            except Refused as refused:
                # As cuda-python: a status, and None for what the call would have returned.
                return (refused.status, None)
            return (CUresult.CUDA_SUCCESS,) if value is None else (CUresult.CUDA_SUCCESS, value)

        return call

    def _fail_if_due(self, name: str) -> None:
        if self.failing != name:
            return
        self._passing -= 1
        if self._passing < 0:
            self.failing = ""
            self._passing = 0
            raise Refused(CUresult.CUDA_ERROR_INVALID_VALUE)

    def _stack(self) -> list[int]:
        if not hasattr(self._contexts, "stack"):
            self._contexts.stack = []
        stack: list[int] = self._contexts.stack
        return stack

    def _stream(self, handle: int) -> Stream:
        require(handle in self._streams, CUresult.CUDA_ERROR_INVALID_HANDLE)
        return self._streams[handle]

    def _not_capturing(self) -> None:
        """Calls that may wait for the device end a capture of their thread."""
        for stream in self._streams.values():
            if stream.captured is not None:
                stream.invalidated = True
                raise Refused(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)

    def _put(self, handle: int, work: Work, kind: str) -> None:
        stream = self._stream(handle)
        require(not stream.invalidated, CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        stream.last = kind
        (stream.queue if stream.captured is None else stream.captured).append(work)

    # ---- initialization, contexts

    def cuInit(self, flags: int) -> None:
        require(flags == 0)
        self._ready = True

    def cuDeviceGet(self, number: int) -> int:
        require(number == 0)
        return 7

    def cuDriverGetVersion(self) -> int:
        return self.driver_version

    def cuDeviceGetName(self, length: int, device: int) -> bytes:
        require(device == 7)
        return b"Fake GPU\0"[:length]

    def cuDeviceGetAttribute(self, name: str, device: int) -> int:
        require(device == 7)
        return {
            "COMPUTE_CAPABILITY_MAJOR": self.capability // 10,
            "COMPUTE_CAPABILITY_MINOR": self.capability % 10,
            "MULTIPROCESSOR_COUNT": 2,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 227 << 10,
        }[name]

    def cuDevicePrimaryCtxRetain(self, device: int) -> int:
        self._retained += 1
        return 70

    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        require(self._retained, CUresult.CUDA_ERROR_INVALID_CONTEXT)
        self._retained -= 1

    def cuCtxPushCurrent(self, context: int) -> None:
        require(context == 70 and self._retained, CUresult.CUDA_ERROR_INVALID_CONTEXT)
        self._stack().append(context)

    def cuCtxPopCurrent(self) -> int:
        return self._stack().pop()

    def cuCtxSynchronize(self) -> None:
        self._not_capturing()
        for handle in self._streams:
            self.cuStreamSynchronize(handle)

    # ---- memory

    def cuMemGetInfo(self) -> tuple[int, int]:
        return self.free, 1 << 30

    def cuMemAlloc(self, size: int) -> int:
        self._not_capturing()
        require(size > 0)
        require(size <= self.free, CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        self.free -= size
        name = f"allocation {len(self.memory)}"
        address = self.memory.empty(name, size)  # not zeros
        self.memory.mark(address, name, self.kind)
        self._device[address] = size
        return address

    def cuMemFree(self, address: int) -> None:
        self._not_capturing()
        require(address in self._device)
        self.cuCtxSynchronize()  # cuMemFree waits for the work that may use the memory
        self.memory.drop(address)
        self.free += self._device.pop(address)

    def cuMemAllocHost(self, size: int) -> int:
        self._not_capturing()
        require(size > 0)
        array = np.full(size, 0xFF, np.uint8)
        self._pinned[array.ctypes.data] = array
        return array.ctypes.data

    def cuMemFreeHost(self, address: int) -> None:
        self._not_capturing()
        require(address in self._pinned)
        del self._pinned[address]

    def _start(self, address: int, size: int) -> int:
        """The allocation that a range of device memory lies in."""
        for start, length in self._device.items():
            if start <= address and address + size <= start + length:
                return start
        raise Refused(CUresult.CUDA_ERROR_INVALID_VALUE)

    def _is_pinned(self, address: int, size: int) -> bool:
        ranges = ((a, a + array.nbytes) for a, array in self._pinned.items())
        return any(start <= address and address + size <= end for start, end in ranges)

    def cuMemsetD8Async(self, address: int, value: int, size: int, stream: int) -> None:
        self._start(address, size)

        def work() -> None:
            ctypes.memset(address, value, size)

        self._put(stream, work, "copy")

    def cuMemcpyHtoDAsync(self, to: int, source: int, size: int, stream: int) -> None:
        start = self._start(to, size)
        pinned = self._is_pinned(source, size)
        if self._stream(stream).captured is not None:
            require(pinned, CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        # Pageable memory is copied aside before the call returns.
        aside = b"" if pinned else ctypes.string_at(source, size)
        kind = Kind.READ_EARLY if pinned else Kind.READ_ONLY

        def work() -> None:
            ctypes.memmove(to, source if pinned else aside, size)
            self.memory.mark(start, f"copied {start:x}", kind)

        self._put(stream, work, "copy")

    def cuMemcpyDtoHAsync(self, to: int, source: int, size: int, stream: int) -> None:
        self._start(source, size)
        if self._stream(stream).captured is not None:
            require(self._is_pinned(to, size), CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)

        def work() -> None:
            ctypes.memmove(to, source, size)

        self._put(stream, work, "copy")

    # ---- streams, graphs

    def cuStreamCreate(self, flags: int) -> int:
        require(flags == 1)
        handle = next(self._handles)
        self._streams[handle] = Stream()
        return handle

    def cuStreamDestroy(self, handle: int) -> None:
        self._stream(handle)
        self.cuStreamSynchronize(handle)
        del self._streams[handle]

    def cuStreamSynchronize(self, handle: int) -> None:
        self._not_capturing()
        stream = self._stream(handle)
        queue, stream.queue = stream.queue, []
        for work in queue:
            work()

    def cuStreamBeginCapture(self, handle: int, mode: int) -> None:
        stream = self._stream(handle)
        require(stream.captured is None and mode == 1)
        stream.captured = []
        stream.invalidated = False

    def cuStreamEndCapture(self, handle: int) -> int:
        stream = self._stream(handle)
        require(stream.captured is not None)
        captured, stream.captured = stream.captured or [], None
        invalidated, stream.invalidated = stream.invalidated, False
        require(not invalidated, CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        graph = next(self._handles)
        self._graphs[graph] = captured
        return graph

    def cuGraphInstantiate(self, graph: int, flags: int) -> int:
        require(graph in self._graphs and flags == 0)
        executable = next(self._handles)
        self._executables[executable] = self._graphs[graph]
        return executable

    def cuGraphDestroy(self, graph: int) -> None:
        require(graph in self._graphs)
        del self._graphs[graph]

    def cuGraphExecDestroy(self, executable: int) -> None:
        require(executable in self._executables)
        del self._executables[executable]

    def cuEventCreate(self, flags: int) -> int:
        event = next(self._handles)
        self._events.add(event)
        return event

    def cuEventDestroy(self, event: int) -> None:
        require(event in self._events, CUresult.CUDA_ERROR_INVALID_HANDLE)
        self._events.remove(event)

    def cuEventRecord(self, event: int, stream: int) -> None:
        require(event in self._events, CUresult.CUDA_ERROR_INVALID_HANDLE)
        self._put(stream, lambda: None, "event")

    def cuEventSynchronize(self, event: int) -> None:
        require(event in self._events, CUresult.CUDA_ERROR_INVALID_HANDLE)
        self.cuCtxSynchronize()

    def cuEventElapsedTime(self, start: int, end: int) -> float:
        require({start, end} <= self._events, CUresult.CUDA_ERROR_INVALID_HANDLE)
        return 1.0

    def cuGraphLaunch(self, executable: int, stream: int) -> None:
        require(executable in self._executables, CUresult.CUDA_ERROR_INVALID_HANDLE)
        nodes = self._executables[executable]

        def work() -> None:
            for node in nodes:
                node()

        self._put(stream, work, "copy")

    # ---- kernels

    def cuModuleLoadData(self, image: int) -> int:
        self._not_capturing()
        text = ctypes.string_at(image)
        require(text.startswith(b"{"))
        made = json.loads(text)
        require(made["arch"] == self.capability)
        handle = next(self._handles)
        self._modules[handle] = made
        return handle

    def cuModuleUnload(self, module: int) -> None:
        require(module in self._modules, CUresult.CUDA_ERROR_INVALID_HANDLE)
        del self._modules[module]
        self._functions = {h: f for h, f in self._functions.items() if f.module != module}

    def cuModuleGetFunction(self, module: int, name: bytes) -> int:
        require(module in self._modules, CUresult.CUDA_ERROR_INVALID_HANDLE)
        made = self._modules[module]
        defines = tuple((macro, int(value)) for macro, value in made["defines"])
        kernel = Kernel(made["source"], name.decode(), defines, 0, 0)
        handle = next(self._handles)
        self._functions[handle] = Function(self._workshop.build(kernel), module)
        return handle

    def cuFuncSetAttribute(self, handle: int, name: str, value: int) -> None:
        require(handle in self._functions, CUresult.CUDA_ERROR_INVALID_HANDLE)
        function = self._functions[handle]
        if name == "MAX_DYNAMIC_SHARED_SIZE_BYTES":
            require(0 <= value <= 227 << 10)
            function.shared = value
        else:
            require(-1 <= value <= 100)
            function.carveout = value

    def cuLaunchKernelEx(self, config: Any, handle: int, parameters: int, extra: int) -> None:
        require(handle in self._functions, CUresult.CUDA_ERROR_INVALID_HANDLE)
        require(extra == 0)
        function = self._functions[handle]
        kernel = function.kernel
        grid = config.gridDimX, config.gridDimY, config.gridDimZ
        threads = config.blockDimX * config.blockDimY * config.blockDimZ
        require(all(size > 0 for size in grid) and 0 < threads <= 1024)
        require(config.sharedMemBytes <= max(function.shared, STATIC_SHARED))
        if config.sharedMemBytes < kernel.shared_bytes:
            self.fault = f"{config.sharedMemBytes} bytes of shared memory, less than it uses"
        if function.carveout != 100:
            self.fault = "kernels that prefer different splits of L1"
        stream = self._stream(config.hStream)
        if stream.captured is not None and not function.loaded:
            self.fault = "captured before its code was loaded"
        function.loaded = True
        require(config.numAttrs == len(getattr(config, "attrs", ())))
        if config.numAttrs:
            (attribute,) = config.attrs
            require(attribute.id == "early")
            require(attribute.value.programmaticStreamSerializationAllowed == 1)
            require(self.capability >= 90)
            if stream.last != "kernel":
                self.fault = "an early start after a copy"
            self.early += 1
        # The argument is copied now: its memory may be gone when the kernel runs.
        shared = config.sharedMemBytes
        address = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))[0]
        copied = ctypes.string_at(address, kernel.argument_bytes)
        launched = replace(kernel.kernel, threads=threads, shared_bytes=shared)

        def work() -> None:
            kernel.kernel = launched
            self._run(kernel, copied, grid)

        self._put(config.hStream, work, "kernel")

    def _run(self, kernel: Emulated, argument: bytes, grid: tuple[int, ...]) -> None:
        self._launches += 1

        class Argument(ctypes.Structure):
            _fields_ = (("bytes", ctypes.c_ubyte * len(argument)),)

        kernel.launch(
            Argument.from_buffer_copy(argument),
            grid,
            self.memory,
            seed=self._launches,
            late=bool(self._launches & 1),
        )


class FakeNvrtc:
    """`cuda.bindings.nvrtc` for one architecture after the other.

    Attributes:
        compiled: how many programs.
    """

    nvrtcResult = IntEnum("nvrtcResult", {"NVRTC_SUCCESS": 0, "NVRTC_ERROR_COMPILATION": 6})

    def __init__(self) -> None:
        self.compiled = 0
        self.refusing = False
        self._programs: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def nvrtcVersion(self) -> tuple[Any, ...]:
        return self.nvrtcResult(0), 13, 5

    def nvrtcCreateProgram(
        self, source: bytes, name: bytes, count: int, headers: list[bytes], names: list[bytes]
    ) -> tuple[Any, ...]:
        assert count == len(headers) == len(names)
        with self._lock:
            handle = len(self._programs) + 1
            self._programs[handle] = {"source": name.decode(), "text": source}
        return self.nvrtcResult(0), handle

    def nvrtcCompileProgram(self, program: int, count: int, options: list[bytes]) -> tuple[Any]:
        assert count == len(options)
        if self.refusing:
            return (self.nvrtcResult(6),)
        texts = [option.decode() for option in options]
        made = self._programs[program]
        (arch,) = [text for text in texts if text.startswith("--gpu-architecture=sm_")]
        defines = [text[2:].split("=") for text in texts if text.startswith("-D")]
        content = {
            "source": made["source"],
            "arch": int(arch.removeprefix("--gpu-architecture=sm_")),
            "defines": defines,
        }
        with self._lock:
            self.compiled += 1
            made["cubin"] = content
        return (self.nvrtcResult(0),)

    def _cubin(self, program: int) -> bytes:
        return json.dumps(self._programs[program]["cubin"]).encode() + b"\0"

    def nvrtcGetCUBINSize(self, program: int) -> tuple[Any, ...]:
        return self.nvrtcResult(0), len(self._cubin(program))

    def nvrtcGetCUBIN(self, program: int, to: bytes) -> tuple[Any]:
        assert len(to) == len(self._cubin(program))
        ctypes.memmove(ctypes.c_char_p(to), self._cubin(program), len(to))
        return (self.nvrtcResult(0),)

    def nvrtcGetProgramLogSize(self, program: int) -> tuple[Any, ...]:
        return self.nvrtcResult(0), 12

    def nvrtcGetProgramLog(self, program: int, to: bytes) -> tuple[Any]:
        ctypes.memmove(ctypes.c_char_p(to), b"it is wrong\0", len(to))
        return (self.nvrtcResult(0),)

    def nvrtcDestroyProgram(self, program: int) -> tuple[Any]:
        del self._programs[program]["text"]
        return (self.nvrtcResult(0),)
