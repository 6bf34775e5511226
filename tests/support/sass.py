"""NVRTC and nvdisasm of NVIDIA's wheels: cubins, what they take of a GPU, and their instructions.

Neither needs a GPU or cuda-python.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pulse_edge.engines.native.compiler import OPTIONS
from pulse_edge.engines.native.kernels import FOLDER, HEADERS, Kernel

WHEELS = "nvidia-cuda-nvrtc, nvidia-cuda-nvdisasm"


def _found(pattern: str) -> list[Path]:
    """Files of NVIDIA's wheels."""
    package = importlib.util.find_spec("nvidia")
    roots = (package.submodule_search_locations or ()) if package else ()
    return sorted(file for root in roots for file in Path(root).glob(pattern))


def nvdisasm() -> str | None:
    """Its path."""
    files = [str(file) for file in _found("*/bin/nvdisasm") if os.access(file, os.X_OK)]
    return files[0] if files else shutil.which("nvdisasm")


@cache
def nvrtc() -> ctypes.CDLL | None:
    """The library."""
    for file in _found("*/lib/libnvrtc.so*"):
        if "alt" in file.name:
            continue
        for builtins in file.parent.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(file))
    return None


@dataclass(frozen=True)
class Compiled:
    """A cubin.

    Attributes:
        registers: of a thread.
        stack: bytes of a thread's stack frame, spills among them.
    """

    cubin: bytes
    registers: int
    stack: int


def compiled(kernel: Kernel, capability: int) -> Compiled:
    """A kernel as `compiler.Compiler` makes it. Fails with the compiler's log."""
    library = nvrtc()
    assert library
    names = [name.encode() for name in HEADERS]
    texts = [(FOLDER / name).read_bytes() for name in HEADERS]
    array = ctypes.c_char_p * len(names)
    program = ctypes.c_void_p()
    source = (FOLDER / kernel.source).read_bytes()
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source, b"kernel.cu", len(names), array(*texts), array(*names)
    )
    assert status == 0
    try:
        options = [f"--gpu-architecture=sm_{capability}", *OPTIONS, "--ptxas-options=-v"]
        options += [f"-D{name}={value}" for name, value in kernel.defines]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), encoded)
        log = _read(library, "nvrtcGetProgramLog", program).decode(errors="replace")
        assert status == 0, log
        used = log[log.index(f"'{kernel.entry}'") :]  # step.cu has two
        registers = re.search(r"Used (\d+) registers", used)
        stack = re.search(r"(\d+) bytes stack frame", used)
        assert registers, log
        cubin = _read(library, "nvrtcGetCUBIN", program)
        return Compiled(cubin, int(registers[1]), int(stack[1]) if stack else 0)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(library: ctypes.CDLL, getter: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(library, f"{getter}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(library, getter)(program, buffer) == 0
    return buffer.raw


@dataclass(frozen=True)
class Listing:
    """A kernel's instructions, in order, without their operands' spaces.

    Attributes:
        loops: first and last instruction of each loop: what a branch backwards spans.
    """

    instructions: tuple[str, ...]
    loops: tuple[tuple[int, int], ...]

    def count(self, opcode: str, begin: int = 0, end: int | None = None) -> int:
        """Instructions of which a regular expression matches the opcode's beginning."""
        part = self.instructions[begin : None if end is None else end + 1]
        return sum(1 for line in part if re.match(opcode, line))

    def per_product(self, opcode: str = "HMMA") -> float:
        """Instructions for each of an opcode in the innermost loop that has it."""
        having = [loop for loop in self.loops if self.count(opcode, *loop)]
        inner = min(having, key=lambda loop: loop[1] - loop[0])
        return (inner[1] - inner[0] + 1) / self.count(opcode, *inner)


def listing(cubin: bytes, folder: Path, entry: str) -> Listing:
    """Disassembles a kernel."""
    command = nvdisasm()
    assert command
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    process = subprocess.run([command, "-c", str(file)], capture_output=True, text=True, check=True)
    section = process.stdout.split(f".text.{entry}:", 1)[1].split("\n.section", 1)[0]
    labels: dict[str, int] = {}
    branches: list[tuple[int, str]] = []
    instructions: list[str] = []
    for line in section.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif code := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            text = re.sub(r"^@!?U?P\w+\s+", "", code[1])
            if target := re.match(r"BRA.*`\((\.L_\w+)\)", text):
                branches.append((len(instructions), target[1]))
            instructions.append(text)
    loops = [(labels[label], at) for at, label in branches if labels.get(label, at + 1) <= at]
    loops = [loop for loop in loops if loop[0] < loop[1]]  # not the halt at the end
    return Listing(tuple(instructions), tuple(loops))
