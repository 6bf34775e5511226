"""Predictions as `pulse-edge fit` prints them."""

from __future__ import annotations

import dataclasses
from typing import Any

from pulse_edge.measure.devices import DEVICES, GB, TERA, THIS, Device
from pulse_edge.measure.roofline import FORMULA, Geometry, Prediction
from pulse_edge.measure.tables import number, table

HEADER = (
    "precision, cache",
    "weights",
    "cache",
    "activations",
    "workspace",
    "all",
    "context that fits",
    "vision",
    "TTFT cold",
    "warm",
    "tokens/s",
)
# Where the shares of the peaks come from, by the kind of device.
SHARES = {
    "cpu": "measured on another CPU",
    "gpu": "assumed; worth on an H100: see docs/results.md",
}


def prediction_record(
    geometry: Geometry, device: Device, predictions: list[Prediction], context: int | None
) -> dict[str, Any]:
    """JSON-ready. Bytes and seconds."""
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
        "predictions": [dataclasses.asdict(p) | {"total": p.total} for p in predictions],
    }


def prediction_text(
    geometry: Geometry, device: Device, predictions: list[Prediction], context: int | None
) -> str:
    """For people: what is predicted for what, a table, and the formula."""
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
        *_notes(predictions),
        "",
        record["formula"],
    ]
    return "\n".join(lines)


def device_table() -> str:
    """The devices that something can be predicted for."""
    rows: list[tuple[str, ...]] = [
        ("name", "device", "memory", "read", "fp16, dense", "int8, dense")
    ]
    for d in DEVICES.values():
        rates = (f"{d.gemm[kind] / TERA:.4g} T/s" for kind in ("fp16", "int8"))
        memory = f"{d.memory / GB:.3g} GB"
        rows.append((d.name, d.title, memory, f"{d.read / GB:.4g} GB/s", *rates))
    rows.append((THIS, "this CPU, peaks measured", *4 * ("",)))
    return table(rows, left=(0, 1))


def _notes(predictions: list[Prediction]) -> list[str]:
    """What to export otherwise, below the table."""
    small = [p for p in predictions if p.needs_int8_tower]
    if not small:
        return []
    return [
        "",
        "Counted with a vision tower in fp16, the default of --target cuda. "
        f"{', '.join(p.precision for p in small)}: fits with --tower int8, "
        f"which takes {number(small[0].tower_saving, 'bytes')} less.",
    ]


def _row(p: Prediction) -> tuple[str, ...]:
    parts = (p.weights, p.cache_bytes, p.activations, p.workspace, p.total)
    fits = "all" if p.fits else f"{p.max_context:,}" if p.max_context else "none: too large"
    if p.needs_int8_tower:
        fits += "; all with --tower int8"
    return (
        f"{p.precision}, {p.cache}",
        *(number(part, "bytes") for part in parts),
        fits,
        *(number(seconds, "s") for seconds in (p.vision, p.ttft_cold, p.ttft_warm)),
        number(1 / p.step, "tokens/s"),
    )
