"""`pulse-edge build`: TensorRT's plans or compiled kernels of a bundle, or its fastest engine."""

from __future__ import annotations

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.exporter import check_plan_device, exporter, print_build
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show
from pulse_edge.engines.faster import fastest_engine, remember_speeds, rival_engines
from pulse_edge.engines.registry import engine_module
from pulse_edge.errors import ExportError
from pulse_edge.units import size

INSTALL = "pip install 'pulse-edge[openvino]'"


@click.command("build")
@click.argument("bundle")
@click.option(
    "--device",
    metavar="NAME",
    help="Build for this device, for kernels one such as sm90 [default: the GPU in this machine].",
)
@click.option(
    "--prefill-rows",
    type=click.IntRange(1),
    help="Tokens of a prompt at a time; fewer need less memory "
    "[default: 2048 on a device with 16 GB or more, else 512].",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Kernels: first find the launch shapes that are fastest on the GPU in this machine. "
    "Bundles for CPUs: find the engine that is fastest here, for --engine auto.",
)
def build_command(bundle: str, device: str | None, prefill_rows: int | None, tune: bool) -> None:
    """Build what a GPU runs of a BUNDLE, on the device or ahead of time for it.

    For a BUNDLE exported with --target tensorrt these are TensorRT's plans. For one with --target
    cuda they are the kernels of --engine native, which need neither a GPU nor TensorRT. A BUNDLE
    for CPUs needs nothing built; --tune measures which engine is fastest here.
    """
    target = open_bundle(bundle, check_hashes=False).manifest.target
    if target == "cpu":
        if not tune:
            raise ExportError(
                f"{bundle} was exported for a CPU and runs as it is; there is nothing to build"
            )
        if device is not None or prefill_rows is not None:
            raise click.UsageError("--tune of a bundle for CPUs measures this machine alone")
        print_fastest(bundle)
        return
    if target == "cuda":
        if prefill_rows is not None:
            raise click.UsageError("--prefill-rows is for TensorRT's plans")
        print_kernels(bundle, device, tune)
        return
    if tune:
        raise click.UsageError("--tune is for the kernels of a bundle for --target cuda")
    plans = exporter("plan.builder")
    if device is not None:
        check_plan_device(device)
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
    print_build(opened, plans.choose_builder(opened, device), prefill_rows)


def print_kernels(bundle: str, device: str | None, tune: bool) -> None:
    """Compile a bundle's kernels, and print what was made."""
    from pulse_edge.measure.devices import kernel_architecture

    architecture = None if device is None else kernel_architecture(device)
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
        built = engine_module("native").build_kernels(opened, architecture, status, tune)
    for rows, (before, after) in built.tuned.milliseconds.items():
        show(f"  a step of {rows} rows: {before:.3f} ms, tuned {after:.3f} ms")
    show(f"  {built.count} kernels {size(built.size):>10}  by {built.compiler}")
    show(f"{built.folder}: kernels for {built.architecture}")


def print_fastest(bundle: str) -> None:
    """Measure a bundle's engines on this CPU, remember it for `--engine auto`, and print it."""
    from pulse_edge.measure.rivals import measure_rivals

    with Status() as status:
        opened = open_bundle(bundle, progress=status)
    speeds = measure_rivals(opened, told=lambda why: show(f"  {why}"))
    remember_speeds(opened, speeds)
    for name, seconds in speeds.items():
        show(f"  {name:<12} {seconds:8.1f} s for a page and an answer")
    if len(rival_engines()) < 2:
        show(f"  nothing to compare; for another engine: {INSTALL}")
    show(f"{bundle}: --engine auto takes {fastest_engine(speeds)} here")
