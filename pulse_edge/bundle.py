"""The bundle: what `export/` writes and the runtime reads. This file is their only contract.

A bundle is a directory holding `manifest.json` and the files it lists. The manifest is frozen dataclasses,
written as canonical JSON: a file that differs from its own canonical form by a single byte, a field that is
unknown or missing, or a listed file whose size or SHA-256 differs, is refused. Nothing is pickled, nothing fetched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
VISION_GRAPH, DECODER_GRAPH = "vision.onnx", "decoder.onnx"
EMBEDDINGS, TOKENIZER = "embeddings.bin", "tokenizer.model"
WEIGHTS = (".data", ".bin")  # how files end that hold nothing but numbers
NOTICE = "Research use only: not a medical device, not for diagnosis or treatment."

# (stage, amount done since the last call, amount in all); what runs for seconds calls one, so that people can be shown
Progress = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class VisionSpec:
    """The CLIP vision tower. `feature_layers` is how many of the `layers` run: hidden state -2 of 24 needs 23."""

    image_size: int
    patch_size: int
    width: int
    heads: int
    layers: int
    feature_layers: int
    mlp: int
    activation: Literal["quick_gelu", "gelu"]
    eps: float

    @property
    def grid(self) -> int:
        """Patches along one edge of a view."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextSpec:
    """The Llama decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    ffn: int
    vocab: int
    eps: float
    rope_theta: float
    context: int
    bos: int
    eos: tuple[int, ...]


@dataclass(frozen=True)
class ImageSpec:
    """Preprocessing and merging. `grids` are (width, height) in pixels, in the checkpoint's order."""

    aspect: Literal["anyres", "pad", "square"]
    grids: tuple[tuple[int, int], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    merge: Literal["flat", "spatial_unpad"]


@dataclass(frozen=True)
class PromptSpec:
    """Conversation template (LLaVA's `SeparatorStyle.TWO`) and the tokenizer's two quirks.

    `legacy`: Hugging Face's slow Llama tokenizer with `legacy: true` puts a dummy space before every stretch of
    text that follows a special token; with `legacy: false` only before the first.
    """

    name: str
    system: str
    user: str
    assistant: str
    legacy: bool


@dataclass(frozen=True)
class ModelSpec:
    """Everything about the network that does not depend on precision or target."""

    vision: VisionSpec
    projector_depth: int  # Linear layers, with exact GELU between: 2 is mlp2x_gelu, 1 is linear
    text: TextSpec
    image: ImageSpec
    prompt: PromptSpec

    @property
    def most_views(self) -> int:
        """Views of any page at most: the base view, and the tiles of the largest grid where there are some."""
        side = self.vision.image_size
        tiles = ((w // side) * (h // side) for w, h in self.image.grids)
        return 1 + max(tiles, default=0) if self.image.aspect == "anyres" else 1


@dataclass(frozen=True)
class PrecisionInfo:
    """What the numbers are. Weight entries read `fp32`, `fp16`, `int8`, `int4`
    or `w8a8` (bytes, and so are what they are multiplied with); `io` is the graphs' float type."""

    name: str
    decoder: str
    head: str
    vision: str
    embeddings: Literal["fp32", "fp16"]
    kv_cache: Literal["fp32", "fp16", "int8"]
    io: Literal["fp32", "fp16"]
    activations: str
    block_size: int
    recipe: str


@dataclass(frozen=True)
class CheckpointInfo:
    """Identity of the source: `sha256` runs over every tensor's name, dtype, shape and bytes, in name order, and
    config.json and the tokenizer, so it does not depend on how the tensors are spread over shards."""

    name: str
    architecture: str
    dtype: str
    parameters: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    schema_version: int
    notice: str
    model: ModelSpec
    precision: PrecisionInfo
    target: Literal["cpu", "cuda", "standard"]
    checkpoint: CheckpointInfo
    tools: dict[str, str]
    files: tuple[FileEntry, ...]
    seal: str = ""  # SHA-256 of this manifest's canonical bytes with an empty seal; covers every file's hash

    def sealed(self) -> Manifest:
        return sealed(self)


def sealed(record: T) -> T:
    """A record with its `seal` filled in."""
    blank = dataclasses.replace(record, seal="")  # type: ignore[type-var]
    return dataclasses.replace(blank, seal=hashlib.sha256(dumps(blank)).hexdigest())  # type: ignore[type-var]


def _decode(kind: Any, value: Any, where: str) -> Any:
    """JSON value -> `kind`, strictly: no missing, unknown or mistyped field. Raises `BundleError` naming the place."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise BundleError(f"{where}: expected an object, found {value!r:.60}")
        hints = typing.get_type_hints(kind)
        for problem, names in (("unknown", value.keys() - hints.keys()), ("missing", hints.keys() - value.keys())):
            if names:
                raise BundleError(f"{where}: {problem} field {', '.join(map(repr, sorted(names)))}")
        return typing.cast(Any, kind)(**{n: _decode(h, value[n], f"{where}.{n}") for n, h in hints.items()})
    if origin is Literal:
        if value in args and type(value) is type(args[args.index(value)]):
            return value
        raise BundleError(f"{where}: {value!r:.60} is not one of {', '.join(map(str, args))}")
    if origin is tuple and isinstance(value, list):
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) == len(value):
            return tuple(_decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    elif origin is dict and isinstance(value, dict):
        return {k: _decode(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif type(value) is kind:  # exact: a bool is no int here
        return value
    name = getattr(kind, "__name__", kind) if not isinstance(kind, types.GenericAlias) else str(kind)
    raise BundleError(f"{where}: expected {name}, found {value!r:.60}")


def dumps(record: Any) -> bytes:
    """Canonical bytes of a manifest, or of another sealed record."""
    return (json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=True) + "\n").encode("ascii")


def loads(raw: bytes, where: str = MANIFEST) -> Manifest:
    """Parse and check a manifest. Raises `BundleError`."""
    outdated = "export the checkpoint again with this version, or install the version that wrote it"
    return load_sealed(Manifest, raw, where, SCHEMA_VERSION, outdated, "copy or export the bundle again")


def load_sealed(kind: type[T], raw: bytes, where: str, schema_version: int, outdated: str, remedy: str) -> T:
    """Parse and check a sealed record; the last two say what to do about another version's, and about a damaged one."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not valid JSON ({error}); it is damaged: {remedy}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != schema_version:
        raise BundleError(
            f"{where}: schema version {version!r:.60}, this pulse-edge reads {schema_version}; {outdated}"
        )
    record: T = _decode(kind, data, where)
    if dumps(record) != raw or sealed(record) != record:
        raise BundleError(f"{where}: was edited by hand or damaged; {remedy}")
    return record


def sha256_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The manifest's seal: names the whole bundle, down to the last byte."""
        return self.manifest.seal

    def file(self, name: str) -> Path:
        return self.path / name

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


def open_bundle(path: str | Path, check_hashes: bool = True, progress: Progress | None = None) -> Bundle:
    """Open a bundle and check it: manifest, presence, sizes and (unless told not to) SHA-256 of every file.

    progress: called from several threads with ("checking", bytes since the last call, bytes in all).
    Raises `BundleError` that names the file and says what to do.
    """
    with opening(path, check_hashes, progress) as bundle:
        return bundle


@contextmanager
def opening(path: str | Path, check_hashes: bool = True, progress: Progress | None = None) -> Iterator[Bundle]:
    """The same for something that takes as long as hashing the weights does: making an engine of them.

    What is parsed has been checked when the body starts. The weights are checked while it runs; leaving it raises
    `BundleError` if they were altered, even where the body has failed of it.
    """
    root = Path(path)
    manifest = loads(_read_manifest(root), str(root / MANIFEST))
    _check_files(root, manifest)
    left = threading.Event()
    total = sum(f.size for f in manifest.files)

    def step(done: int) -> None:
        if left.is_set():
            raise InterruptedError
        if progress:
            progress("checking", done, total)

    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib releases the GIL
        hashed = [(f, pool.submit(_altered, root, f, MANIFEST, step)) for f in manifest.files if check_hashes]
        try:
            _raise_first(problem for entry, problem in hashed if not entry.path.endswith(WEIGHTS))
            yield Bundle(root, manifest)
        except Exception:
            _raise_first(problem for _, problem in hashed)
            raise
        except BaseException:  # Ctrl-C
            left.set()
            raise
        _raise_first(problem for _, problem in hashed)


def _raise_first(problems: Iterable[Future[str | None]]) -> None:
    problem = next(filter(None, (p.result() for p in problems)), None)
    if problem:
        raise BundleError(f"{problem}; copy or export the bundle again") from None


def _read_manifest(root: Path) -> bytes:
    path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"no bundle at {root}: not a directory; make one with 'pulse-edge export CHECKPOINT {root}'")
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: cannot be read (not a regular file)")
        return path.read_bytes()
    except FileNotFoundError:
        hint = (
            "this looks like a checkpoint; run 'pulse-edge export' on it"
            if (root / "config.json").exists()
            else ("an export that was interrupted leaves this behind; export again with --force")
        )
        raise BundleError(f"{root}: no {MANIFEST}, so not a bundle ({hint})") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None


def check_file(root: Path, entry: FileEntry, index: str) -> str | None:
    """What is wrong with a file that `index` lists, if anything is."""
    return _misfit(root, entry, index) or _altered(root, entry, index)


def _check_files(root: Path, manifest: Manifest) -> None:
    """That they are there, in their sizes, and all that is needed is among them."""
    for entry in manifest.files:
        if problem := _misfit(root, entry, MANIFEST):
            raise BundleError(f"{problem}; copy or export the bundle again")
    listed = {f.path for f in manifest.files}
    for name in (VISION_GRAPH, DECODER_GRAPH, EMBEDDINGS, TOKENIZER):
        if name not in listed:
            raise BundleError(f"{root / MANIFEST}: lists no {name}; export the bundle again")


def _misfit(root: Path, entry: FileEntry, index: str) -> str | None:
    path = root / entry.path
    if Path(entry.path).name != entry.path or not entry.path.isprintable() or entry.path in ("", ".."):
        return f"{index} lists {entry.path!r}, which is not a plain file name"
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe or a device might never end
            return f"{path}: not a regular file"
        return None if size == entry.size else f"{path}: {size} bytes, {index} says {entry.size}"
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"


def _altered(root: Path, entry: FileEntry, index: str, step: Callable[[int], None] | None = None) -> str | None:
    path = root / entry.path
    try:
        if sha256_file(path, step) != entry.sha256:
            return f"{path}: altered (its SHA-256 is not the one in {index})"
    except InterruptedError:
        pass
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return None
