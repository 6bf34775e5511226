"""The machine as the OS describes it: name, cores, caches, memory, clocks, and what a process takes of it.

Nothing here fails on a system that does not tell: what is not known is None and left out of reports.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CPUS = Path("/sys/devices/system/cpu")
# What decides how fast quantized kernels are, of all the flags in /proc/cpuinfo.
SIMD = {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "sve"}


def describe() -> dict[str, Any]:
    """Name, cores, caches, memory, clocks and power mode, as JSON-ready values."""
    return {
        "name": _device_name(),
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


def power() -> dict[str, Any]:
    """Power mode and clocks, where the OS tells them; clocks in MHz."""
    clock = CPUS / "cpu0/cpufreq"
    return {
        "governor": _read(clock / "scaling_governor"),
        "clock_now": _megahertz(clock / "scaling_cur_freq") or _proc_clock(),
        "clock_max": _megahertz(clock / "cpuinfo_max_freq"),
        "platform_profile": _read(Path("/sys/firmware/acpi/platform_profile")),
        "power_mode": said_by("nvpmodel", "-q"),  # Jetson
        "gpu": said_by("nvidia-smi", "--query-gpu=name,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"),
    }


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Cores with a multiplier of their own among the usable ones: what an engine takes when it may choose."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = {_read(CPUS / f"cpu{i}/topology/thread_siblings_list") or str(i) for i in usable}
    return len(siblings)


def last_level_cache() -> int | None:
    """Bytes of the largest cache of the first core."""
    sizes = [_read(p) or "" for p in CPUS.glob("cpu0/cache/index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(s[:-1]) * units[s[-1]] for s in sizes if re.fullmatch(r"\d+[KM]", s)), default=None)


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes; mapped file pages count. 0 where the OS does not tell."""
    try:
        # Not ru_maxrss, which starts from the parent's where a large process started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        try:
            import resource
        except ImportError:  # Windows
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_memory(pid: int) -> int | None:
    """Bytes of NVIDIA GPUs that a process holds, CUDA's context among them; None where the driver does not tell."""
    listed = said_by("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    held = [int(used) << 20 for owner, used in re.findall(r"(\d+), (\d+)", listed or "") if int(owner) == pid]
    return sum(held) or None


def _device_name() -> str | None:
    """A board's own name (Jetson, Raspberry Pi), else the processor's."""
    board = _read(Path("/proc/device-tree/model"))
    if board:
        return board.rstrip("\0")
    match = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.M)
    return match[1] if match else platform.processor() or None


def _simd() -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.M)
    return sorted(SIMD.intersection(match[1].split())) if match else []


def memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _megahertz(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) // 1000 if text.isdigit() else None


def _proc_clock() -> int | None:
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _read(Path("/proc/cpuinfo")) or "", re.M)
    return round(float(match[1])) if match else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def said_by(program: str, *arguments: str) -> str | None:
    """Output of a program in one line, where there is such a program and it succeeds."""
    found = shutil.which(program)
    if found is None:
        return None
    try:
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(done.stdout.split()) or None if done.returncode == 0 else None
