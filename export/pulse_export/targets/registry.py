"""The table of targets."""

from __future__ import annotations

from pulse_edge.errors import ExportError
from pulse_export.quantize.precision import Precision
from pulse_export.targets.target import Target


def get_target(name: str, precision: Precision) -> Target:
    """The target for one precision. Raises `ExportError` for a pair that is not supported."""
    from pulse_export.targets import onnxruntime as contrib  # each target's file names what it supports
    from pulse_export.targets import tensorrt as standard

    full = precision.decoder == "fp32"
    targets: dict[str, Target] = {
        "cpu": contrib.CPU,
        "cuda": contrib.CUDA,
        "standard": standard.FULL if full else standard.HALF,
    }
    if name not in targets:
        raise ExportError(f"target {name!r} is not one of {', '.join(targets)}")
    target = targets[name]
    storages = {precision.decoder, precision.head, precision.vision}
    if not storages <= target.storages:
        raise ExportError(
            f"target {name} does not run {precision.name}: it supports weights in {', '.join(sorted(target.storages))}"
        )
    return target
