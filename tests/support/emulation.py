"""CUDA kernels on the CPU: the source that a GPU runs, compiled by a C++ compiler.

`cuda_emulation.cpp` says what is emulated and which faults are found.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.kernels import FOLDER, Kernel

HERE = Path(__file__).parent
RUNTIME = ("cuda_emulation.h", "cuda_emulation.cpp")
OPTIONS = ("-O1", "-std=c++17", "-w", "-fPIC", "-fvisibility=hidden")
ALIGNMENT = 256  # of device memory
GAP = 256  # between buffers, outside all of them

Array = NDArray[Any]


class EmulationError(Exception):
    """A kernel cannot be compiled, or a fault of it was found."""


def compiler() -> str | None:
    """A C++ compiler's path."""
    return shutil.which("g++") or shutil.which("clang++")


class Kind(IntEnum):
    """When a buffer may be read: `Kind` of cuda_emulation.cpp."""

    READ_ONLY = 0  # always, and never written
    READ_EARLY = 1  # always: what former steps or the host have written
    AFTER_PREVIOUS = 2  # after wait_for_previous_kernel


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("kind", ctypes.c_int),
        ("name", ctypes.c_char_p),
    )


class Memory:
    """Buffers that kernels may access; addresses are those of the process."""

    def __init__(self) -> None:
        self._buffers: dict[int, tuple[str, Array, Kind]] = {}

    def __len__(self) -> int:
        return len(self._buffers)

    def put(self, name: str, array: Array, kind: Kind = Kind.AFTER_PREVIOUS) -> int:
        """A buffer with an array's content."""
        content = np.ascontiguousarray(array)
        memory = np.full(content.nbytes + ALIGNMENT + 2 * GAP, 0xFF, np.uint8)
        start = GAP + (-(memory.ctypes.data + GAP)) % ALIGNMENT
        view = memory[start : start + content.nbytes]
        view[:] = content.reshape(-1).view(np.uint8)
        address = int(view.ctypes.data)
        self._buffers[address] = (name, view, kind)
        return address

    def adopt(self, name: str, address: int, size: int, kind: Kind) -> None:
        """Let kernels access memory of somebody else, which must live as long as this object."""
        memory = memoryview((ctypes.c_ubyte * size).from_address(address))
        view = np.frombuffer(memory, np.uint8)
        self._buffers[address] = (name, view, kind)

    def drop(self, address: int) -> None:
        """Free a buffer: kernels may no longer access it."""
        del self._buffers[address]

    def empty(self, name: str, size: int) -> int:
        """A buffer of NaN that a kernel is to fill."""
        return self.put(name, np.full(size, 0xFF, np.uint8))

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """A copy of the beginning of a buffer."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        values: Array = self._buffers[address][1][:size].view(dtype).reshape(shape).copy()
        return values

    def replace(self, address: int, array: Array) -> None:
        """Overwrite the beginning of a buffer."""
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._buffers[address][1][: content.size] = content

    def mark(self, address: int, name: str, kind: Kind) -> None:
        """Change a buffer's name and kind."""
        self._buffers[address] = (name, self._buffers[address][1], kind)

    def ranges(self) -> Any:
        """For `Emulated.launch`."""
        ranges = [
            _Range(address, address + view.size, int(kind), name.encode())
            for address, (name, view, kind) in self._buffers.items()
        ]
        return (_Range * len(ranges))(*ranges)


class Emulated:
    """A kernel compiled for the CPU.

    Attributes:
        kernel: what it was made of.
        threads: THREADS of the source.
        shared_bytes: sizeof(Shared) of the source, 0 if it has none.
        argument_bytes: of the kernel's argument.
    """

    def __init__(self, kernel: Kernel, library: Path) -> None:
        self.kernel = kernel
        self._library = ctypes.CDLL(str(library))
        self._library.launch.restype = ctypes.c_char_p
        self._library.shared_bytes.restype = ctypes.c_uint64
        self._library.argument_bytes.restype = ctypes.c_uint64
        self.threads = int(self._library.threads())
        self.shared_bytes = int(self._library.shared_bytes())
        self.argument_bytes = int(self._library.argument_bytes())

    def launch(
        self,
        argument: ctypes.Structure,
        grid: tuple[int, ...],
        memory: Memory,
        *,
        seed: int = 0,
        late: bool = False,
    ) -> None:
        """Run a grid.

        Args:
            argument: the kernel's.
            grid: CTAs; y and z are 1 if not given.
            memory: all that the kernel may access.
            seed: of the order in which CTAs, warps and lanes run.
            late: asynchronous copies happen when they are waited for, else when they are issued.

        Raises:
            EmulationError: a fault of the kernel was found.
        """
        if ctypes.sizeof(argument) != self._library.argument_bytes():
            raise EmulationError(f"{type(argument).__name__} has another size in the source")
        sizes = (ctypes.c_uint32 * 3)(*grid, *[1] * (3 - len(grid)))
        ranges = memory.ranges()
        fault = self._library.launch(
            ctypes.byref(argument),
            sizes,
            ctypes.c_int(self.kernel.threads),
            ctypes.c_uint64(self.kernel.shared_bytes),
            ranges,
            ctypes.c_int(len(ranges)),
            ctypes.c_uint32(seed),
            ctypes.c_int(late),
        )
        if fault:
            raise EmulationError(fault.decode())


class Workshop:
    """Compiles kernels, each once: libraries are kept in a folder by their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def build(self, kernel: Kernel, changes: Mapping[str, str] | None = None) -> Emulated:
        """Compile a kernel.

        Args:
            kernel: what is compiled, and how.
            changes: file names and texts in place of those files; tests pass faults.

        Raises:
            EmulationError: there is no compiler, or it refuses.
        """
        sources = {file.name: file.read_text() for file in sorted(FOLDER.glob("*.cu*"))}
        sources.update(changes or {})
        sources["cuda_kernel.cpp"] = (HERE / "cuda_kernel.cpp").read_text()
        defines = [f"-D{name}={value}" for name, value in kernel.defines]
        defines += [f'-DSOURCE="{kernel.source}"', f"-DENTRY={kernel.entry}"]
        runtime = self._runtime()
        library = self._folder / f"{_digest(runtime.name, sources, defines)}.so"
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=self._folder) as name:
                folder = Path(name)
                for file, text in sources.items():
                    (folder / file).write_text(text)
                shutil.copy(HERE / RUNTIME[0], folder)
                _compile(*OPTIONS, "-fsanitize=thread", *defines, "-c", "cuda_kernel.cpp", "-o",
                         "kernel.o", folder=folder)  # fmt: skip
                _compile("-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", "kernel.o", str(runtime),
                         "-o", "kernel.so", folder=folder)  # fmt: skip
                os.replace(folder / "kernel.so", library)
        return Emulated(kernel, library)

    def _runtime(self) -> Path:
        sources = {name: (HERE / name).read_text() for name in RUNTIME}
        compiled = self._folder / f"{_digest('runtime', sources, [])}.o"
        if not compiled.exists():
            with tempfile.TemporaryDirectory(dir=self._folder) as name:
                folder = Path(name)
                target = folder / "runtime.o"
                options = (*OPTIONS, "-O2", "-c", str(HERE / RUNTIME[1]), "-o", str(target))
                _compile(*options, folder=folder)
                os.replace(target, compiled)
        return compiled.resolve()


def _compile(*options: str, folder: Path) -> None:
    command = compiler()
    if command is None:
        raise EmulationError("no C++ compiler (g++ or clang++)")
    process = subprocess.run(
        [command, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise EmulationError(f"{command}: {process.stderr.strip()[:2000]}")


def _digest(name: str, sources: Mapping[str, str], defines: list[str]) -> str:
    text = repr((name, compiler(), OPTIONS, sorted(sources.items()), defines))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
