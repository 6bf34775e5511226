"""Scales of an 8-bit KV cache, from the bundle's own float cache.

The scales are the largest keys and values after a page, with room to spare. `Target.quantize_cache`
writes them into the decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pulse_edge.assets import REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page.source import read_page
from pulse_edge.page.views import preprocess
from pulse_edge.text.template import PromptBuilder
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint, Floats

ROOM = 1.5  # the largest key or value that can be held, over the largest seen
CODES = 127


def cache_scales(bundle: Bundle, source: Checkpoint) -> dict[str, Floats]:
    """Value of code 1 for each channel of a KV cache.

    Args:
        bundle: of the same weights, with a float cache; its hashes need not be there yet.
        source: the checkpoint it was made from.

    Returns:
        float32 [1, kv_heads, 1, head_size] by cache tensor (`0.key`, `0.value`, `1.key`, ...).
    """
    peaks = cache_peaks(bundle, source)
    return {name: scales_of_peaks(magnitudes, name) for name, magnitudes in peaks.items()}


def cache_peaks(bundle: Bundle, source: Checkpoint) -> dict[str, Floats]:
    """Largest magnitudes [kv_heads, head_size] of each cache tensor.

    The prompt is a question about the first view of a page: at 7B that is 0.6 of the 2.9 thousand
    tokens of all views.
    """
    spec = source.spec
    engine: Any = open_engine(bundle, EngineOptions(engine="onnxruntime"))  # `cached` is its own
    view = engine.encode(preprocess(read_page(SAMPLE_PAGE).image, spec)[:1])[0]
    name = bundle.manifest.tokenizer
    ids = PromptBuilder.of(spec, bundle.read(name), name).first_turn(REPORT_QUESTION)
    embeds = reference.splice(ids, view, source.tensor)[: engine.capacity]
    engine.prefill(embeds.astype(np.float32))
    return {name: np.abs(tensor[0]).max(axis=1) for name, tensor in engine.cached().items()}


def scales_of_peaks(peaks: Floats, name: str) -> Floats:
    """float32 [1, kv_heads, 1, head_size] from the largest magnitudes [kv_heads, head_size].

    RoPE rotates pairs of a key's channels, so a pair has one scale.
    """
    if name.endswith(".key"):
        peaks = np.tile(np.maximum(*np.split(peaks, 2, axis=1)), 2)
    steps = np.maximum(peaks, 1e-6 * peaks.max()) * np.float32(ROOM / CODES)
    scales: Floats = np.maximum(steps, np.finfo(np.float32).tiny)[None, :, None]
    return scales
