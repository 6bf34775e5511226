"""Compiles gemv.cu: by NVRTC, which needs neither a GPU nor headers, else by nvcc."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

OPTIONS = ("--std=c++17",)
SECONDS = 60.0  # that one compilation may take


class CompileError(Exception):
    """The compiler refuses; its log."""


@dataclass(frozen=True)
class Compiled:
    """A cubin. None: the compiler did not say.

    Attributes:
        registers: of a thread.
        spill_bytes: stored to local memory by a thread.
    """

    cubin: bytes
    registers: int | None
    spill_bytes: int | None


class Compiler(Protocol):
    """`name`: for the record."""

    @property
    def name(self) -> str: ...

    def compile(self, source: str, arch: int, defines: Mapping[str, int]) -> Compiled:
        """For an architecture such as 90. Raises CompileError."""
        ...


def find(arch: int) -> Compiler | None:
    """The first that knows the architecture.

    NVRTC of the wheel nvidia-cuda-nvrtc, which torch brings too, or of the system; else nvcc.
    """
    for compiler in _compilers():
        try:
            compiler.compile('extern "C" __global__ void nothing() {}', arch, {})
        except CompileError:
            continue
        return compiler
    return None


class Nvrtc:
    """NVRTC's C interface. May be used by several threads."""

    def __init__(self, path: str) -> None:
        # NVRTC opens this one by its name, which fails where its folder is on no search path.
        for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so*")):
            try:
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major = ctypes.c_int()
        minor = ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.name = f"NVRTC {major.value}.{minor.value}"

    def compile(self, source: str, arch: int, defines: Mapping[str, int]) -> Compiled:
        program = ctypes.c_void_p()
        text = source.encode()
        headers = (0, None, None)
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, b"gemv.cu", *headers)
        try:
            options = [f"--gpu-architecture=sm_{arch}", *OPTIONS, "--ptxas-options=-v"]
            options += [f"-D{name}={int(value)}" for name, value in defines.items()]
            array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            failed = self._library.nvrtcCompileProgram(program, len(options), array)
            log = self._read("nvrtcGetProgramLog", program).decode(errors="replace").rstrip("\0")
            if failed:
                raise CompileError(f"{self._error(failed)}: {log.strip()[:500]}")
            return _compiled(self._read("nvrtcGetCUBIN", program), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, getter: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{getter}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(getter, program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        failed = getattr(self._library, name)(*arguments)
        if failed:
            raise CompileError(f"{name}: {self._error(failed)}")

    def _error(self, code: int) -> str:
        text: bytes = self._library.nvrtcGetErrorString(code)
        return text.decode()


class Nvcc:
    """nvcc as a program, which needs a C++ compiler."""

    def __init__(self, command: str) -> None:
        self._command = command
        self.name = "nvcc"

    def compile(self, source: str, arch: int, defines: Mapping[str, int]) -> Compiled:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "gemv.cu")
            cubin = Path(folder, "gemv.cubin")
            file.write_text(source)
            options = [f"-arch=sm_{arch}", *OPTIONS, "-Xptxas", "-v"]
            options += [f"-D{name}={int(value)}" for name, value in defines.items()]
            try:
                process = subprocess.run(
                    [self._command, "-cubin", *options, str(file), "-o", str(cubin)],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CompileError(str(error)) from None
            log = process.stdout + process.stderr
            if process.returncode:
                raise CompileError(f"nvcc: {log.strip()[:500]}")
            return _compiled(cubin.read_bytes(), log)


def _compilers() -> Iterator[Compiler]:
    for path in _libraries():
        try:
            yield Nvrtc(path)
        except (OSError, AttributeError, CompileError):  # of another platform, or no NVRTC
            continue
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc:
        yield Nvcc(nvcc)


def _compiled(cubin: bytes, log: str) -> Compiled:
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.search(r"(\d+) bytes spill stores", log)
    return Compiled(
        cubin,
        registers=int(registers[1]) if registers else None,
        spill_bytes=int(spills[1]) if spills else None,
    )


def _libraries() -> Iterator[str]:
    """Files that may be libnvrtc, the likeliest first."""
    folders = []
    package = importlib.util.find_spec("nvidia")
    for root in (package.submodule_search_locations or ()) if package else ():
        folders += [
            Path(root, "cuda_nvrtc", "lib"),
            *sorted(Path(root).glob("cu*/lib"), reverse=True),
        ]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            folders.append(Path(os.environ[variable], "lib64"))
    folders += [Path("/usr/local/cuda/lib64")]
    for folder in folders:
        for file in sorted(folder.glob("libnvrtc.so*"), reverse=True):
            yield str(file)
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system
