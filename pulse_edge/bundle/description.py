"""A bundle in words, as `pulse-edge info` prints it."""

from __future__ import annotations

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import compiled_for
from pulse_edge.bundle.manifest import NOTICE, RecipeInfo, TowerInfo
from pulse_edge.bundle.plans import available
from pulse_edge.units import element_bytes, size

TURNS_IN_WORDS = {"first": "first questions only", "several": "conversations of several turns"}

RECIPES_IN_WORDS = {
    "rtn": "rtn (scales by least squares)",
    "gptq": "gptq (errors made good by inputs not rounded yet)",
    "awq": "awq (large inputs scaled into the weights)",
    "auto": "auto (scaled, then gptq)",
}


def describe_bundle(bundle: Bundle) -> list[tuple[str, str]]:
    """Names and values, a line of `pulse-edge info` each."""
    manifest = bundle.manifest
    checkpoint = manifest.checkpoint
    vision = manifest.model.vision
    text = manifest.model.text
    precision = manifest.precision
    row = 2 * text.layers * text.kv_heads * text.head_size * element_bytes(precision.kv_cache)
    block = f", blocks of {precision.block_size}" if precision.block_size else ""
    prompts = f" ({precision.prefill} for prompts)" if precision.prefill else ""
    return [
        ("bundle", f"{bundle.path}, {size(bundle.size)}, target {manifest.target}"),
        ("seal", bundle.digest),
        (
            "checkpoint",
            f"{checkpoint.name}: {checkpoint.architecture}, "
            f"{checkpoint.parameters / 1e6:,.1f} M parameters, {checkpoint.dtype}",
        ),
        (
            "vision",
            f"{vision.feature_layers} of {vision.layers} layers, width {vision.width}, "
            f"{vision.image_size} px in patches of {vision.patch_size}; "
            f"{manifest.model.image.aspect}, {manifest.model.image.merge}"
            + ("" if manifest.tower is None else f"; {tower_in_words(manifest.tower)}"),
        ),
        (
            "decoder",
            f"{text.layers} layers, width {text.hidden}, {text.heads} heads "
            f"({text.kv_heads} KV), vocabulary {text.vocab:,}, context {text.context:,}",
        ),
        (
            "precision",
            f"{precision.name}: decoder {precision.decoder}{prompts}, head {precision.head}, "
            f"vision {precision.vision}{block}; activations {precision.activations}; "
            f"{precision.recipe}",
        ),
        *(
            ()
            if precision.rounding is None
            else (("4-bit recipe", recipe_in_words(precision.rounding)),)
        ),
        (
            "KV cache",
            f"{precision.kv_cache}, {size(row)} a token, "
            f"{size(row * text.context)} at full context",
        ),
        *(() if manifest.turns is None else (("trained on", TURNS_IN_WORDS[manifest.turns]),)),
        *((f.path, f"{size(f.size)}  {f.sha256[:16]}…") for f in manifest.files),
        *(("plans", name) for name in available(bundle)),
        *(("kernels", name) for name in compiled_for(bundle)),
        ("notice", NOTICE),  # ours: a bundle's own text could be forged
    ]


def tower_in_words(info: TowerInfo) -> str:
    """Who exported a vision tower, and how well."""
    return f"{info.family} by Optimum {info.optimum}, within {info.error:.1g} of the torch module"


def recipe_in_words(info: RecipeInfo) -> str:
    """How the decoder's weights became codes, in one line."""
    parts = [RECIPES_IN_WORDS.get(info.name, info.name)]
    if info.damping is not None:
        parts.append(f"damping {info.damping:g}")
    if info.act_order is not None:
        parts.append("large inputs first" if info.act_order else "inputs in their order")
    if info.samples is not None:
        parts.append(f"{info.samples:,} samples, {info.tokens:,} tokens")
    if info.data_sha256 is not None:
        parts.append(f"data sha256 {info.data_sha256}")
    if info.eight_bits is not None:
        parts.append(f"{len(info.eight_bits):,} layers in 8 bits")
    return ", ".join(parts)
