"""A process that runs the cases of one campaign, as the runner asks for them.

    python -m fuzz.worker MODULE:CLASS NAME SEED MEMORY FOLDER

A line on stdin is a case's number, a line on stdout its outcome as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from pulse_edge.privacy import silence

from fuzz.campaign import ESCAPE, GROWTH, MEMORY, Campaign, Finding

ROOM = 6 << 30  # bytes of address space that cases may take; more is a MemoryError


def peak_memory() -> int:
    """Bytes, since `forget_peak`. `getrusage` would count what the parent took before the exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """The peak is what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def address_space() -> int:
    """Bytes that the process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def run_case(
    campaign: Campaign, name: str, seed: int, number: int, memory: int = GROWTH
) -> dict[str, Any]:
    """The case's counts, or what is wrong with it.

    Args:
        campaign: an open one.
        name: of the campaign; with seed and number it gives the case.
        seed: of the run.
        number: of the case.
        memory: bytes that the process may grow by.
    """
    rng = random.Random(f"{name} {seed} {number}")
    forget_peak()
    before = peak_memory()
    try:
        counts = dict(campaign.case(number, rng))
        grown = peak_memory() - before
        if grown > memory:
            raise Finding(MEMORY, f"{grown >> 20} MB")
    except Finding as finding:
        return {"number": number, "kind": finding.kind, "text": finding.text}
    except Exception as error:
        trace = "".join(traceback.format_exception(error)[-3:])
        return {"number": number, "kind": ESCAPE, "text": f"{error!r}\n{trace}"}
    return {"number": number, "counts": counts}


def main() -> None:
    silence("onnxruntime")
    place, name = sys.argv[1:3]
    seed, memory, folder = int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    module, _, attribute = place.partition(":")
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a case prints does not reach the runner
    campaign = getattr(importlib.import_module(module), attribute)(folder)
    limit = address_space() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        print(json.dumps(run_case(campaign, name, seed, int(line), memory)), file=replies)


if __name__ == "__main__":
    main()
