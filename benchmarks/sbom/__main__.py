"""`python -m benchmarks.sbom OUT.json`: writes the documents."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmarks.sbom.document import bill_of_materials
from benchmarks.sbom.packages import installed_packages
from benchmarks.sbom.soup import soup_table
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.errors import PulseEdgeError


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bundle", "paths", multiple=True, help="A bundle to list; repeatable.")
@click.option("--licence", help="SPDX expression of the bundles' weights.")
@click.option("--extras", default="cpu", show_default=True, help="Of pulse-edge, by commas.")
@click.option("--soup", type=click.Path(path_type=Path), help="Write the table of SOUP there.")
def command(
    out: Path, paths: tuple[str, ...], licence: str | None, extras: str, soup: Path | None
) -> None:
    """Write the bill of materials of this installation to OUT, in CycloneDX 1.6."""
    try:
        packages = installed_packages(filter(None, extras.split(",")))
        bundles = [open_bundle(path) for path in paths]
        out.write_text(bill_of_materials(packages, bundles, licence), "utf-8")
        if soup is not None:
            soup.write_text(soup_table(packages, bundles, licence), "utf-8")
    except (PulseEdgeError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
    click.echo(f"{out}: {len(packages)} packages, {len(bundles)} bundles, CycloneDX 1.6")


if __name__ == "__main__":
    command()
