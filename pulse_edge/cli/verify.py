"""`pulse-edge verify`: checks a bundle, alone or against its checkpoint."""

from __future__ import annotations

import dataclasses
import json

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.exporter import exporter
from pulse_edge.cli.options import options_from
from pulse_edge.cli.status import Status
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import PulseEdgeError
from pulse_edge.units import size


@click.command("verify")
@click.argument("bundle")
@click.option(
    "--against", metavar="CHECKPOINT", type=click.Path(), help="Compare with this checkpoint."
)
@click.option("--image", type=click.Path(), help="Page to compare on [default: a drawn test page].")
@click.option("--tokens", default=64, show_default=True, help="Greedy tokens to compare.")
@options_from(EngineOptions, "options", only=("engine", "threads"))
@click.option("--json", "as_json", is_flag=True)
def verify_command(
    bundle: str,
    against: str | None,
    image: str | None,
    tokens: int,
    options: EngineOptions,
    as_json: bool,
) -> None:
    """Check a BUNDLE's integrity, or compare it with its checkpoint, stage by stage."""
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
        status.clear()
        if against is None:
            files = len(opened.manifest.files)
            intact = {"bundle": opened.digest, "files": files, "intact": True}
            seal = f"{files} files, {size(opened.size)}, seal {opened.digest[:16]}…"
            click.echo(json.dumps(intact) if as_json else f"{opened.path}: intact ({seal})")
            return
        report = exporter("verify").compare(
            opened, against, image, tokens, options.threads, status, options.engine
        )
    click.echo(json.dumps(dataclasses.asdict(report), indent=2) if as_json else str(report))
    if not report.passed:
        raise PulseEdgeError(f"{bundle} does not agree with {against}: {report.verdict}")
