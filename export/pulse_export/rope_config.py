"""The fields about rotary embeddings (RoPE) -> their base and scaling.

They stand in `rope_theta` and `rope_scaling`, or since transformers 5 in `rope_parameters`. Source:
transformers' modeling_rope_utils.py.
"""

from __future__ import annotations

from typing import Any

from pulse_edge.bundle.spec import RopeScaling
from pulse_edge.errors import CheckpointError
from pulse_export.fields import Fields

PLACES = ("rope_scaling", "rope_parameters")
KINDS = ("default", "linear", "llama3")
# Of every kind. `factor` is 1 in plain RoPE.
_COMMON = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"})
_LLAMA3 = frozenset({"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
DEFAULT_THETA = 10000.0


def rope_theta(config: Fields) -> float:
    """The base of the angles.

    Raises:
        CheckpointError: it is stated twice, differently.
    """
    places = (config, *(config.part(key) for key in PLACES))
    thetas = {p.positive("rope_theta") for p in places if p.get("rope_theta") is not None}
    if len(thetas) > 1:
        stated = " and ".join(map(str, sorted(thetas)))
        raise CheckpointError(f"{config.where}: rope_theta is both {stated}; keep one")
    return thetas.pop() if thetas else DEFAULT_THETA


def rope_scaling(config: Fields) -> RopeScaling | None:
    """How the angles are stretched; None for plain RoPE.

    Raises:
        CheckpointError: in a way that is not supported, which the message names; or stated twice,
            differently.
    """
    stated = {key: _scaling(config.part(key)) for key in PLACES if config.get(key)}
    if len(set(stated.values())) > 1:
        raise CheckpointError(
            f"{config.where}: rope_scaling and rope_parameters differ; keep the right one"
        )
    return next(iter(stated.values()), None)


def _scaling(rope: Fields) -> RopeScaling | None:
    kind = _rope_kind(rope)
    known = _COMMON | (_LLAMA3 if kind == "llama3" else frozenset())
    unknown = sorted(rope.values.keys() - known)
    if unknown:
        raise CheckpointError(
            f"{rope.where}: {unknown[0]!r:.60} is not supported in RoPE of kind {kind!r}"
        )
    rope.only("partial_rotary_factor", 1, None)
    if kind == "default":
        rope.only("factor", 1, None)
        return None
    factor = rope.positive("factor")
    if factor < 1:
        raise CheckpointError(f"{rope.where}: factor is {factor:g}, must be at least 1")
    if kind == "linear":
        return None if factor == 1 else RopeScaling("linear", factor)
    low, high = (rope.positive(f"{name}_freq_factor") for name in ("low", "high"))
    if not low < high:
        raise CheckpointError(
            f"{rope.where}: low_freq_factor is {low:g}, must be below high_freq_factor, {high:g}"
        )
    original = rope.whole("original_max_position_embeddings")
    return RopeScaling("llama3", factor, low, high, original)


def _rope_kind(rope: Fields) -> str:
    """`rope_type`, or `type` as older versions name it."""
    names: list[Any] = [rope.values[key] for key in ("rope_type", "type") if key in rope.values]
    for name in names:
        if name not in KINDS:
            raise CheckpointError(
                f"{rope.where}: RoPE scaling {name!r:.60} is not supported, only {', '.join(KINDS)}"
            )
    if len(set(names)) > 1:
        raise CheckpointError(
            f"{rope.where}: rope_type is {names[0]!r}, but type {names[1]!r}; make the two agree"
        )
    return str(names[0]) if names else KINDS[0]
