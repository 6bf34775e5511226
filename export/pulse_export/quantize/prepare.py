"""Calibration data and a recipe become the decoder's codes, and a record for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.bundle.manifest import RecipeInfo
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ExportError
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.calibrate import Hidden, encode_samples
from pulse_export.quantize.decoder_codes import DecoderCodes, Layouts
from pulse_export.quantize.mix import eight_bit_names
from pulse_export.quantize.rounding import Rounding
from pulse_export.quantize.sensitivity import sensitivities

# Inputs of a matrix for each calibration token at most. With fewer tokens, the damping alone would
# say what most inputs are worth.
INPUTS_A_TOKEN = 4


@dataclass(frozen=True)
class PreparedCodes:
    """Codes that a graph is written with.

    Attributes:
        info: what made them, for the manifest.
    """

    codes: DecoderCodes
    info: RecipeInfo


def prepare_codes(
    checkpoint: Path,
    spec: ModelSpec,
    tensors: Tensors,
    rounding: Rounding,
    layouts: Layouts,
    tower: Hidden | None = None,
) -> PreparedCodes:
    """Run the recipe up to the first layer; the rest happens as the graph is written.

    Args:
        checkpoint: its directory, for the tokenizer.
        spec: the model.
        tensors: the checkpoint's, by canonical name.
        rounding: the recipe.
        layouts: how matrices are stored.
        tower: see `encode_samples`.

    Raises:
        ExportError: the data is not as the recipe says or too little, or the budget is too small.
        ImageError: a page is no image.
    """
    row = rounding.row
    info = RecipeInfo(
        name=row.name,
        damping=rounding.damping if row.compensates else None,
        act_order=rounding.act_order if row.compensates else None,
    )
    if rounding.data is None:
        return PreparedCodes(DecoderCodes(tensors, spec, rounding, layouts), info)
    encoded = encode_samples(checkpoint, spec, tensors, rounding.data, tower=tower)
    tokens = sum(map(len, encoded.states))
    _check_tokens(tokens, spec)
    eight = _eight(rounding, tensors, spec, layouts, encoded.states)
    codes = DecoderCodes(
        tensors, spec, rounding, layouts, encoded.states if row.takes_data else (), eight
    )
    return PreparedCodes(
        codes,
        RecipeInfo(
            name=info.name,
            damping=info.damping,
            act_order=info.act_order,
            samples=len(encoded.states),
            tokens=tokens,
            data_sha256=encoded.sha256,
            eight_bits=None if rounding.budget is None else tuple(sorted(eight)),
        ),
    )


def _eight(
    rounding: Rounding,
    tensors: Tensors,
    spec: ModelSpec,
    layouts: Layouts,
    states: Sequence[Floats],
) -> frozenset[str]:
    """Names of the linear layers that get 8 bits."""
    if rounding.budget is None:
        return frozenset()
    return eight_bit_names(sensitivities(tensors, spec, layouts, states), rounding.budget)


def _check_tokens(tokens: int, spec: ModelSpec) -> None:
    least = -(-spec.text.hidden // INPUTS_A_TOKEN)
    if tokens < least:
        raise ExportError(
            f"the calibration data has {tokens:,} tokens, and a model of width "
            f"{spec.text.hidden:,} needs at least {least:,}; "
            "give more pages, or longer conversations with --prompts"
        )
