"""What to export for a device: the one line that `pulse-edge fit` recommends."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.measure.devices import Device
from pulse_edge.measure.profiles import Geometry, KernelProfile
from pulse_edge.measure.roofline import Prediction, predict, predictions

ANSWER_TOKENS = 256  # that the context has room for after a page, at least
STEP = 64  # contexts are multiples of it, as people write them
WEIGHED_TOKENS = 128  # of the answer whose time decides
TARGETS = {"cpu": "cpu", "gpu": "cuda"}  # of ONNX Runtime's bundles, by the kind of device
CHECKPOINT = "PULSE-7B"  # as the README calls the folder


@dataclass(frozen=True)
class Advice:
    """What to export.

    Attributes:
        prediction: of the bundle, at `context`.
        context: longest prompt and answer, in tokens.
        int8_tower: whether the vision tower has to be stored in 8 bits to fit.
        export: the command that writes the bundle.
        build: what to run on the device afterwards; None if nothing is built.
    """

    prediction: Prediction
    context: int
    int8_tower: bool
    export: str
    build: str | None


def advise(
    geometry: Geometry,
    device: Device,
    profiles: tuple[KernelProfile, ...],
    context: int | None = None,
) -> Advice | None:
    """The bundle that answers soonest among those that fit, for the engine that is usual there.

    The whole context of the model is taken if it fits, else as much as a page and a short answer
    need, because the memory is an estimate that wants room.

    Args:
        geometry: the model's sizes.
        device: what it is to run on.
        profiles: rows of the roofline's table.
        context: that the user asks for; None leaves it to this.

    Returns:
        None if a page fits in no precision.
    """
    least = min(geometry.text.context, -(-(geometry.tokens + ANSWER_TOKENS) // STEP) * STEP)
    for tokens in (context,) if context else (geometry.text.context, least):
        fitting = [
            p
            for p in predictions(geometry, device, profiles, tokens)
            if (p.fits or p.needs_int8_tower) and p.engine == device.engine
        ]
        if fitting and tokens >= geometry.tokens:
            best = min(fitting, key=_weighed_seconds)
            return _advice(best, device, tokens)
    return None


def smallest(geometry: Geometry, device: Device, profiles: tuple[KernelProfile, ...]) -> Prediction:
    """What takes the least memory for a page and a token of answer, to say why nothing fits."""
    tokens = min(geometry.text.context, geometry.tokens + 1)
    able = [p for p in profiles if p.kind == device.kind]
    return min((predict(geometry, device, p, tokens) for p in able), key=lambda p: p.total)


def _weighed_seconds(prediction: Prediction) -> float:
    return prediction.ttft_cold + WEIGHED_TOKENS * prediction.step


def _advice(best: Prediction, device: Device, context: int) -> Advice:
    bundle = f"pulse-{best.precision}"
    target = "standard" if best.engine == "tensorrt" else TARGETS[device.kind]
    words = ["pulse-edge export", CHECKPOINT, bundle, f"--precision {best.precision}"]
    words += ["--block-size 128"] if best.precision == "int4" else []
    words += [f"--prefill {best.prompts}"] if best.prompts else []
    words += [f"--context {context}", f"--target {target}"]
    words += ["--cache int8"] if best.cache == "int8" else []
    words += ["--tower int8"] if best.needs_int8_tower else []
    build = f"pulse-edge build {bundle}" if target == "standard" else None
    return Advice(best, context, best.needs_int8_tower, " ".join(words), build)
