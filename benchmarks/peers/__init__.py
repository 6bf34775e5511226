"""The peers of compare.py: `protocol.py` and one worker file for each, which runs in the peer's own
environment.

Before any of them imports its library, this silences what the libraries would report. `CI`, which
concerns other programs too, is set for the workers' processes only (`worker.py`).
"""

from pulse_edge.privacy import silence

silence("onnxruntime", "huggingface_hub")
