"""Compiled kernels of a bundle, in its `plans/`. Writer and reader.

They run on GPUs of one compute capability. Each has a folder with an index, which seals the files.
The manifest does not list them, so a device can add its own to an unchanged bundle. They are
executable code: none is given out whose SHA-256 is not the index's, and none whose index nobody has
signed where a load trusts keys.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.bundle.bundle import Bundle, sha256_file
from pulse_edge.bundle.manifest import FileEntry
from pulse_edge.bundle.sealed_folder import PLANS, SealedFiles
from pulse_edge.bundle.sealed_json import dumps, load_sealed, sealed
from pulse_edge.errors import BundleError, EngineError

SCHEMA_VERSION = 2
CUBINS, SUFFIX = "cubins.json", ".cubin"


@dataclass(frozen=True)
class LaunchShape:
    """How a product is best spread over a GPU: `kernels.Tuning`, for one row or for several."""

    product: str
    several: bool
    warps: int
    stages: int
    tiles: int
    ctas: int
    resident: int
    slot: int


@dataclass(frozen=True)
class Shapes:
    """Launch shapes that were found on a GPU.

    Attributes:
        card: the GPU's name.
        found: where they are not the kernels' defaults.
    """

    card: str = ""
    found: tuple[LaunchShape, ...] = ()


NO_SHAPES = Shapes()


@dataclass(frozen=True)
class CubinIndex:
    """`cubins.json`.

    Attributes:
        bundle: seal of the bundle's manifest.
        capability: compute capability times ten: 87 is 8.7.
        compiler: its name and version.
        files: each is named by the digest of what it was compiled from.
        shapes: of the GPU that the kernels were tuned on, if they were.
    """

    schema_version: int
    bundle: str
    capability: int
    compiler: str
    files: tuple[FileEntry, ...]
    shapes: Shapes = NO_SHAPES
    seal: str = ""


def cubin_folder(bundle: Bundle, capability: int) -> Path:
    """Where a bundle's kernels for a compute capability lie."""
    return bundle.path / PLANS / f"native-sm{capability}"


def compiled_for(bundle: Bundle) -> list[str]:
    """Names of the folders of a bundle's kernels, unchecked."""
    return sorted(path.parent.name for path in (bundle.path / PLANS).glob(f"[!.]*/{CUBINS}"))


@dataclass(frozen=True)
class OpenedKernels:
    """Kernels whose index was checked, and their folder. Its files are checked as they are read."""

    index: CubinIndex
    files: SealedFiles


def read_cubins(bundle: Bundle, capability: int) -> dict[str, bytes]:
    """The bundle's kernels for a compute capability by digest; nothing if there are none.

    Raises:
        EngineError: they are damaged or altered.
        TrustError: this load runs only what a trusted key has signed, and none has signed them.
    """
    kernels = open_cubin_folder(bundle, cubin_folder(bundle, capability).name)
    if kernels is None:
        return {}
    contents = kernels.files.read(kernels.index.files, CUBINS)
    return {name.removesuffix(SUFFIX): content for name, content in contents.items()}


def read_shapes(bundle: Bundle, capability: int) -> Shapes:
    """The launch shapes that the bundle's kernels for a compute capability were tuned to.

    Raises:
        EngineError: the index is damaged or altered.
        TrustError: this load runs only what a trusted key has signed, and none has signed it.
    """
    kernels = open_cubin_folder(bundle, cubin_folder(bundle, capability).name)
    return kernels.index.shapes if kernels else NO_SHAPES


def open_cubin_folder(bundle: Bundle, name: str) -> OpenedKernels | None:
    """The kernels in a folder of `plans/`; None if it has no index.

    Args:
        bundle: that they lie in.
        name: of the folder.

    Raises:
        EngineError: the index is damaged or altered.
        TrustError: this load runs only what a trusted key has signed, and none has signed it.
    """
    root = bundle.path / PLANS / name
    again = f"build them again: pulse-edge build {bundle.path}"
    files = SealedFiles(bundle, name, again)
    raw = files.index(CUBINS)
    if raw is None:
        return None
    try:
        index = load_sealed(CubinIndex, raw, str(root / CUBINS), SCHEMA_VERSION, again, again)
    except BundleError as error:
        raise EngineError(str(error)) from None
    if cubin_folder(bundle, index.capability).name != name:
        raise EngineError(f"{root}: its kernels were compiled for {index.capability}; {again}")
    if index.bundle != bundle.digest:
        raise EngineError(
            f"{root}: its kernels were compiled for another bundle ({index.bundle[:16]}…); {again}"
        )
    return OpenedKernels(index, files)


def write_cubins(
    bundle: Bundle,
    capability: int,
    compiler: str,
    cubins: Mapping[str, bytes],
    shapes: Shapes = NO_SHAPES,
) -> Path:
    """Replace a bundle's kernels for a compute capability; returns their folder."""
    root = cubin_folder(bundle, capability)
    root.parent.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for digest, cubin in cubins.items():
            (staging / f"{digest}{SUFFIX}").write_bytes(cubin)
        files = tuple(
            FileEntry(path.name, path.stat().st_size, sha256_file(path))
            for path in sorted(staging.iterdir())
        )
        index = sealed(
            CubinIndex(SCHEMA_VERSION, bundle.digest, capability, compiler, files, shapes)
        )
        (staging / CUBINS).write_bytes(dumps(index))
        staging.chmod(0o755)  # mkdtemp's is 0o700
        if root.exists():
            (root / CUBINS).unlink(missing_ok=True)  # a half removed folder does not load
            shutil.rmtree(root)
        staging.rename(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return root
