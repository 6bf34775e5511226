"""`pulse-edge fit`: what a roofline predicts for a device."""

from __future__ import annotations

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.options import CoreCount
from pulse_edge.cli.terminal import show_json, show_text


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
    type=CoreCount(0),
    default=0,
    show_default=True,
    help="With --device this: of the peaks.",
)
@click.option(
    "--list", "as_list", is_flag=True, help="List the devices, and what to export for each."
)
@click.option("--json", "as_json", is_flag=True, help="Print the predictions as JSON.")
def fit_command(
    model: str, device: str, context: int | None, threads: int, as_list: bool, as_json: bool
) -> None:
    """PREDICT what fits on a device, the latency there, and what to export for it. Nothing is run,
    so it needs no such device."""
    from pulse_edge.measure import advice, devices, forecast, profiles, roofline

    geometry, known = profiles.PULSE_7B, profiles.with_int8_caches(profiles.PROFILES)
    if as_list:
        show_text(forecast.device_table(geometry, known))
        return
    exported = model != geometry.name
    if exported:
        bundle = open_bundle(model, check_hashes=False)
        geometry = profiles.geometry_of_bundle(bundle)
        known = (profiles.profile_of_bundle(bundle, geometry),)
    chosen = devices.device_named(device, threads)
    predictions = roofline.predictions(geometry, chosen, known, context)
    best = None if exported else advice.advise(geometry, chosen, known, context)
    if as_json:
        record = forecast.prediction_record(geometry, chosen, predictions, context, best)
        show_json(record, indent=1)
        return
    lines = (
        []
        if exported
        else forecast.advice_lines(chosen, best, advice.smallest(geometry, chosen, known))
    )
    show_text(forecast.prediction_text(geometry, chosen, predictions, context, lines))
