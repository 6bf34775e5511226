"""TensorRT's plans, built from a bundle and kept in its `plans/`.

Writer and reader. A plan runs on the compute capability it was built for, with the same version of
the library. Each such pair has a directory with an index, which seals the plans and names the
bundle they were built from. The manifest does not list plans, so a device can add its own to an
unchanged bundle. A plan is executable code: none is opened whose SHA-256 is not the index's, and
none whose index nobody has signed where a load trusts keys.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pulse_edge.bundle.bundle import Bundle, sha256_file
from pulse_edge.bundle.manifest import FileEntry
from pulse_edge.bundle.sealed_folder import PLANS, SealedFiles
from pulse_edge.bundle.sealed_json import dumps, load_sealed, sealed
from pulse_edge.errors import BundleError, EngineError

Library = Literal["tensorrt", "tensorrt_rtx"]

SCHEMA_VERSION = 1
INDEX = "plans.json"
VISION_PLAN, DECODER_PLAN = "vision.plan", "decoder.plan"
# TensorRT's Python modules, the preferred one first, and how each is installed.
LIBRARIES: dict[Library, str] = {
    "tensorrt": (
        "on a Jetson it comes with JetPack 7.2, elsewhere: pip install 'pulse-edge[tensorrt]'"
    ),
    "tensorrt_rtx": "pip install tensorrt-rtx",
}


@dataclass(frozen=True)
class PlanKey:
    """What a plan runs with: a library in exactly this version, on GPUs of one compute capability.

    Attributes:
        capability: times ten: 87 is 8.7.
    """

    library: Library
    version: str
    capability: int

    def __str__(self) -> str:
        return f"{self.library}-{self.version}-sm{self.capability}"


@dataclass(frozen=True)
class PlanIndex:
    """`plans.json`.

    Attributes:
        bundle: seal of the bundle's manifest, which covers every graph.
        prefill_rows: tokens of one call at most.
        logit_rows: tokens of one call with logits at most.
        views: views of one call at most.
        step_profile: the decoder's optimization profile for single tokens.
        several_profile: the one for up to `logit_rows` tokens. Profile 0 takes any number.
    """

    schema_version: int
    bundle: str
    key: PlanKey
    prefill_rows: int
    logit_rows: int
    views: int
    step_profile: int
    several_profile: int
    files: tuple[FileEntry, ...]
    seal: str = ""


def load_library(name: Library) -> Any:
    """TensorRT's Python module.

    `tensorrt` 10.15 brought IKVCacheUpdateLayer, the cache that is updated in place (its release
    notes).

    Raises:
        EngineError: the module is missing, or too old for the graphs.
    """
    try:
        library = importlib.import_module(name)
    except ImportError as error:
        raise EngineError(f"{name} is not installed ({error}); {LIBRARIES[name]}") from None
    if not hasattr(library, "IKVCacheUpdateLayer"):
        raise EngineError(
            f"{name} {library.__version__} has no KV cache that is updated in place; "
            "tensorrt 10.15 or newer has (on a Jetson: JetPack 7.2), and tensorrt-rtx 1.7"
        )
    return library


def error_log(library: Any, fresh: bool = True) -> Any:
    """A logger that keeps errors in `complaints` and warnings in `warnings`.

    TensorRT knows one logger a process, the first, so everybody shares it.

    Args:
        fresh: empty both lists first.
    """
    name = library.__name__
    if name not in _LOGS:

        class Log(library.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.complaints: list[str] = []
                # Bounded, because a service runs for months and warns all the time.
                self.warnings: deque[str] = deque(maxlen=1000)

            def log(self, severity: Any, message: str) -> None:
                if severity <= library.ILogger.ERROR:
                    self.complaints.append(message)
                    del self.complaints[:-100]
                elif severity == library.ILogger.WARNING:
                    self.warnings.append(message)

        _LOGS[name] = Log()
    if fresh:
        _LOGS[name].complaints.clear()
        _LOGS[name].warnings.clear()
    return _LOGS[name]


_LOGS: dict[str, Any] = {}


def plan_directory(bundle: Bundle, key: PlanKey) -> Path:
    return bundle.path / PLANS / str(key)


def available(bundle: Bundle) -> list[str]:
    """Keys (library, version and GPU) of the plans in the bundle, as text.

    Seals and hashes are not checked.
    """
    return sorted(p.parent.name for p in (bundle.path / PLANS).glob(f"[!.]*/{INDEX}"))


@dataclass(frozen=True)
class OpenedPlans:
    """Plans whose seals and hashes were checked, and the files that were checked."""

    index: PlanIndex
    files: SealedFiles


def open_plans(bundle: Bundle, key: PlanKey) -> OpenedPlans:
    """The plans for `key`, checked to the last byte.

    Raises:
        EngineError: there are none, or they are stale or damaged. It says how to build them.
        TrustError: this load runs only what a trusted key has signed, and none has signed them.
    """
    plans = open_plan_folder(bundle, str(key))
    if plans is None:
        others = f" (but for {', '.join(available(bundle))})" if available(bundle) else ""
        raise EngineError(
            f"{bundle.path} has no plans for {key}{others}; build them on this device: "
            f"pulse-edge build {bundle.path}"
        )
    return plans


def open_plan_folder(bundle: Bundle, name: str) -> OpenedPlans | None:
    """The plans in a folder of `plans/`, checked to the last byte; None if it has no index.

    Args:
        bundle: that they lie in.
        name: of the folder: the plans' key as text.

    Raises:
        EngineError: they are stale or damaged. It says how to build them.
        TrustError: this load runs only what a trusted key has signed, and none has signed them.
    """
    root = bundle.path / PLANS / name
    again = f"build them again: pulse-edge build {bundle.path}"
    files = SealedFiles(bundle, name, again)
    raw = files.index(INDEX)
    if raw is None:
        return None
    try:
        index = load_sealed(PlanIndex, raw, str(root / INDEX), SCHEMA_VERSION, again, again)
    except BundleError as error:
        raise EngineError(str(error)) from None
    if str(index.key) != name:
        raise EngineError(f"{root}: its plans were built for {index.key}; {again}")
    if index.bundle != bundle.digest:
        raise EngineError(
            f"{root}: its plans were built from another bundle ({index.bundle[:16]}…); {again}"
        )
    missing = {VISION_PLAN, DECODER_PLAN} - {f.path for f in index.files}
    if missing:
        raise EngineError(f"{root / INDEX}: lists no {min(missing)}; {again}")
    files.check(index.files, INDEX)
    return OpenedPlans(index, files)


def plan_size(index: PlanIndex, plan: str) -> int:
    """Bytes: nearly all of them weights."""
    return next(f.size for f in index.files if f.path == plan)


@contextmanager
def staged(bundle: Bundle, key: PlanKey) -> Iterator[Path]:
    """A directory to write plans into. It is removed afterwards unless `publish` has moved it."""
    parent = bundle.path / PLANS
    parent.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(
    bundle: Bundle,
    key: PlanKey,
    staging: Path,
    *,
    prefill_rows: int,
    logit_rows: int,
    views: int,
    step_profile: int,
    several_profile: int,
) -> PlanIndex:
    """Seal the staged plans and replace those for `key`. Writing the index, last, makes them
    loadable."""
    files = tuple(
        FileEntry(p.name, p.stat().st_size, sha256_file(p)) for p in sorted(staging.iterdir())
    )
    index = sealed(
        PlanIndex(
            SCHEMA_VERSION,
            bundle.digest,
            key,
            prefill_rows,
            logit_rows,
            views,
            step_profile,
            several_profile,
            files,
        )
    )
    root = plan_directory(bundle, key)
    if root.exists():
        (root / INDEX).unlink(missing_ok=True)
        shutil.rmtree(root)
    staging.rename(root)
    root.chmod(0o755)  # mkdtemp's is 0o700
    pending = root / f"{INDEX}.pending"
    pending.write_bytes(dumps(index))
    pending.rename(root / INDEX)
    return index
