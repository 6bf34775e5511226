"""Ask about a 12-lead recording: draw it as a page, look at what is missing, ask.

    python examples/ask_a_recording.py recording.dcm --page drawn.png

Reads DICOM waveforms; needs pip install 'pulse-edge[ecg]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pulse_edge

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("recording", type=Path)
parser.add_argument("--page", type=Path, default=Path("drawn.png"), help="where to write the page")
arguments = parser.parse_args()

recording = pulse_edge.read_recording(arguments.recording)
print(f"{recording.duration:.1f} s at {recording.rate:g} Hz")
if recording.missing:
    print(f"not recorded: {' '.join(recording.missing)}")
style = pulse_edge.PageStyle(layout="3x4", speed=25.0, gain=10.0, dpi=200)
pulse_edge.draw_page(recording, style).save(arguments.page)

answer = pulse_edge.load().ask(arguments.page, "What is the heart rate?", max_new_tokens=64)
print(answer.text)
