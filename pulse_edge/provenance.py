"""The record of what produced an answer.

Bundle, checkpoint, page, engine, versions, machine, parameters.
"""

from __future__ import annotations

import copy
import functools
import platform
from collections.abc import Mapping
from typing import Any

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import PrecisionInfo
from pulse_edge.engines.engine import Engine
from pulse_edge.params import GenerationParams


def provenance(
    bundle: Bundle,
    engine: Engine,
    image: dict[str, Any] | None,
    prompt: str,
    params: GenerationParams,
    verified: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """A JSON-ready record, `provenance` of docs/answer.schema.json.

    Args:
        bundle: the bundle that was run.
        engine: the engine that ran it.
        image: `EncodedPage.record`; None for a request without a page.
        prompt: the conversation as text.
        params: of the request.
        verified: `how` the bundle was checked when it was loaded, and the `key` that vouches for
            it; None for its own checksums.
    """
    manifest = bundle.manifest
    # `vars`, because the records hold nothing that can change: `dataclasses.asdict` looks into each
    # value, which takes a tenth of a millisecond in all.
    return {
        **({} if manifest.tower is None else {"tower": dict(vars(manifest.tower))}),
        "bundle": bundle.digest,
        "verified": {"how": "checksum", "key": None} if verified is None else dict(verified),
        "checkpoint": dict(vars(manifest.checkpoint)),
        "image": copy.deepcopy(image),  # its owner may change it
        "precision": _known(vars(manifest.precision) | _rounding(manifest.precision)),
        "target": manifest.target,
        "engine": engine.describe(),
        "versions": dict(versions(*(("llguidance",) if params.schema is not None else ()))),
        "machine": platform.machine(),
        "prompt": prompt,
        "parameters": dict(vars(params)),
    }


def _rounding(precision: PrecisionInfo) -> dict[str, Any]:
    return {} if precision.rounding is None else {"rounding": _known(vars(precision.rounding))}


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that are not None: the manifest leaves out the others, too."""
    return {name: value for name, value in fields.items() if value is not None}


@functools.cache
def versions(*more: str) -> dict[str, str]:
    """Versions of this package, of Python, and of the libraries that an answer depends on.

    Args:
        more: other libraries that it depends on.
    """
    from importlib.metadata import version  # 50 ms of imports that only an answer needs

    names = ("pulse-edge", "numpy", "pillow", "sentencepiece", *more)
    return {name: version(name) for name in names} | {"python": platform.python_version()}
