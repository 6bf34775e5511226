"""The network of a bundle, whatever its precision and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Aspect = Literal["anyres", "pad", "square", "stretch"]  # how a page becomes views
Merge = Literal["flat", "spatial_unpad"]  # how the views' features become the image's tokens
# How a conversation is written, after LLaVA's `SeparatorStyle`: roles with separators of two kinds,
# `[INST] question [/INST]`, or turns between `<|im_start|>` and `<|im_end|>`.
TurnStyle = Literal["two", "llama_2", "chatml"]


@dataclass(frozen=True)
class VisionSpec:
    """The vision tower.

    Attributes:
        feature_layers: how many of the `layers` run: hidden state -2 of 24 needs 23.
        activation: of its MLP. `other` is one that only a tower of Optimum's has.
    """

    image_size: int
    patch_size: int
    width: int
    heads: int
    layers: int
    feature_layers: int
    mlp: int
    activation: Literal["quick_gelu", "gelu", "other"]
    eps: float

    @property
    def grid(self) -> int:
        """Patches along one edge of a view."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class RopeScaling:
    """How the angles of RoPE are stretched. What a kind does not have is left out of the manifest.

    Attributes:
        kind: `linear` divides all frequencies by the factor; `llama3` only the low ones.
        factor: at least 1.
        low_freq_factor: of llama3. Waves longer than the original context over it are stretched.
        high_freq_factor: of llama3. Waves shorter than the original context over it stay.
        original_context: of llama3: positions that the model was first trained with.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_context: int | None = None


@dataclass(frozen=True)
class TextSpec:
    """The decoder: Llama's, or one that differs from it in what the fields say.

    Attributes:
        rope: None, and left out of the manifest, for plain RoPE.
        qkv_bias: true if q, k and v have biases, as Qwen2's. None is left out, and means false.
    """

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
    rope: RopeScaling | None = None
    qkv_bias: bool | None = None


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
    """Conversation template and the tokenizer's two quirks.

    Attributes:
        user: what begins a question: `USER`, `[INST]` or ChatML's `user`.
        assistant: what an answer follows: `ASSISTANT`, `[/INST]` or ChatML's `assistant`.
        legacy: Hugging Face's slow Llama tokenizer with `legacy: true` puts a dummy space before
            every stretch of text that follows a special token; with `legacy: false` only before the
            first.
        style: how turns are written. None, and left out of the manifest, is `two`.
    """

    name: str
    system: str
    user: str
    assistant: str
    legacy: bool
    style: TurnStyle | None = None


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
