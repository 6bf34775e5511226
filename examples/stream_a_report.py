"""Print a report while it is written, and stop early at a limit of characters.

    python examples/stream_a_report.py page.png --most 500

Without arguments it reports on the sample page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pulse_edge

SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("page", nargs="?", type=Path, default=SAMPLE)
parser.add_argument("--most", type=int, default=2000, help="characters to print")
arguments = parser.parse_args()

model = pulse_edge.load()
stream = model.stream(arguments.page, "Please write a clinical report based on this ECG image.")
printed = 0
for piece in stream:
    print(piece, end="", flush=True)
    printed += len(piece)
    if printed >= arguments.most:
        stream.close()  # the model stops within one token
        break
print(f"\n{printed} characters")
