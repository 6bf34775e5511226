"""Python scripts in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
