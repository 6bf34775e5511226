"""PULSE-7B's geometry."""

from __future__ import annotations

from typing import Literal

from pulse_edge.bundle.spec import ImageSpec, ModelSpec, PromptSpec, TextSpec, VisionSpec
from pulse_export.chat_template import VICUNA

from goldens import cases

BOS, EOS = 1, 2
Aspect = Literal["anyres", "pad", "square", "stretch"]
Merge = Literal["flat", "spatial_unpad"]


def pulse_spec(
    aspect: Aspect = "anyres",
    merge: Merge = "flat",
) -> ModelSpec:
    """PULSE-7B's spec, with another aspect ratio or merge where asked."""
    return ModelSpec(
        VisionSpec(cases.SIDE, cases.PATCH, 1024, 16, 24, 23, 4096, "quick_gelu", 1e-5),
        2,
        TextSpec(4096, 32, 32, 32, 128, 11008, 32000, 1e-5, 10000.0, 4096, BOS, (EOS,)),
        ImageSpec(
            aspect,
            cases.GRIDS,
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
            merge,
        ),
        PromptSpec(**VICUNA, legacy=False),
    )
