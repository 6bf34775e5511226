"""What a shell completes: bundles, devices and engines, besides click's commands and options.

eval "$(_PULSE_EDGE_COMPLETE=bash_source pulse-edge)"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.errors import PulseEdgeError

VARIABLE = "_PULSE_EDGE_COMPLETE"  # which a shell sets when it asks what could come next

Names = Callable[[], Iterable[str]]


if TYPE_CHECKING:
    TextType = click.ParamType[str]
else:  # generic from click 8.3 on
    TextType = click.ParamType


class NameType(TextType):
    """A text of which a shell completes the names.

    Args:
        names: gives them. It is called when a shell asks.
    """

    name = "text"

    def __init__(self, names: Names) -> None:
        self._names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


class BundleType(NameType):
    """A bundle's directory: bundles of a folder, or else folders, and names besides."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The bundles that begin so; the shell completes folders where there is none."""
        found = super().shell_complete(ctx, param, incomplete)
        found += [CompletionItem(path) for path in bundles_at(incomplete)]
        return found or [CompletionItem(incomplete, type="dir")]


def bundles_at(incomplete: str) -> list[str]:
    """Paths of bundles that begin with a text, as it is typed."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    try:
        bundles = [entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file()]
    except OSError:
        return []
    typed = incomplete[: incomplete.rfind("/") + 1]
    return sorted(typed + name for name in bundles if (typed + name).startswith(incomplete))


def complete_names(group: click.Group) -> None:
    """Let the commands of a group complete names. Only a shell that asks needs it."""
    for name, command in group.commands.items():
        try:
            parameters = command.params
        except PulseEdgeError:  # the export stage is not installed
            continue
        for parameter in parameters:
            kind = _type_of(name, parameter)
            if kind is not None:
                parameter.type = kind


def _type_of(command: str, parameter: click.Parameter) -> NameType | None:
    """The type of a parameter that completes names; None for every other one."""
    if parameter.name in ("bundle", "bundles"):
        return BundleType(tuple)
    if parameter.name == "engine":
        return NameType(_engines)
    if (command, parameter.name) == ("fit", "model"):
        return BundleType(lambda: ("pulse-7b",))
    if parameter.name == "device":
        return NameType(_DEVICES.get(command, _engine_devices))
    return None


def _engines() -> Iterable[str]:
    from pulse_edge.engines.table import engine_names

    return engine_names()


def _engine_devices() -> Iterable[str]:
    from pulse_edge.engines.table import DEVICES as devices

    return devices


def _plan_devices() -> Iterable[str]:
    from pulse_edge.measure.devices import PLAN_DEVICES

    return PLAN_DEVICES


def _predicted_devices() -> Iterable[str]:
    from pulse_edge.measure.devices import DEVICES as devices
    from pulse_edge.measure.devices import THIS

    return (THIS, *devices)


# Command -> its devices, if they are not an engine's.
_DEVICES: dict[str, Names] = {
    "build": _plan_devices,
    "export": _plan_devices,
    "fit": _predicted_devices,
}
