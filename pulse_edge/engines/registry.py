"""Opens the engine that fits a bundle and the options."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.faster import fastest_engine, measured_speeds
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.table import BUILT_IN, EngineRow, find_engine
from pulse_edge.errors import EngineError
from pulse_edge.log import LOGGER


def open_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """Open a bundle's networks with the engine that the options ask for.

    Raises:
        EngineError: no such engine runs the bundle on the device, or it cannot run here.
    """
    row, device = choose_engine(bundle, options)
    target = bundle.manifest.target
    if options.slots > 1 and (target, device) not in row.slotted:
        raise EngineError(
            f"{options.slots} slots, but engine {row.name} has one for bundles exported for "
            f"{target} on {device}; use --slots 1, or export the checkpoint with --target cpu"
        )
    LOGGER.info("engine %s on %s for a bundle for %s", row.name, device, target)
    named = options.engine if row.auto_on is not None else row.name
    resolved = replace(options, device=device, engine=named)
    engine: Engine = engine_module(row.name).open_engine(bundle, resolved)
    return engine


def engine_module(name: str) -> Any:
    """The module of an engine, for tools that measure something only this engine has.

    Raises:
        ParameterError: no engine has this name.
        EngineError: it cannot be imported.
    """
    row = find_engine(name)
    try:
        return import_module(row.module)
    except ImportError as error:  # our own modules import their libraries when they open
        raise EngineError(f"engine {row.name!r} cannot be loaded ({error})") from error


def choose_engine(bundle: Bundle, options: EngineOptions) -> tuple[EngineRow, str]:
    """What runs a bundle, and on which device. This is the only place that decides it.

    `auto` considers the built-in engines only; those of other packages are asked for by name.

    Raises:
        EngineError: nothing runs this bundle so.
    """
    rows = BUILT_IN if options.engine == "auto" else (find_engine(options.engine),)
    target = bundle.manifest.target
    runs = [(row, device) for row in rows for device in row.devices(target)]
    for row, device in runs:
        if options.device not in ("auto", device):
            continue
        if options.engine != "auto" or _by_default(row, bundle, options):
            return row, device
    devices = dict.fromkeys(device for _, device in runs)
    raise EngineError(_why_nothing_runs(bundle, options, list(devices)))


def _by_default(row: EngineRow, bundle: Bundle, options: EngineOptions) -> bool:
    """Whether `auto` takes an engine on this machine."""
    if row.measured:
        alone = options.slots == 1
        return alone and fastest_engine(measured_speeds(bundle)) == row.name
    return row.auto_on is None or (
        bool(row.auto_on) and cuda_driver.compute_capability() in row.auto_on
    )


def _why_nothing_runs(bundle: Bundle, options: EngineOptions, devices: list[str]) -> str:
    """`devices`: what the bundle would run on."""
    target = bundle.manifest.target
    exported = f"{bundle.path} was exported for {target}"
    if options.engine != "auto":
        if devices:
            return (
                f"{exported}, which engine {options.engine} does not run on {options.device}; "
                f"use --device {' or '.join(devices)}"
            )
        return f"{exported}, which engine {options.engine} does not run; use --engine auto"
    if devices:
        return (
            f"{exported} and does not run on {options.device}; "
            f"export it again with --target {options.device}, "
            f"or use --device {' or '.join(devices)}"
        )
    targets = sorted({target for row in BUILT_IN for target, _ in row.runs})
    remedy = f"export it again with --target {' or '.join(targets)}"
    return f"{exported}, which no engine runs in this version; {remedy}"
