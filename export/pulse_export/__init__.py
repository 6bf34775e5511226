"""The export stage: checkpoint -> bundle, and bundle -> TensorRT plans.

`export` and `ExportOptions` make bundles, `verify.compare` checks one against its checkpoint,
`build_plans` builds its plans. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulse_export import verify as verify
    from pulse_export.options import ExportOptions as ExportOptions
    from pulse_export.pipeline import Summary as Summary
    from pulse_export.pipeline import export as export
    from pulse_export.plan.builder import build_plans as build_plans
    from pulse_export.quantize.recipe import Recipe as Recipe

__all__ = ["ExportOptions", "Recipe", "Summary", "build_plans", "export", "verify"]

_HOMES = {
    "ExportOptions": "options",
    "Recipe": "quantize.recipe",
    "Summary": "pipeline",
    "build_plans": "plan.builder",
    "export": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "verify":
        return import_module("pulse_export.verify")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pulse_export.{_HOMES[name]}"), name)
