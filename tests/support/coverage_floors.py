"""Branch coverage of each room, held at a floor.

`make coverage` runs the suite and then this. It reads `.coverage`, prints a table, and exits with 1
if a room is below its floor or has none.

    PYTHONPATH=tests python -m support.coverage_floors

Code that runs in a process of its own is not counted, nor is what needs a GPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

from support.paths import ROOT

# Room -> share of its branches that the suite takes at least, in per cent. Some points below what
# was measured on a machine without a GPU, so that a package that is missing fails nothing.
FLOORS = {
    "export/pulse_export": 86,
    "export/pulse_export/network": 95,
    "export/pulse_export/network/optimum": 40,  # torch has its own environment
    "export/pulse_export/plan": 20,  # builds with TensorRT-RTX, which only .ci/run installs
    "export/pulse_export/quantize": 94,
    "export/pulse_export/targets": 95,
    "pulse_edge": 86,
    "pulse_edge/assets": 95,
    "pulse_edge/audit": 90,
    "pulse_edge/bundle": 89,
    "pulse_edge/cli": 35,  # commands run in processes of their own
    "pulse_edge/decode": 92,
    "pulse_edge/ecg": 95,
    "pulse_edge/ecg/readers": 91,
    "pulse_edge/engines": 89,
    "pulse_edge/engines/native": 70,  # needs a C++ compiler, for the emulation
    "pulse_edge/evaluate": 80,
    "pulse_edge/evaluate/ecgbench": 88,
    "pulse_edge/measure": 80,
    "pulse_edge/page": 93,
    "pulse_edge/panels": 95,
    "pulse_edge/serve": 75,
    "pulse_edge/simulation": 90,
    "pulse_edge/text": 95,
}


@dataclass
class Room:
    """Counts of a folder's own files."""

    statements: int = 0
    run: int = 0
    branches: int = 0
    taken: int = 0

    def add(self, summary: dict[str, Any]) -> None:
        self.statements += summary["num_statements"]
        self.run += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.taken += summary["covered_branches"]

    @property
    def branch_share(self) -> float:
        """In per cent; a room without branches takes all of them."""
        return 100 * self.taken / self.branches if self.branches else 100.0

    @property
    def line_share(self) -> float:
        return 100 * self.run / self.statements if self.statements else 100.0


def measured() -> dict[str, Room]:
    """Folder, relative to the clone -> its counts."""
    data = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
    data.load()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "coverage.json"
        data.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    rooms: dict[str, Room] = {}
    for name, entry in files.items():
        folder = (ROOT / name).parent.relative_to(ROOT).as_posix()
        rooms.setdefault(folder, Room()).add(entry["summary"])
    return rooms


def main() -> int:
    rooms = measured()
    low = [name for name, room in rooms.items() if room.branch_share < FLOORS.get(name, 101)]
    print(f"{'room':<32} {'lines':>7} {'branches':>9} {'floor':>6}")
    for name, room in sorted(rooms.items()):
        floor = FLOORS.get(name, "none")
        mark = "  LOW" if name in low else ""
        print(f"{name:<32} {room.line_share:6.1f}% {room.branch_share:8.1f}% {floor:>6}{mark}")
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
