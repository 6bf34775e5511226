"""The options of a calibration.

Options alone, so that a command can read them without loading the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pulse_edge.errors import ExportError

MOST_SAMPLES = 4096


@dataclass(frozen=True)
class Recipe:
    """Which samples a calibration takes, for a recipe of weights or scales of 8-bit activations.

    Args:
        images: directory of ECG pages; None: the directory of `prompts`, or simulated pages.
        prompts: JSON file of conversations as ECGInstruct's; None: built-in questions.
        samples: pages to use, 1 to `MOST_SAMPLES`.
        alpha: SmoothQuant's exponent, 0 to 1. 0 leaves the activations as they are; only their
            scales are taken from the samples.

    Raises:
        ExportError: samples or alpha out of range.

    Why alpha is 0.8: activations, which share one scale, are harder to round than weights, which
    have one for each output. Error of a product at pulse-nano's 38 sites, as geometric mean and
    largest (before a down_proj): 1.00 and 4.5 % at alpha 0.5, 0.84 and 3.0 % at 0.8, 0.82 and 2.8 %
    at 0.9. SmoothQuant's authors take 0.85 for Llama-2-7B. A scale that clips gains nothing: at
    0.85 of the largest magnitude 0.84 % become 0.97 %.
    """

    images: Path | None = field(
        default=None, metadata={"help": "ECG pages to calibrate on [default: simulated ones]."}
    )
    prompts: Path | None = field(
        default=None, metadata={"help": "Conversations about the pages, JSON as ECGInstruct's."}
    )
    samples: int = field(default=16, metadata={"help": "Pages to calibrate on."})
    alpha: float = field(default=0.8, metadata={"help": "SmoothQuant's alpha; 0 is off."})

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            message = f"calibration samples are {self.samples}, must be 1 to {MOST_SAMPLES}"
            raise ExportError(message)
        if not 0 <= self.alpha <= 1:
            raise ExportError(f"SmoothQuant's alpha is {self.alpha}, must be 0 (off) to 1")
