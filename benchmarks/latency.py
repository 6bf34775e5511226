"""`pulse-edge bench` from a clone: the same options; the record is added to results/latency.jsonl.

python -m benchmarks.latency pulse-int4 --threads 2
python -m benchmarks.report report.html
"""

from __future__ import annotations

import sys
from pathlib import Path

from pulse_edge.cli import main

RESULTS = Path(__file__).parent / "results"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not any(a.split("=")[0] in ("--append", "--help", "-h") for a in arguments):
        RESULTS.mkdir(exist_ok=True)
        arguments += ["--append", str(RESULTS / "latency.jsonl")]
    main(["bench", *arguments])
