"""An option of the batching commands: whole numbers with commas between."""

from __future__ import annotations

import click


def numbers_option(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    """The numbers of an option such as `1,2,4`. Raises `BadParameter`."""
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value}: whole numbers with commas between, please") from None
    if min(numbers) < 1:
        raise click.BadParameter(f"{value}: numbers over 0, please")
    return numbers
