"""`pulse-edge fit`: what a roofline predicts for a device."""

from __future__ import annotations

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.terminal import show_json, show_text
from pulse_edge.system import most_threads


@click.command("fit")
@click.option(
    "--model", default="pulse-7b", show_default=True, help="pulse-7b, or a bundle directory."
)
@click.option(
    "--device",
    default="this",
    show_default=True,
    help="this (the CPU here), or a name that --list shows.",
)
@click.option(
    "--context",
    type=click.IntRange(1),
    help="Longest prompt + answer, in tokens [default: the model's].",
)
@click.option(
    "--threads",
    type=click.IntRange(0, most_threads()),
    default=0,
    show_default=True,
    help="With --device this: of the peaks.",
)
@click.option("--list", "as_list", is_flag=True, help="List the devices.")
@click.option("--json", "as_json", is_flag=True, help="Print the predictions as JSON.")
def fit_command(
    model: str, device: str, context: int | None, threads: int, as_list: bool, as_json: bool
) -> None:
    """PREDICT what fits on a device, and the latency there. Nothing is run, so it needs no such
    device."""
    from pulse_edge.measure import devices, forecast, roofline

    if as_list:
        show_text(forecast.device_table())
        return
    geometry, profiles = roofline.PULSE_7B, roofline.PROFILES
    if model != geometry.name:
        bundle = open_bundle(model, check_hashes=False)
        geometry = roofline.geometry_of_bundle(bundle)
        profiles = (roofline.profile_of_bundle(bundle, geometry),)
    chosen = devices.device_named(device, threads)
    predictions = roofline.predictions(geometry, chosen, profiles, context)
    if as_json:
        report = forecast.prediction_record(geometry, chosen, predictions, context)
        show_json(report, indent=1)
    else:
        show_text(forecast.prediction_text(geometry, chosen, predictions, context))
