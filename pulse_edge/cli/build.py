"""`pulse-edge build`: TensorRT plans for a bundle."""

from __future__ import annotations

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.exporter import exporter, print_build
from pulse_edge.cli.status import Status


@click.command("build")
@click.argument("bundle")
@click.option(
    "--device", metavar="NAME", help="Build for this device [default: the GPU in this machine]."
)
@click.option(
    "--prefill-rows",
    type=click.IntRange(1),
    help="Tokens of a prompt at a time; fewer need less memory "
    "[default: 2048 on a device with 16 GB or more, else 512].",
)
def build_command(bundle: str, device: str | None, prefill_rows: int | None) -> None:
    """Build TensorRT plans for a BUNDLE exported with --target tensorrt, on the device or ahead of
    time for it."""
    plans = exporter("plan.builder")
    if device is not None:
        plans.check_device(device)
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
    print_build(opened, plans.choose_builder(opened, device), prefill_rows)
