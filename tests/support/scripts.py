"""Scripts of benchmarks/, run as from a clone, on a tiny model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from support.paths import ROOT

# Sizes of a synthetic checkpoint that takes seconds.
SMALL: dict[str, Any] = {
    "layers": 2,
    "hidden": 64,
    "heads": 4,
    "ffn": 96,
    "vocab": 512,
    "context": 512,
    "vision_layers": 3,
    "vision_width": 32,
    "vision_heads": 2,
    "vision_mlp": 48,
    "image_size": 56,
}


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks.SCRIPT ARGUMENTS`."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


def size_arguments(**sizes: int) -> list[object]:
    """Sizes as options: `hidden=64` is `--hidden 64`."""
    return [a for name, value in sizes.items() for a in ("--" + name.replace("_", "-"), value)]
