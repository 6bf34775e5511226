"""A bundle in words, as `pulse-edge info` prints it."""

from __future__ import annotations

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.plans import available
from pulse_edge.units import size


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Names and values, a line of `pulse-edge info` each."""
    manifest = bundle.manifest
    vision, text, precision = manifest.model.vision, manifest.model.text, manifest.precision
    cache_width = {"fp32": 4, "fp16": 2, "int8": 1}[precision.kv_cache]
    cache = 2 * text.layers * text.kv_heads * text.head_size * cache_width
    block = f", blocks of {precision.block_size}" if precision.block_size else ""
    return [
        ("bundle", f"{bundle.path}, {size(bundle.size)}, target {manifest.target}"),
        ("seal", bundle.digest),
        ("checkpoint", f"{manifest.checkpoint.name}: {manifest.checkpoint.architecture}, "
         f"{manifest.checkpoint.parameters / 1e6:,.1f} M parameters, {manifest.checkpoint.dtype}"),
        ("vision", f"{vision.feature_layers} of {vision.layers} layers, width {vision.width}, {vision.image_size} px "
         f"in patches of {vision.patch_size}; {manifest.model.image.aspect}, {manifest.model.image.merge}"),
        ("decoder", f"{text.layers} layers, width {text.hidden}, {text.heads} heads ({text.kv_heads} KV), "
         f"vocabulary {text.vocab:,}, context {text.context:,}"),
        ("precision", f"{precision.name}: decoder {precision.decoder}, head {precision.head}, vision {precision.vision}"
         f"{block}; activations {precision.activations}; {precision.recipe}"),
        ("KV cache", f"{precision.kv_cache}, {size(cache)} a token, {size(cache * text.context)} at full context"),
        *((f.path, f"{size(f.size)}  {f.sha256[:16]}…") for f in manifest.files),
        *(("plans", name) for name in available(bundle)),
        ("notice", manifest.notice),
    ]  # fmt: skip
