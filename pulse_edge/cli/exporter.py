"""The way to the export stage, which is an extra.

A runtime-only install has no `pulse_export` or lacks what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show
from pulse_edge.errors import ExportError
from pulse_edge.units import size


def exporter(name: str) -> Any:
    """The module `pulse_export.NAME`.

    Raises:
        ExportError: it, or a package that it needs, is not installed.
    """
    try:
        return import_module(f"pulse_export.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(("pulse_edge", "pulse_export.")):
            raise  # a mistake of ours, which no pip install mends
        message = f"{error.name} is not installed; pip install 'pulse-edge[export]'"
        raise ExportError(message) from None


def check_plan_device(name: str) -> None:
    """Raises `click.UsageError` for a device that plans cannot be built for."""
    plans = exporter("plan.builder")
    try:
        plans.check_device(name)
    except ExportError as error:
        raise click.UsageError(str(error)) from None


def print_build(
    bundle: Bundle, builder: Any, prefill_rows: int | None = None, to_stderr: bool = False
) -> None:
    """Build plans; print the memory that it takes before, and what it made afterwards.

    Args:
        bundle: exported for TensorRT.
        builder: a `pulse_export.plan.builder.Builder`.
        prefill_rows: tokens of a prompt at a time; None: what suits the device.
        to_stderr: print everything there.
    """
    plans = exporter("plan.builder")
    rows = plans.rows_of(bundle, builder, prefill_rows)
    memory = size(plans.expected_memory(bundle, builder, rows))
    show(
        f"building for {builder.key}, prompts by {rows:,} tokens; peak memory about {memory}",
        err=True,
    )
    with Status() as status:
        built = plans.build_plans(bundle, builder, prefill_rows=rows, progress=status)
    for name, bytes_ in built.files.items():
        show(f"  {name:<18} {size(bytes_):>10}", err=to_stderr)
    show(f"{built.path}: plans for {built.key} in {built.seconds:.1f} s", err=to_stderr)


def print_build_if_possible(bundle: Bundle, device: str | None, to_stderr: bool) -> None:
    """Build plans for a device, or for this machine's GPU.

    If this machine cannot, say what to run on which machine.
    """
    plans = exporter("plan.builder")
    try:
        builder = plans.choose_builder(bundle, device)
    except plans.CannotBuildHere as error:
        show(f"no plans yet: {error}", err=True)
    else:
        print_build(bundle, builder, to_stderr=to_stderr)
