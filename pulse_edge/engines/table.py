"""The engines there are, and what each runs. A new one is a file here and a row.

A package can add an engine without changing this file. Its entry point in the group
`pulse_edge.engines` has the engine's name and points to an `EngineRow`. In its pyproject.toml:

    [project.entry-points."pulse_edge.engines"]
    mine = "my_package.engine:ROW"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulse_edge.errors import EngineError, ParameterError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "pulse_edge.engines"  # of entry points


@dataclass(frozen=True)
class EngineRow:
    """An engine.

    Attributes:
        name: as `EngineOptions.engine` has it.
        module: the module whose `open_engine(bundle, options)` returns an `Engine`. It is imported
            when the engine is opened. `options.device` is then one of the devices in `runs`.
        runs: the bundle targets and the devices it runs them on, (target, device), preferred first.
        auto_on: compute capabilities of GPUs that `auto` takes it on; None for everywhere. If the
            engine cannot run there, its module opens another one, and warns.
        slotted: those of `runs` in which it can have several slots (`EngineOptions.slots`).
        measured: `auto` takes it only where it was measured to be the fastest (`faster.py`).
    """

    name: str
    module: str
    runs: tuple[tuple[str, str], ...]
    auto_on: tuple[int, ...] | None = None
    slotted: tuple[tuple[str, str], ...] = ()
    measured: bool = False

    def devices(self, target: str) -> tuple[str, ...]:
        """What it runs bundles for `target` on, preferred first; nothing if it does not."""
        return tuple(device for runs, device in self.runs if runs == target)


# Compute capabilities that the native kernels were measured on, and found ahead of ONNX Runtime.
NATIVE_MEASURED: tuple[int, ...] = ()

# Preferred first: `auto` takes the first engine that runs a bundle. ONNX Runtime also runs bundles
# for TensorRT on a CPU: slowly, but with their numbers.
BUILT_IN = (
    EngineRow(
        name="tensorrt",
        module="pulse_edge.engines.tensorrt",
        runs=(("standard", "cuda"),),
    ),
    EngineRow(
        name="native",
        module="pulse_edge.engines.native.engine",
        runs=(("cuda", "cuda"),),
        auto_on=NATIVE_MEASURED,
    ),
    EngineRow(
        name="openvino",
        module="pulse_edge.engines.openvino",
        runs=(("cpu", "cpu"),),
        measured=True,
    ),
    EngineRow(
        name="onnxruntime",
        module="pulse_edge.engines.onnxruntime",
        runs=(("cpu", "cpu"), ("cuda", "cuda"), ("cuda", "cpu"), ("standard", "cpu")),
        slotted=(("cpu", "cpu"),),
    ),
)
ENGINES = ("auto", *sorted(row.name for row in BUILT_IN))  # without those of other packages
DEVICES = ("auto", "cpu", "cuda")


def engine_names() -> tuple[str, ...]:
    """Every legal value of `EngineOptions.engine`, those of installed packages included."""
    return (*ENGINES, *sorted(_entry_points()))


def check_engine(name: str) -> None:
    """Raises `ParameterError` if no engine has this name. Imports no engine."""
    # Reading the installed packages takes 50 ms, so only names that are not in the table do.
    if name not in ENGINES and name not in (names := engine_names()):
        raise ParameterError(f"engine {name!r} is not one of {', '.join(names)}")


def find_engine(name: str) -> EngineRow:
    """The row of an engine, built in or of an installed package.

    Raises:
        ParameterError: no engine has this name.
        EngineError: the package that adds it is broken.
    """
    for row in BUILT_IN:
        if row.name == name:
            return row
    check_engine(name)
    return _load_row(_entry_points()[name])


def list_engines() -> tuple[EngineRow, ...]:
    """Every engine, built in first. Raises `EngineError` if a package that adds one is broken."""
    return (*BUILT_IN, *(_load_row(found) for _, found in sorted(_entry_points().items())))


def _entry_points() -> dict[str, EntryPoint]:
    """By name. The table's own names cannot be replaced."""
    from importlib.metadata import entry_points

    return {e.name: e for e in entry_points(group=GROUP) if e.name not in ENGINES}


def _load_row(entry: EntryPoint) -> EngineRow:
    package = f" of {entry.dist.name}" if entry.dist else ""
    try:
        row = entry.load()
    except Exception as error:  # it is another package's code
        raise EngineError(
            f"engine {entry.name!r}{package} cannot be loaded ({type(error).__name__}: {error}); "
            "repair or uninstall that package"
        ) from error
    if not isinstance(row, EngineRow) or row.name != entry.name:
        raise EngineError(
            f"engine {entry.name!r}{package}: {entry.value} is not an EngineRow of that name; "
            "repair or uninstall that package"
        )
    return row
