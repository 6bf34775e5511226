"""Files that ship with the package, and its standard questions."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

EMBEDDED = _HERE / "pulse-nano"  # the bundle that runs when no other is named
SAMPLE_PAGE = _HERE / "sample.png"  # a simulated ECG page, 200 dpi
HEADER_FONT = _HERE / "fonts" / "DejaVuSans.ttf"  # of letters that Pillow's own font lacks
SCHEMAS = _HERE / "schemas"  # JSON schemas of answers, results of panels and benchmarks
PANELS = _HERE / "panels"  # questions with fixed answers, see `pulse_edge.panels`

REPORT_QUESTION = "Please write a clinical report based on this ECG image."  # ECGBench's wording
RATE_QUESTION = "What is the heart rate?"
