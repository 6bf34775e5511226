"""Predictions as `pulse-edge fit` prints them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pulse_edge.measure.advice import Advice, advise
from pulse_edge.measure.devices import DEVICES, GB, TERA, THIS, Device
from pulse_edge.measure.profiles import Geometry, KernelProfile
from pulse_edge.measure.roofline import FORMULA, Prediction
from pulse_edge.measure.tables import number, table

HEADER = (
    "precision, cache",
    "weights",
    "cache",
    "activations",
    "workspace",
    "all",
    "build's peak",
    "context that fits",
    "vision",
    "TTFT cold",
    "warm",
    "tokens/s",
)
LATENCIES = ("vision", "prefill", "ttft_cold", "ttft_warm", "step")
# Where the shares of the peaks come from, by the kind of device.
SHARES = {
    "cpu": "measured on another CPU",
    "gpu": "assumed; worth on an H100: see docs/results.md",
}


def prediction_record(
    geometry: Geometry,
    device: Device,
    predictions: list[Prediction],
    context: int | None,
    advice: Advice | None = None,
) -> dict[str, Any]:
    """JSON-ready. Bytes and seconds; no seconds of what does not fit."""
    return {
        "what": "PREDICTED by a roofline, not measured",
        "formula": FORMULA,
        "shares": SHARES[device.kind],
        "model": {
            "name": geometry.name,
            "prompt_tokens": geometry.tokens,
            "views": geometry.views,
        },
        "context": context or geometry.text.context,
        "device": dataclasses.asdict(device),
        "predictions": [_prediction(p) for p in predictions],
        "recommended": None if advice is None else _recommended(advice),
    }


def prediction_text(
    geometry: Geometry,
    device: Device,
    predictions: list[Prediction],
    context: int | None,
    advice: Sequence[str] = (),
) -> str:
    """For people: what is predicted for what, a table, and the formula.

    Args:
        geometry: the model's sizes.
        device: what it is to run on.
        predictions: a row each.
        context: positions of the cache; None: the model's own.
        advice: lines of `advice_lines`.
    """
    record = prediction_record(geometry, device, predictions, context)
    gemm = ", ".join(f"{kind} {rate / TERA:.3g} TFLOP/s" for kind, rate in device.gemm.items())
    lines = [
        f"{record['what']}. Shares of the peaks: {record['shares']}.",
        f"{geometry.name} on {device.title}: {device.memory / GB:.3g} GB, "
        f"{device.reserved / GB:.3g} of them taken for the system; "
        f"{device.read / GB:.4g} GB/s; {gemm}",
        f"context {record['context']}, prompt {geometry.tokens} tokens of which "
        f"{geometry.views} views make most",
        "",
        table([HEADER, *(_row(p) for p in predictions)]),
        *_notes(device, predictions),
        *advice,
        "",
        record["formula"],
    ]
    return "\n".join(lines)


def advice_lines(device: Device, advice: Advice | None, least: Prediction) -> list[str]:
    """What to export, or why nothing fits.

    Args:
        device: what it is to run on.
        advice: None if nothing fits.
        least: what takes the least memory.
    """
    if advice is None:
        room = device.memory - device.reserved
        return [
            "",
            f"Nothing is recommended: a page in {least.precision} takes "
            f"{number(least.total, 'bytes')}, and {number(room, 'bytes')} are free.",
        ]
    p = advice.prediction
    lines = ["", "Recommended:", f"  {advice.export}"]
    if advice.build:
        lines.append(f"  {advice.build}        # on the device")
        missing = (p.build_peak or 0) - (device.memory - device.reserved)
        if missing > 0:
            lines.append(
                f"  the build takes {number(p.build_peak or 0, 'bytes')} at its peak: "
                f"add {number(missing, 'bytes')} of swap"
            )
    return [
        *lines,
        f"  takes {number(p.total, 'bytes')}; first token after {number(p.ttft_cold, 's')}, then "
        f"{number(1 / p.step, 'tokens/s')}",
    ]


def device_table(geometry: Geometry, profiles: tuple[KernelProfile, ...]) -> str:
    """The devices of the table, and what to export for each of them."""
    rows: list[tuple[str, ...]] = [
        ("name", "device", "memory", "read", "fp16, dense", "int8, dense")
    ]
    for d in DEVICES.values():
        rates = (f"{d.gemm[kind] / TERA:.4g} T/s" for kind in ("fp16", "int8"))
        memory = f"{d.memory / GB:.3g} GB"
        rows.append((d.name, d.title, memory, f"{d.read / GB:.4g} GB/s", *rates))
    rows.append((THIS, "this CPU, peaks measured", *4 * ("",)))
    lines = [("name", "recommended")]
    for d in DEVICES.values():
        advice = advise(geometry, d, profiles)
        lines.append((d.name, advice.export if advice else "nothing fits"))
    return f"{table(rows, left=(0, 1))}\n\n{table(lines, left=(0, 1))}"


def _prediction(p: Prediction) -> dict[str, Any]:
    fields = dataclasses.asdict(p) | {"total": p.total}
    return fields if p.fits else fields | dict.fromkeys(LATENCIES)


def _recommended(advice: Advice) -> dict[str, Any]:
    p = advice.prediction
    return {
        "export": advice.export,
        "build": advice.build,
        "precision": p.precision,
        "prefill": p.prompts,
        "cache": p.cache,
        "context": advice.context,
        "int8_tower": advice.int8_tower,
        "total": p.total,
        "ttft_cold": p.ttft_cold,
        "step": p.step,
    }


def _notes(device: Device, predictions: list[Prediction]) -> list[str]:
    """What to export otherwise, below the table."""
    notes = []
    small = [p for p in predictions if p.needs_int8_tower]
    if small:
        notes.append(
            "Counted with a vision tower in fp16, the default of --target cuda. "
            f"{', '.join(p.precision for p in small)}: fits with --tower int8, "
            f"which takes {number(small[0].tower_saving, 'bytes')} less."
        )
    room = device.memory - device.reserved
    tight = [p for p in predictions if p.fits and (p.build_peak or 0) > room]
    if tight and device.engine == "tensorrt":
        needs = ", ".join(
            f"{p.precision} {number((p.build_peak or 0) - room, 'bytes')}" for p in tight
        )
        notes.append(f"To build the plans on the device it needs swap: {needs}.")
    if device.kind == "gpu":
        notes.append("--cache int8 is for CPUs: on a GPU the cache is fp16.")
    return ["", *notes] if notes else []


def _row(p: Prediction) -> tuple[str, ...]:
    parts = (p.weights, p.cache_bytes, p.activations, p.workspace, p.total)
    fits = "all" if p.fits else f"{p.max_context:,}" if p.max_context else "none: too large"
    if p.needs_int8_tower:
        fits += "; all with --tower int8"
    latencies = (p.vision, p.ttft_cold, p.ttft_warm)
    return (
        f"{p.name}, {p.cache}",
        *(number(part, "bytes") for part in parts),
        "-" if p.build_peak is None else number(p.build_peak, "bytes"),
        fits,
        *(number(seconds, "s") if p.fits else "-" for seconds in latencies),
        number(1 / p.step, "tokens/s") if p.fits else "-",
    )
