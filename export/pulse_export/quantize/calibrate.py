"""What a model's linear layers read on ECG pages: the largest magnitude of each input channel.

The pages go through the numpy reference layer by layer: all samples through one layer, then the next, so that one
layer's weights are in memory and each is read once. Between layers a sample is its hidden state (48 MB in a 7B model).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ExportError
from pulse_edge.page.tokens import merge
from pulse_edge.page.views import preprocess
from pulse_export import reference
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.samples import DataHash, read_samples

MOST_SAMPLES = 4096


@dataclass(frozen=True)
class Recipe:
    """How to calibrate. `images` and `prompts`: see `read_samples`. `alpha` of SmoothQuant; 0 leaves activations as
    they are, and only their scales are taken from the samples. Raises `ExportError`.

    0.8: activations, which share one scale, are harder to round than weights, which have one for each output. At
    pulse-nano's 38 sites the error of a product (geometric mean, and the largest, which is before a down_proj) is 1.00
    and 4.5 % at 0.5, 0.84 and 3.0 % at 0.8, 0.82 and 2.8 % at 0.9; SmoothQuant's authors take 0.85 for Llama-2-7B.
    Nothing is gained by a scale that clips: at 0.85 of the largest magnitude 0.84 % become 0.97 %.
    """

    images: Path | None = None
    prompts: Path | None = None
    samples: int = 16
    alpha: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ExportError(f"calibration samples are {self.samples}, must be 1 to {MOST_SAMPLES}")
        if not 0 <= self.alpha <= 1:
            raise ExportError(f"SmoothQuant's alpha is {self.alpha}, must be 0 (off) to 1")


@dataclass(frozen=True)
class Calibration:
    """Largest magnitudes, float32 [columns], of every linear layer's input and weights, by the layer's name; and what
    they were taken from."""

    inputs: dict[str, Floats]
    weights: dict[str, Floats]
    alpha: float
    samples: int
    sha256: str  # of the pages and conversations

    def __str__(self) -> str:
        smoothing = f"SmoothQuant alpha {self.alpha:g}" if self.alpha else "no smoothing"
        return f"{smoothing}, absmax of {self.samples} samples, data sha256 {self.sha256}"


class _Observer:
    """Does what `reference.linear` does, and remembers what it saw."""

    def __init__(self) -> None:
        self.inputs: dict[str, Floats] = {}
        self.weights: dict[str, Floats] = {}

    def __call__(self, x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        peaks = _peaks(x.reshape(-1, x.shape[-1]))
        if name in self.inputs:
            np.maximum(self.inputs[name], peaks, out=self.inputs[name])
        else:
            self.inputs[name], self.weights[name] = peaks, _peaks(tensor(f"{name}.weight"))
        return reference.linear(x, tensor, name)


def _peaks(rows: reference.Array) -> Floats:
    """Largest magnitude of each column."""
    peaks: Floats = np.maximum(rows.max(axis=0), -rows.min(axis=0)).astype(np.float32)
    return peaks


def calibrate(checkpoint: Path, spec: ModelSpec, tensors: Tensors, recipe: Recipe) -> Calibration:
    """Run the recipe's samples. `tensors` is asked for every tensor but the head, once each.

    Raises `ExportError` for what is wrong with the data, `ImageError` for a page that is no image.
    """
    observer, digest = _Observer(), DataHash()
    states, pages, ids = [], [], []
    held = cache(tensors)
    for sample in read_samples(checkpoint, spec, recipe.samples, recipe.images, recipe.prompts):
        digest.add(sample)
        views = preprocess(sample.page, spec)
        states.append(np.stack([reference.vision_embeddings(view, spec, held) for view in views]))
        pages.append(sample.page.size)
        ids.append(sample.ids)
    for i in range(spec.vision.feature_layers):
        held = cache(tensors)
        for views in states:
            for view in views:
                view[:] = reference.vision_layer(view, i, spec, held, observer)
    held = cache(tensors)
    newline = held("image_newline") if spec.image.merge == "spatial_unpad" else None
    for at, (views, size) in enumerate(zip(states, pages, strict=True)):
        features = reference.project(views[:, 1:], spec, held, observer)
        states[at] = reference.splice(ids[at], merge(features, size, spec, newline), held)
    for i in range(spec.text.layers):
        held = cache(tensors)
        for at, x in enumerate(states):
            states[at] = reference.decoder_layer(x, i, spec, held, None, observer)
    return Calibration(observer.inputs, observer.weights, recipe.alpha, len(states), digest.hex)
