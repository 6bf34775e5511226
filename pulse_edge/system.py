"""The machine as the OS describes it, and what a process takes of it.

Name, cores, caches, memory, clocks. Nothing here fails on a system that does not tell: what is not
known is None.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CPUS = Path("/sys/devices/system/cpu")
# The flags in /proc/cpuinfo that decide how fast quantized kernels are.
SIMD = {
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),  # x86
    *("asimd", "asimddp", "i8mm", "sve"),  # Arm
}


def describe() -> dict[str, Any]:
    """Name, cores, caches, memory, clocks and power mode, as JSON-ready values."""
    return {
        "name": _device_name(),
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": physical_cores(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "simd": _simd(),
        "last_level_cache": last_level_cache(),
        "memory": memory(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **power(),
    }


def processor() -> dict[str, Any]:
    """What of the machine decides how fast kernels are on its CPU. Starts no process."""
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "usable_cores": usable_cores(),
        "simd": _simd(),
    }


def power() -> dict[str, Any]:
    """Power mode and clocks in MHz, as far as the OS tells them."""
    clock = CPUS / "cpu0/cpufreq"
    return {
        "governor": read_file(clock / "scaling_governor"),
        "clock_now": _megahertz(clock / "scaling_cur_freq") or _proc_clock(),
        "clock_max": _megahertz(clock / "cpuinfo_max_freq"),
        "platform_profile": read_file(Path("/sys/firmware/acpi/platform_profile")),
        "power_mode": command_output("nvpmodel", "-q"),  # Jetson
        "gpu": command_output(
            "nvidia-smi",
            "--query-gpu=name,clocks.sm,clocks.mem,power.limit",
            "--format=csv,noheader",
        ),
    }


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_threads() -> int:
    """The largest legal number of threads or processes.

    Four times the logical cores: more only take memory and time from each other. A machine with few
    cores still takes 64, so that a command line works on more than one machine.
    """
    return max(64, 4 * (os.cpu_count() or 1))


def physical_cores() -> int:
    """Cores with a multiplier of their own among the usable ones.

    An engine takes this many threads when it may choose.
    """
    usable: Iterable[int] = range(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
    siblings = {read_file(CPUS / f"cpu{i}/topology/thread_siblings_list") or str(i) for i in usable}
    return len(siblings)


def last_level_cache() -> int | None:
    """Bytes of the largest cache of the first core."""
    sizes = [read_file(p) or "" for p in CPUS.glob("cpu0/cache/index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max(
        (int(s[:-1]) * units[s[-1]] for s in sizes if re.fullmatch(r"\d+[KM]", s)), default=None
    )


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes; mapped file pages count.

    0 if the OS does not tell.
    """
    try:
        # Not ru_maxrss: it starts from the parent's value when a large process started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        try:
            import resource
        except ImportError:  # Windows
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def device_memory(pid: int) -> int | None:
    """Bytes of NVIDIA GPUs that a process holds, CUDA's context among them.

    None if the driver does not tell.
    """
    listed = command_output(
        "nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"
    )
    rows = re.findall(r"(\d+), (\d+)", listed or "")
    return sum(int(mebibytes) << 20 for owner, mebibytes in rows if int(owner) == pid) or None


def _device_name() -> str | None:
    """A board's own name (Jetson, Raspberry Pi), else the processor's."""
    board = read_file(Path("/proc/device-tree/model"))
    if board:
        return board.rstrip("\0")
    match = re.search(r"^model name\s*:\s*(.+)$", read_file(Path("/proc/cpuinfo")) or "", re.M)
    return match[1] if match else platform.processor() or None


def _cpu_model() -> dict[str, str] | None:
    """What tells processors of one name apart, in the words of /proc/cpuinfo; None if unknown."""
    info = read_file(Path("/proc/cpuinfo")) or ""
    x86 = ("cpu family", "model", "stepping")
    arm = ("CPU architecture", "CPU part", "CPU revision")
    for keys in (x86, arm):
        found = [re.search(rf"^{key}\s*:\s*(\S+)$", info, re.M) for key in keys]
        if all(found):
            values = (match[1] for match in found if match)
            return dict(zip(("family", "model", "stepping"), values, strict=True))
    return None


def _simd() -> list[str]:
    match = re.search(
        r"^(?:flags|Features)\s*:\s*(.+)$", read_file(Path("/proc/cpuinfo")) or "", re.M
    )
    return sorted(SIMD.intersection(match[1].split())) if match else []


def memory() -> int | None:
    """Bytes of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory() -> int:
    """Bytes that programs can still take without swapping; all of the machine's if unknown."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB", read_file(Path("/proc/meminfo")) or "", re.M)
    return int(match[1]) << 10 if match else memory() or 0


def _megahertz(path: Path) -> int | None:
    text = read_file(path) or ""
    return int(text) // 1000 if text.isdigit() else None


def _proc_clock() -> int | None:
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", read_file(Path("/proc/cpuinfo")) or "", re.M)
    return round(float(match[1])) if match else None


def read_file(path: Path) -> str | None:
    """Text of one of the kernel's files; None if it is empty or cannot be read."""
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def command_output(program: str, *arguments: str) -> str | None:
    """Output of a program in one line; None if there is no such program or it fails."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return None
    return " ".join(done.stdout.split()) or None


def commit_of(clone: Path) -> str | None:
    """The commit that a clone has checked out, `-dirty` if its files differ; None without git.

    Nothing is written into the clone: `git describe --dirty` would lock its index.
    """
    git = ("git", "--no-optional-locks", "-C", str(clone))
    commit = command_output(*git, "rev-parse", "--short=12", "HEAD")
    changes = command_output(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changes else commit
