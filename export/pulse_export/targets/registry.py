"""The table of targets: what the export can write for."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_edge.bundle.manifest import TargetName
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ExportError
from pulse_export.quantize.precision import Precision

if TYPE_CHECKING:
    from pulse_export.targets.target import CacheScales, Target

# Name, as in a bundle's manifest -> module of this package with `target(name, precision)`.
# Modules are imported when a target is asked for: they need onnx, and the names do not.
TARGETS: dict[TargetName, str] = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime",
    "standard": "tensorrt",
}


def get_target(name: str, precision: Precision) -> Target:
    """The target of this name, in the float type that the precision needs.

    Raises:
        ExportError: no target has this name, or it does not run the precision's storages.
    """
    module = next((module for known, module in TARGETS.items() if known == name), None)
    if module is None:
        raise ExportError(f"target {name!r} is not one of {', '.join(TARGETS)}")
    target: Target = import_module(f"pulse_export.targets.{module}").target(name, precision)
    if not precision.storages <= target.storages:
        legal = ", ".join(sorted(target.storages))
        raise ExportError(
            f"target {name} does not run {precision.name}: it supports weights in {legal}"
        )
    return target


def check_target(target: Target, checkpoint: Path, spec: ModelSpec) -> None:
    """Refuse what the target cannot run, or the installed onnx cannot write.

    Args:
        target: what the graphs are to be written for.
        checkpoint: the model's place, for messages.
        spec: the model.

    Raises:
        ExportError: the message says which other target can, or what to install.
    """
    from onnx.defs import onnx_opset_version

    misfit = target.misfit(spec)
    if misfit:
        raise ExportError(f"{checkpoint}: target {target.name} cannot run this model: {misfit}")
    opset = target.opsets[""]
    newest = onnx_opset_version()
    if newest < opset:
        raise ExportError(
            f"target {target.name} needs opset {opset}, but onnx {version('onnx')} knows {newest} "
            "opsets; pip install --upgrade 'pulse-edge[export]'"
        )


def target_for_prompts(target: Target, scales: CacheScales | None) -> Target:
    """The target of a second decoder, for prompts alone.

    Args:
        target: of the decoder for steps, on a CPU.
        scales: of an 8-bit cache; None for a float one, whose decoders are written alike.
    """
    if scales is None:
        return target
    module = import_module("pulse_export.targets.onnxruntime_prompts")
    prompts: Target = module.prompt_target(target, scales)
    return prompts
