"""What devices have added to a bundle: plans and compiled kernels, checked to the last byte."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import CUBINS, compiled_for, open_cubin_folder
from pulse_edge.bundle.manifest import FileEntry
from pulse_edge.bundle.opened import AddedIndex
from pulse_edge.bundle.plans import INDEX, available, open_plan_folder
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.errors import BundleError, EngineError


@dataclass(frozen=True)
class Added:
    """A folder of `plans/`.

    Attributes:
        index: that was checked, and has the SHA-256 of each file.
        files: that the index lists.
    """

    index: AddedIndex
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """The folder, relative to the bundle."""
        return f"{PLANS}/{self.index.folder.path.name}"

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(file.size for file in self.files)


def added_to(bundle: Bundle) -> tuple[Added, ...]:
    """What an engine would find in a bundle's `plans/`.

    Raises:
        BundleError: some of it is stale, damaged or altered. `TrustError` if `check_trust` demands
            a signature of it, and there is none that holds.
    """
    folders = dict.fromkeys(available(bundle), _plans)
    folders |= dict.fromkeys(compiled_for(bundle), _kernels)
    try:
        return tuple(
            found for name, read in sorted(folders.items()) if (found := read(bundle, name))
        )
    except EngineError as error:
        raise BundleError(f"{error}, or remove the folder") from None


def _plans(bundle: Bundle, name: str) -> Added | None:
    plans = open_plan_folder(bundle, name)
    index = plans.files.added(INDEX) if plans else None
    return Added(index, plans.index.files) if plans and index else None


def _kernels(bundle: Bundle, name: str) -> Added | None:
    kernels = open_cubin_folder(bundle, name)
    index = kernels.files.added(CUBINS) if kernels else None
    if kernels is None or index is None:
        return None
    kernels.files.check(kernels.index.files, CUBINS)
    return Added(index, kernels.index.files)
