"""SmoothQuant: large input channels are moved into the weights.

Xiao et al. 2022, arXiv 2211.10438. Channel k of an activation is divided by s_k, and column k of
the weights that read it is multiplied by s_k, with s_k = max|x_k|^alpha / max|W_k|^(1 - alpha). The
product is the same, and both factors have fewer outliers. The division is free where it folds into
the tensors that write the activation. `sites` is the table of those places:

* a norm before q/k/v, gate/up, fc1: its weight and bias;
* v_proj before o_proj (attention only mixes rows), up_proj before down_proj (SwiGLU is linear in
  it): their rows, and a bias with them;
* nothing before fc2 and the projector's layers (behind a GELU, or the residual stream): there the
  activation is multiplied by `Smoothed.factor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.calibrate import Calibration

LARGEST = 127  # of an activation's codes, which are symmetric


@dataclass(frozen=True)
class Site:
    """An activation.

    Attributes:
        readers: the linear layers that read it.
        writers: the tensors whose rows (or elements) are its channels.
    """

    readers: tuple[str, ...]
    writers: tuple[str, ...] = ()


def sites(spec: ModelSpec, parts: Iterable[str] = ("vision", "decoder")) -> Iterator[Site]:
    """Every activation that linear layers of these parts read, save the head's."""
    if "vision" in parts:
        for i in range(spec.vision.feature_layers):
            yield from _vision_sites(f"vision.encoder.layers.{i}")
        for depth in range(spec.projector_depth):
            yield Site((f"projector.{2 * depth}",))
    if "decoder" in parts:
        for i in range(spec.text.layers):
            yield from _decoder_sites(f"layers.{i}", bool(spec.text.qkv_bias))


def _vision_sites(layer: str) -> Iterator[Site]:
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    yield Site(tuple(f"{attention}.{p}_proj" for p in "qkv"), _affine_names(f"{layer}.layer_norm1"))
    yield Site((f"{attention}.out_proj",), _affine_names(f"{attention}.v_proj"))
    yield Site((f"{mlp}.fc1",), _affine_names(f"{layer}.layer_norm2"))
    yield Site((f"{mlp}.fc2",))


def _decoder_sites(layer: str, biased: bool) -> Iterator[Site]:
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    yield Site(tuple(f"{attention}.{p}_proj" for p in "qkv"), (f"{layer}.input_layernorm.weight",))
    values = _affine_names(f"{attention}.v_proj")
    yield Site((f"{attention}.o_proj",), values if biased else values[:1])
    yield Site(
        (f"{mlp}.gate_proj", f"{mlp}.up_proj"), (f"{layer}.post_attention_layernorm.weight",)
    )
    yield Site((f"{mlp}.down_proj",), (f"{mlp}.up_proj.weight",))


def _affine_names(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


class Smoothed:
    """A checkpoint's tensors with the smoothing folded in. `NetworkWriter` reads them instead.

    Calling it with a canonical name gives that tensor, float32, in its own shape. `scale` and
    `factor` are of a linear layer's input, by the layer's name. With the factors multiplied the
    model computes what it did before, but for rounding.
    """

    def __init__(
        self,
        tensors: Tensors,
        spec: ModelSpec,
        calibration: Calibration,
        parts: Iterable[str] = ("vision", "decoder"),
    ) -> None:
        self._tensors, self._calibration = tensors, calibration
        self._kv = spec.text.kv_heads * spec.text.head_size
        self._head_size = spec.text.head_size
        every = list(sites(spec, tuple(parts)))
        self._read = {reader: site for site in every for reader in site.readers}
        self._written = {writer: site for site in every for writer in site.writers}

    def __call__(self, name: str) -> Floats:
        tensor = self._tensors(name)
        layer = name.removesuffix(".weight")
        if layer != name and layer in self._read and tensor.ndim == 2:
            tensor = tensor * self._vector(self._read[layer])
        if name in self._written:
            divisor = self._vector(self._written[name])
            if len(divisor) != len(tensor):  # heads that share a value head share its s
                divisor = divisor.reshape(self._kv // self._head_size, -1, self._head_size)[
                    :, 0
                ].reshape(-1)
            tensor = tensor / divisor.reshape(-1, *[1] * (tensor.ndim - 1))
        return tensor

    def scale(self, layer: str) -> float:
        """Value of code 1 of the layer's input. Code 127 is its largest smoothed magnitude."""
        site = self._read[layer]
        peaks: Floats = self._calibration.inputs[layer] / self._vector(site)
        return max(float(peaks.max()) / LARGEST, float(np.finfo(np.float32).tiny))

    def factor(self, layer: str) -> Floats | None:
        """float32 [columns] to multiply the layer's input with; None for all ones."""
        site = self._read[layer]
        if site.writers or not self._calibration.alpha:
            return None
        inverse: Floats = np.float32(1) / self._vector(site)
        return inverse

    def _vector(self, site: Site) -> Floats:
        """s float32 [columns]."""
        inputs = self._calibration.inputs[site.readers[0]]
        weights = reduce(np.maximum, (self._calibration.weights[reader] for reader in site.readers))
        if not self._calibration.alpha:
            return np.ones(len(inputs), np.float32)
        if site.readers[0].startswith("layers.") and site.readers[0].endswith("o_proj"):
            inputs, weights = self._shared(inputs), self._shared(weights)
        return smoothing_vector(inputs, weights, self._calibration.alpha)

    def _shared(self, peaks: Floats) -> Floats:
        """The largest of the query heads that share a value head, for each of them."""
        heads = peaks.reshape(self._kv // self._head_size, -1, self._head_size)
        return np.broadcast_to(heads.max(axis=1, keepdims=True), heads.shape).reshape(-1)


def smoothing_vector(inputs: Floats, weights: Floats, alpha: float) -> Floats:
    """s of a site's channels from the largest magnitudes of its inputs and weights.

    It is 1 for channels in which either magnitude is zero.
    """
    live = (inputs > 0) & (weights > 0)
    s: Floats = np.ones_like(inputs)
    s[live] = inputs[live] ** np.float32(alpha) / weights[live] ** np.float32(1 - alpha)
    return s.clip(1e-4, 1e4)  # what is folded stays within float16
