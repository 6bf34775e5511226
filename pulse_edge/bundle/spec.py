"""The network of a bundle, whatever its precision and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Aspect = Literal["anyres", "pad", "square"]  # how a page becomes views
Merge = Literal["flat", "spatial_unpad"]  # how the views' features become the image's tokens


@dataclass(frozen=True)
class VisionSpec:
    """The CLIP vision tower.

    Attributes:
        feature_layers: how many of the `layers` run: hidden state -2 of 24 needs 23.
    """

    image_size: int
    patch_size: int
    width: int
    heads: int
    layers: int
    feature_layers: int
    mlp: int
    activation: Literal["quick_gelu", "gelu"]
    eps: float

    @property
    def grid(self) -> int:
        """Patches along one edge of a view."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextSpec:
    """The Llama decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    ffn: int
    vocab: int
    eps: float
    rope_theta: float
    context: int
    bos: int
    eos: tuple[int, ...]


@dataclass(frozen=True)
class ImageSpec:
    """Preprocessing and merging.

    Attributes:
        grids: (width, height) in pixels, in the checkpoint's order.
    """

    aspect: Aspect
    grids: tuple[tuple[int, int], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    merge: Merge


@dataclass(frozen=True)
class PromptSpec:
    """Conversation template (LLaVA's `SeparatorStyle.TWO`) and the tokenizer's two quirks.

    Attributes:
        legacy: Hugging Face's slow Llama tokenizer with `legacy: true` puts a dummy space before
            every stretch of text that follows a special token; with `legacy: false` only before the
            first.
    """

    name: str
    system: str
    user: str
    assistant: str
    legacy: bool


@dataclass(frozen=True)
class ModelSpec:
    """Everything about the network that does not depend on precision or target."""

    vision: VisionSpec
    projector_depth: int  # Linear layers, with exact GELU between: 2 is mlp2x_gelu, 1 is linear
    text: TextSpec
    image: ImageSpec
    prompt: PromptSpec

    @property
    def most_views(self) -> int:
        """The most views of a page: the base view, and the largest grid's tiles under anyres."""
        side = self.vision.image_size
        tiles = ((w // side) * (h // side) for w, h in self.image.grids)
        return 1 + max(tiles, default=0) if self.image.aspect == "anyres" else 1
