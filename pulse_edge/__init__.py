"""pulse-edge: answers questions about ECG images from an optimized bundle of PULSE-7B or a model like it.

Research use only: not a medical device.
"""

from __future__ import annotations

from importlib.metadata import version

from .answer import Answer
from .errors import PulseEdgeError
from .model import Chat, Model, Stream, load
from .sampling import SamplingParams

__version__ = version("pulse-edge")
__all__ = ["Answer", "Chat", "Model", "PulseEdgeError", "SamplingParams", "Stream", "__version__", "load"]
