"""`pulse-edge info`: what a bundle is."""

from __future__ import annotations

import json

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cli.options import default_bundle
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json
from pulse_edge.engines.faster import fastest_engine, measured_speeds
from pulse_edge.engines.registry import engine_module


@click.command("info")
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def info_command(bundle: str | None, as_json: bool) -> None:
    """Show what a BUNDLE is, after checking it."""
    with Status() as status:
        path = default_bundle() if bundle is None else bundle
        opened = open_bundle(path, progress=status)
    if as_json:
        manifest = json.loads(dumps(opened.manifest)) | {"notice": NOTICE}
        show_json(manifest, indent=2)
        return
    for name, value in describe_bundle(opened):
        show(f"{name:<12} {value}")
    if speeds := measured_speeds(opened) if opened.manifest.target == "cpu" else {}:
        told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in speeds.items())
        chosen = fastest_engine(speeds)
        show(f"{'engine':<12} --engine auto takes {chosen} here; a page and an answer: {told}")
    if opened.manifest.target == "cuda":
        problem = engine_module("native").why_not(opened)
        verdict = f"cannot decode it: {problem}" if problem else "can decode it"
        show(f"{'kernels':<12} --engine native {verdict}")
