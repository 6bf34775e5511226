"""An int8 KV cache for a decoder that was written with a float one.

ONNX Runtime's `GroupQueryAttention` (docs/ContribOperators.md) rounds keys, after their rotation, and values with one
scale for each channel of each head. The scales are the bundle's own largest keys and values on a page, with room to
spare; nothing else of the graph changes, so its weights stay as they were written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, TOKENIZER
from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure.bench import PAGE, QUESTIONS
from pulse_edge.page.source import read_page
from pulse_edge.page.views import preprocess
from pulse_edge.text.template import PromptBuilder
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint

Floats = NDArray[np.float32]
ROOM = 1.5  # the largest key or value that can be held, over the largest seen
CODES = 127
SCALE_INPUT = 12  # of the operator; the values' scale follows


def quantize_cache(bundle: Bundle, source: Checkpoint) -> None:
    """Make the cache of the bundle's decoder, which is float so far, int8."""
    scales = {name: _scale(peaks, name) for name, peaks in _peaks(bundle, source).items()}
    _rewrite(bundle.file(DECODER_GRAPH), scales)


def _peaks(bundle: Bundle, source: Checkpoint) -> dict[str, Floats]:
    """Largest magnitudes [heads, head size] of each cache tensor, from a question about the first view of a page: at
    7B that is 0.6 of 2.9 thousand tokens."""
    from pulse_edge.engines.onnxruntime import open_engine  # an engine is needed for this cache only

    spec, engine = source.spec, open_engine(bundle, EngineOptions())
    view = engine.encode(preprocess(read_page(PAGE).image, spec)[:1])[0]
    tokenizer = Tokenizer(bundle.file(TOKENIZER), spec.prompt.legacy)
    ids = PromptBuilder(spec.prompt, tokenizer, spec.text.bos, spec.text.eos[0]).first_turn(QUESTIONS[0])
    embeds = reference.splice(ids, view, source.tensor)[: engine.capacity]
    engine.prefill(embeds.astype(np.float32))
    return {name: np.abs(held[0]).max(axis=1) for name, held in engine.cached().items()}


def _scale(peaks: Floats, name: str) -> Floats:
    """Steps [1, heads, 1, head size]. A key's channels turn into each other in pairs, so a pair has one."""
    if name.endswith(".key"):
        peaks = np.tile(np.maximum(*np.split(peaks, 2, axis=1)), 2)
    steps = np.maximum(peaks, 1e-6 * peaks.max()) * np.float32(ROOM / CODES)
    scales: Floats = np.maximum(steps, np.finfo(np.float32).tiny)[None, :, None]
    return scales


def _rewrite(path: Path, scales: dict[str, Floats]) -> None:
    """Give the graph's attention int8 caches with these scales, by the caches' names."""
    model = onnx.load(path, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        if value.name.partition(".")[2] in scales:
            value.type.tensor_type.elem_type = TensorProto.INT8
    for node in model.graph.node:
        if node.op_type != "GroupQueryAttention":
            continue
        names = [present.partition(".")[2] for present in node.output[1:3]]
        node.input.extend([""] * (SCALE_INPUT - len(node.input)) + [f"scale.{name}" for name in names])
        quantized = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in quantized.items())
        model.graph.initializer.extend(numpy_helper.from_array(scales[name], f"scale.{name}") for name in names)
    path.write_bytes(model.SerializeToString(deterministic=True))
