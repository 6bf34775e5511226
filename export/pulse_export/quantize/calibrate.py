"""Largest input of each channel of a model's linear layers on ECG pages.

The pages go through the numpy reference layer by layer: all samples through one layer, then the
next. So one layer's weights are in memory at a time, and each is read once. Between layers a sample
is its hidden state (48 MB in a 7B model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.page.tokens import merge
from pulse_edge.page.views import preprocess
from pulse_export import reference
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.samples import DataHash, read_samples

Hidden = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Calibration:
    """Largest magnitudes, float32 [columns], of every linear layer's input and weights, by the
    layer's name.

    Attributes:
        alpha: SmoothQuant's exponent.
        samples: how many pages were run.
        sha256: of the pages and conversations.
    """

    inputs: dict[str, Floats]
    weights: dict[str, Floats]
    alpha: float
    samples: int
    sha256: str

    def __str__(self) -> str:
        smoothing = f"SmoothQuant alpha {self.alpha:g}" if self.alpha else "no smoothing"
        return f"{smoothing}, absmax of {self.samples} samples, data sha256 {self.sha256}"


class _Observer:
    """Does what `reference.linear_layer` does, and remembers what it saw."""

    def __init__(self) -> None:
        self.inputs: dict[str, Floats] = {}
        self.weights: dict[str, Floats] = {}

    def __call__(self, x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        peaks = _peaks(x.reshape(-1, x.shape[-1]))
        if name in self.inputs:
            np.maximum(self.inputs[name], peaks, out=self.inputs[name])
        else:
            self.inputs[name], self.weights[name] = peaks, _peaks(tensor(f"{name}.weight"))
        return reference.linear_layer(x, tensor, name)


def _peaks(rows: reference.Array) -> Floats:
    """Largest magnitude of each column."""
    peaks: Floats = np.maximum(rows.max(axis=0), -rows.min(axis=0)).astype(np.float32)
    return peaks


def calibrate(
    checkpoint: Path,
    spec: ModelSpec,
    tensors: Tensors,
    recipe: Recipe,
    tower: Hidden | None = None,
) -> Calibration:
    """Run the recipe's samples.

    Args:
        checkpoint: its directory, for the tokenizer.
        spec: the model.
        tensors: is asked for every tensor but the head, once each.
        recipe: which samples, and how many.
        tower: see `encode_samples`.

    Returns:
        The largest magnitudes that were seen.

    Raises:
        ExportError: the data is not as the recipe says.
        ImageError: a page is no image.
    """
    observer = _Observer()
    encoded = encode_samples(checkpoint, spec, tensors, recipe, observer, tower)
    states = list(encoded.states)
    for i in range(spec.text.layers):
        cached = cache(tensors)
        for at, x in enumerate(states):
            states[at] = reference.decoder_layer(x, i, spec, cached, None, observer)
    return Calibration(observer.inputs, observer.weights, recipe.alpha, len(states), encoded.sha256)


@dataclass(frozen=True)
class EncodedSamples:
    """Samples as the decoder reads them.

    Attributes:
        states: the embeddings float32 [tokens, hidden] of each sample, its page's among them.
        sha256: of the pages and conversations.
    """

    states: tuple[reference.Array, ...]
    sha256: str


def encode_samples(
    checkpoint: Path,
    spec: ModelSpec,
    tensors: Tensors,
    recipe: Recipe,
    linear: reference.Linear = reference.linear_layer,
    tower: Hidden | None = None,
) -> EncodedSamples:
    """Run the recipe's samples through tower and projector, layer by layer.

    Args:
        checkpoint: its directory, for the tokenizer.
        spec: the model.
        tensors: is asked for the tensors of tower and projector and for the embeddings, once each.
        recipe: which samples, and how many.
        linear: what a linear layer does.
        tower: pixels [views, 3, side, side] -> hidden states [views, patches, width], of a tower
            that is not CLIP's; `linear` sees none of its layers.

    Raises:
        ExportError: the data is not as the recipe says.
        ImageError: a page is no image.
    """
    digest = DataHash()
    states, pages, ids = [], [], []
    cached = cache(tensors)
    for sample in read_samples(checkpoint, spec, recipe.samples, recipe.images, recipe.prompts):
        digest.add(sample)
        views = preprocess(sample.page, spec)
        states.append(
            tower(views)
            if tower
            else np.stack([reference.vision_embeddings(view, spec, cached) for view in views])
        )
        pages.append(sample.page.size)
        ids.append(sample.ids)
    for i in range(0 if tower else spec.vision.feature_layers):
        cached = cache(tensors)
        for views in states:
            for view in views:
                view[:] = reference.vision_layer(view, i, spec, cached, linear)
    cached = cache(tensors)
    newline = cached("image_newline") if spec.image.merge == "spatial_unpad" else None
    for at, (views, size) in enumerate(zip(states, pages, strict=True)):
        patches = views if tower else views[:, 1:]
        features = reference.project(patches, spec, cached, linear)
        states[at] = reference.splice(ids[at], merge(features, size, spec, newline), cached)
    return EncodedSamples(tuple(states), digest.hex)
