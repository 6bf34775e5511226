"""How families of checkpoints name their tensors, and which tensors the network needs.

Canonical names: `vision.` + CLIP's name below `vision_model.`; `projector.{0,2,…}.`;
`image_newline`; and the Llama names below `model.` (`embed_tokens.weight`, `layers.N.…`,
`norm.weight`), `lm_head.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.adapters import merge_advice
from pulse_export.families import PUBLISHED_FAMILIES
from pulse_export.weight_files import UNQUANTIZED

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorLayout:
    """The prefixes of each part's tensors in a family of checkpoints, newest last."""

    vision: tuple[str, ...]
    projector: tuple[str, ...]
    projector_names: dict[int, str]  # index in mlp2x_gelu's Sequential -> name
    newline: tuple[str, ...]
    text: tuple[str, ...]
    head: tuple[str, ...]


_HF = TensorLayout(
    vision=(
        "vision_tower.vision_model.",
        "model.vision_tower.vision_model.",
        "model.vision_tower.",
        "vision_tower.",  # of towers whose modules have no `vision_model`
    ),
    projector=("multi_modal_projector.", "model.multi_modal_projector."),
    projector_names={0: "linear_1.", 2: "linear_2."},
    newline=("image_newline", "model.image_newline"),
    text=("language_model.model.", "model.language_model."),
    head=("language_model.lm_head.weight", "lm_head.weight"),
)
_LLAVA = TensorLayout(
    vision=(
        "model.vision_tower.vision_tower.vision_model.",
        "model.vision_tower.vision_tower.",
    ),
    projector=("model.mm_projector.",),
    projector_names={i: f"{i}." for i in range(0, 16, 2)},
    newline=("model.image_newline",),
    text=("model.",),
    head=("lm_head.weight",),
)
LAYOUTS = {
    **dict.fromkeys(PUBLISHED_FAMILIES, _LLAVA),
    "LlavaNextForConditionalGeneration": _HF,
    "LlavaForConditionalGeneration": _HF,
}
ADAPTER = "an adapter's"
# Names of tensors that tell what the weights are, and what to do.
FOREIGN_NAMES = (
    (re.compile(r"lora_|base_model\.|\.base_layer\.|modules_to_save|adapter_"), ADAPTER),
    (
        re.compile(
            r"\.(qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state|weight_format|W_q|"
            r"weight_scale|weight_scale_inv|input_scale|weight_packed|weight_shape|scales|biases)\b"
        ),
        f"a quantized model's; {UNQUANTIZED}",
    ),
    (
        re.compile(r"\.(experts|block_sparse_moe)\."),
        "a mixture of experts', which is not supported",
    ),
)


def foreign_hint(names: Iterable[str], path: Path) -> str:
    """What names of tensors say about the weights, as the end of a message; "" for nothing.

    Args:
        names: of tensors that the network does not have.
        path: the checkpoint's directory.
    """
    for name in names:
        for pattern, kind in FOREIGN_NAMES:
            if pattern.search(name):
                advice = f"; {merge_advice(path)}" if kind == ADAPTER else ""
                return f"; {name} is {kind}{advice}"
    return ""


def stored_names(name: str, layout: TensorLayout) -> list[str]:
    """Names under which a tensor may be stored.

    Args:
        name: the canonical name.
        layout: the checkpoint's.

    Returns:
        Candidates, to be tried in order.
    """
    if name == "image_newline":
        return list(layout.newline)
    if name == "lm_head.weight":
        return list(layout.head)
    part, _, rest = name.partition(".")
    if part == "vision":
        return [prefix + rest for prefix in layout.vision]
    if part == "projector":
        index, _, leaf = rest.partition(".")
        stored = layout.projector_names.get(int(index), f"{index}.") + leaf
        # A single Linear is stored without an index.
        return [
            prefix + n
            for prefix in layout.projector
            for n in ((stored, leaf) if index == "0" else (stored,))
        ]
    return [prefix + name for prefix in layout.text]


def expected_tensors(spec: ModelSpec, tied: bool) -> Iterator[tuple[str, Shape]]:
    """Canonical name and shape of every tensor the network needs.

    Args:
        spec: the network.
        tied: whether the head is the embedding table, so that it has no tensor of its own.
    """
    yield from _vision_tensors(spec)
    t = spec.text
    yield "embed_tokens.weight", (t.vocab, t.hidden)
    heads, kv = t.heads * t.head_size, t.kv_heads * t.head_size
    for i in range(t.layers):
        layer = f"layers.{i}"
        yield f"{layer}.input_layernorm.weight", (t.hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (t.hidden,)
        for proj, rows in (("q", heads), ("k", kv), ("v", kv)):
            yield f"{layer}.self_attn.{proj}_proj.weight", (rows, t.hidden)
            if t.qkv_bias:
                yield f"{layer}.self_attn.{proj}_proj.bias", (rows,)
        yield f"{layer}.self_attn.o_proj.weight", (t.hidden, heads)
        for proj, shape in (
            ("gate", (t.ffn, t.hidden)),
            ("up", (t.ffn, t.hidden)),
            ("down", (t.hidden, t.ffn)),
        ):
            yield f"{layer}.mlp.{proj}_proj.weight", shape
    yield "norm.weight", (t.hidden,)
    if not tied:
        yield "lm_head.weight", (t.vocab, t.hidden)


def _vision_tensors(spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    """Of tower, projector and newline."""
    v, t = spec.vision, spec.text
    yield "vision.embeddings.class_embedding", (v.width,)
    yield "vision.embeddings.patch_embedding.weight", (v.width, 3, v.patch_size, v.patch_size)
    yield "vision.embeddings.position_embedding.weight", (v.grid**2 + 1, v.width)
    yield from _affine_shapes("vision.pre_layrnorm", (v.width,))
    for i in range(v.feature_layers):
        layer = f"vision.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _affine_shapes(f"{layer}.{norm}", (v.width,))
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine_shapes(f"{layer}.self_attn.{proj}", (v.width, v.width))
        yield from _affine_shapes(f"{layer}.mlp.fc1", (v.mlp, v.width))
        yield from _affine_shapes(f"{layer}.mlp.fc2", (v.width, v.mlp))
    for depth in range(spec.projector_depth):
        yield from _affine_shapes(
            f"projector.{2 * depth}", (t.hidden, t.hidden if depth else v.width)
        )
    if spec.image.merge == "spatial_unpad":
        yield "image_newline", (t.hidden,)


def _affine_shapes(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
