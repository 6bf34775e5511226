"""What the goldens were made from: deterministic images, prompts and tiny models.

`make_goldens.py` puts these through the authors' code, `test_goldens.py` through ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

GRIDS = (
    (336, 672),
    (672, 336),
    (672, 672),
    (1008, 336),
    (336, 1008),
)  # PULSE-7B's, (width, height)
SIDE, PATCH = 336, 14

# (width, height): the table of PULSE's page sizes, then extremes.
SIZES = [
    *[
        (2200, 1700),
        (1650, 1275),
        (1241, 704),
        (1024, 768),
        (3000, 1000),
        (2500, 1250),
        (700, 1400),
        (336, 336),
    ],
    *[(1, 1), (5000, 10), (10, 5000), (335, 337), (1275, 1650), (672, 672), (337, 336), (3, 2)],
]
# Pages whose edge should fall on a whole feature, were it not for a product of floats just short of
# it.
JUST_SHORT = [(2352, 1421), (1421, 2352), (470, 2256)]
MODES = ["RGBA", "P", "L", "LA", "1", "I;16", "CMYK"]


def noise_page(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: two gradients and a checkerboard under noise, in integers."""
    x, y = np.arange(width, dtype=np.int64)[None, :], np.arange(height, dtype=np.int64)[:, None]
    ramp_x, ramp_y = x * 200 // max(width - 1, 1), y * 200 // max(height - 1, 1)
    board = ((x // 20 + y // 20) % 2) * 120 + np.zeros_like(x + y)
    planes = np.stack([ramp_x + 0 * y, ramp_y + 0 * x, board], axis=-1)
    noise = np.random.default_rng(seed).integers(0, 56, (height, width, 3))
    return (planes + noise).astype(np.uint8)


def page(width: int, height: int, seed: int = 0) -> Image.Image:
    """`noise_page` as an RGB image."""
    return Image.fromarray(noise_page(width, height, seed))


def mode_page(mode: str) -> Image.Image:
    """A 500 x 300 page in one of `MODES`, before `convert("RGB")`."""
    pixels = noise_page(500, 300, seed=7)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        colour = Image.fromarray(pixels).convert("L" if mode == "LA" else "RGB")
        colour.putalpha(Image.fromarray(pixels[..., 1]))
        return colour
    if mode == "P":
        return Image.fromarray(pixels).quantize(64)
    return Image.fromarray(pixels).convert(mode)


def sweep_sizes() -> list[tuple[int, int]]:
    """Sizes (width, height) for grids and token counts: log-uniform up to 6,000, near-square,
    multiples.
    """
    rng = np.random.default_rng(5)
    wide = np.exp(rng.uniform(0, np.log(6000), (300, 2))).astype(int)
    square = np.repeat(rng.integers(1, 3000, (40, 1)), 2, axis=1) + rng.integers(-1, 2, (40, 2))
    multiples = 336 * rng.integers(1, 8, (40, 2))
    sizes = np.concatenate([wide, square, multiples]).clip(1)
    return [(int(w), int(h)) for w, h in sizes] + JUST_SHORT


# Raw prompts, put through `tokenizer_image_token` as they are.
PROMPTS = [
    "",
    " ",
    "  two  spaces ",
    "\n",
    "\n\nWhat\n",
    "<image>",
    "<image>\n",
    "<image><image>",
    "a<image>b<image>c",
    "USER: <image>\nWhat does this electrocardiogram show? ASSISTANT:",
    "plain text, no picture",
    "</s>",
    "<s>",
    "<s>What",
    "What</s>",
    "What</s>USER: next",
    "What</s> USER: next",
    "What </s>  USER",
    "a<s>b</s>c<unk>d",
    "</s></s>\n</s>x",
    "<unk>",
    "</s>\n",
    "x</s>\n<image> y</s>",
    "<s> <image> </s>",
    "<im_start><pad>",
    "心电图 正常?",
    "emoji 🫀 and é, e\u0301, ½, ﬁ, \u00a0nbsp, \u3000wide",
    "tab\tand\r\nCR",
    "V1-V6: 0.25 mV, 12345678",
    "▁What ▁▁ is",
    "\u200b zero width",
    "trailing newline\n",
    "a" * 40,
    "-----=====-----",
    "</ s> < /s> <S>",
    "<0x0A>",
]

# Conversations through the llava_v1 template: user and assistant texts in turn; the last question
# is open.
CONVERSATIONS = [
    ["What does this electrocardiogram show?"],
    ["Please write a clinical report based on this ECG image."],
    [""],
    [" leading space"],
    ["\nleading newline"],
    ["trailing space "],
    ["Was zeigt das EKG? 心电图 🫀"],
    ["Is it <s> or </s>?"],
    ["What <image> is this?"],
    ["What is the rate?", "72 beats per minute.", "And the axis?"],
    ["What is the rate?", " 72 \n", "\nAnd?", "Left.", "So?"],
    ["What is the rate?", "", "And?"],
    ["Rate?", "It is </s> 72", "And?"],
    ["Rate?", "窦性心律 é", "Und die Achse?", "Links\n\n", ""],
]


@dataclass(frozen=True)
class ModelCase:
    """A tiny checkpoint (arguments of `tiny.make_checkpoint`), a page and a question."""

    name: str
    size: tuple[int, int]
    checkpoint: dict[str, Any] = field(default_factory=dict)
    question: str = "What does this electrocardiogram show?"


MODEL_CASES = [
    ModelCase("flat", (150, 110)),
    ModelCase("flat_wide_gqa_linear", (300, 80), {"kv_heads": 2, "projector": "linear", "seed": 1}),
    ModelCase("unpad", (150, 110), {"merge": "spatial_unpad", "seed": 2}),
    ModelCase("unpad_tall", (70, 200), {"merge": "spatial_unpad", "seed": 3}),
    ModelCase("pad", (150, 100), {"aspect": "pad", "seed": 4}),
    ModelCase("pad_tall_unpad", (60, 90), {"aspect": "pad", "merge": "spatial_unpad", "seed": 5}),
    ModelCase("square", (150, 100), {"aspect": "square", "seed": 6}),
    ModelCase("flat_tied_base_only", (56, 56), {"tied": True, "seed": 7, "grids": ((56, 56),)}),
]
NEW_TOKENS = 64
