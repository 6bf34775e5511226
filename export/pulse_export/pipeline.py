"""Checkpoint directory -> bundle directory: the whole export, in order, and its atomic ending.

Everything is written into a hidden directory beside the output and hashed; that directory is renamed into place
while its manifest still has another name, and renaming the manifest is the last act. A bundle without a manifest
does not load, so an export that is killed at any moment leaves nothing that does.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pulse_edge.bundle.bundle import Bundle, sha256_file
from pulse_edge.bundle.manifest import (
    DECODER_GRAPH,
    EMBEDDINGS,
    NOTICE,
    SCHEMA_VERSION,
    TOKENIZER,
    VISION_GRAPH,
    FileEntry,
    Manifest,
    PrecisionInfo,
)
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import CheckpointError, ExportError
from pulse_edge.system import peak_memory
from pulse_edge.units import size
from pulse_export.checkpoint import Checkpoint, Floats, Tensors
from pulse_export.graph import Graph
from pulse_export.network.decoder import write_decoder
from pulse_export.network.vision import write_vision
from pulse_export.network.writer import Net
from pulse_export.quantize.cache import quantize_cache
from pulse_export.quantize.calibrate import Calibration, Recipe, calibrate
from pulse_export.quantize.precision import BITS, BLOCK_SIZES, PRECISIONS, Precision, Storage
from pulse_export.quantize.smooth import Smoothed
from pulse_export.targets.registry import get_target
from pulse_export.targets.target import Target
from pulse_export.threads import WORKERS
from pulse_export.transaction import _check_output, _publish, _staging

CACHES = ("float", "int8")
HEADS = ("int8", "int4")
TOWERS: tuple[Storage, ...] = ("int8", "fp16")

Progress = Callable[[int], None]  # bytes of the checkpoint handled since the last call


@dataclass(frozen=True)
class Summary:
    """What an export did. Sizes in bytes; `peak_memory` is the process's largest resident set so far."""

    path: str
    precision: str
    target: str
    checkpoint_size: int
    files: dict[str, int]
    seconds: float
    peak_memory: int

    @property
    def size(self) -> int:
        return sum(self.files.values())

    def __str__(self) -> str:
        lines = [f"  {name:<18} {size(bytes_):>10}" for name, bytes_ in self.files.items()]
        lines.append(
            f"{self.path}: {size(self.size)} from {size(self.checkpoint_size)} ({self.precision}, {self.target}) "
            f"in {self.seconds:.1f} s, peak memory {size(self.peak_memory)}"
        )
        return "\n".join(lines)


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    precision: str = "int8",
    target: str = "cpu",
    block_size: int | None = None,
    context: int | None = None,
    calibration: Recipe | None = None,
    cache: str = "float",
    head: str | None = None,
    tower: str | None = None,
    force: bool = False,
    progress: Callable[[int], Progress] | None = None,
) -> Summary:
    """Export a checkpoint directory to a bundle directory `out`.

    context: tokens that the cache holds at most; None is the model's own. TensorRT's cache is always of this length.
    calibration: how the scales of 8-bit activations are found, for precisions that have them; None: the default.
    cache: what the KV cache holds, `float` or `int8`: a quarter of the memory, for the CPU target.
    head: what the output matrix is stored as, int8 or int4; None is the precision's own.
    tower: what the vision tower and projector are stored as, int8 or fp16; None is the precision's
        own, but fp16 for int8 and int4 on CUDA.
    progress: called once with the total bytes, returns a function that is called with each step's bytes.
    Raises `CheckpointError` for a checkpoint that cannot be exported and `ExportError` for what else is in the way.
    """
    start = time.perf_counter()
    row = PRECISIONS.get(precision)
    if row is None:
        raise ExportError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if head is not None:
        if head not in HEADS or row.decoder not in BITS:
            raise ExportError(f"head {head!r} is not one of {', '.join(HEADS)}, or {precision} quantizes no weights")
        row = replace(row, head=head)  # type: ignore[arg-type]
    emitter = get_target(target, row)
    if cache not in CACHES or (cache == "int8" and target != "cpu"):
        raise ExportError(f"cache {cache!r} is not one of {', '.join(CACHES)}, of which int8 needs target cpu")
    row = _adapted(emitter, row, tower)
    blocked = not emitter.blocked.isdisjoint({row.decoder, row.head, row.vision})
    if block_size is not None and (block_size not in BLOCK_SIZES or not blocked):
        legal = f"one of {', '.join(map(str, BLOCK_SIZES))}" if blocked else f"left out for {precision} on {target}"
        raise ExportError(f"block size {block_size} must be {legal}")
    quantized = "w8a8" in (row.decoder, row.vision)
    if calibration and not quantized:
        raise ExportError(f"precision {precision} quantizes no activations, so it takes no calibration data")
    source = Checkpoint(checkpoint)
    spec = shortened(source.spec, context or source.spec.text.context)
    shown, out = str(out), Path(os.path.abspath(out))
    _check_output(out, force)
    _check_space(out.parent, source, row)
    recipe = calibration or (Recipe() if quantized and emitter.calibrated else None)
    step = progress(source.size * (2 if recipe else 1)) if progress else lambda _: None
    with _staging(out) as staging:
        block = block_size or (row.block_size if blocked else 0)
        record = None
        if recipe:
            record = calibrate(source.path, spec, _reporting(source, step, np.float32), recipe)
        manifest = _write(staging, source, spec, row, emitter, block, record, step)
        if cache == "int8":
            quantize_cache(Bundle(staging, manifest), source)
            manifest = replace(manifest, precision=replace(manifest.precision, kv_cache="int8"))
        manifest = replace(manifest, files=_hashed(staging)).sealed()
        _publish(staging, manifest, out, force)
    return Summary(
        path=shown,
        precision=precision,
        target=target,
        checkpoint_size=source.size,
        files={f.path: f.size for f in manifest.files},
        seconds=time.perf_counter() - start,
        peak_memory=peak_memory(),
    )


def _adapted(target: Target, row: Precision, tower: str | None) -> Precision:
    """The precision as the target runs it, with the tower asked for. Raises `ExportError`."""
    if tower is None:
        return target.adapted(row)
    legal = [storage for storage in TOWERS if storage in target.storages]
    chosen = next((storage for storage in legal if storage == tower), None)
    if chosen is None:
        known = f"{' or '.join(legal)}, or left out"
        raise ExportError(f"tower {tower!r} must be {known}, for {row.name} on target {target.name}")
    if chosen in BITS and row.vision not in BITS:  # nothing else is quantized
        own = PRECISIONS[chosen]
        row = replace(row, block_size=own.block_size, recipe=own.recipe)
    return target.adapted(row, chosen)


def shortened(spec: ModelSpec, context: int) -> ModelSpec:
    """The model with a context of so many tokens, of those it was trained with."""
    if not 1 <= context <= spec.text.context:
        raise ExportError(f"context {context} must be from 1 to the model's {spec.text.context}")
    return replace(spec, text=replace(spec.text, context=context))


def _write(
    staging: Path, source: Checkpoint, spec: ModelSpec, row: Precision, target: Target, block: int,
    record: Calibration | None, step: Progress,
) -> Manifest:  # fmt: skip
    """All of a bundle's files but the manifest, which is returned, without their hashes."""
    tensors: Tensors = _reporting(source, step, target.io)
    parts = [part for part in ("vision", "decoder") if getattr(row, part) == "w8a8"]
    smoothed = Smoothed(tensors, source.spec, record, parts) if record else None
    for file, write in ((VISION_GRAPH, write_vision), (DECODER_GRAPH, write_decoder)):
        with closing(Graph(staging / file, target.opsets)) as graph:
            write(Net(graph, target, row, block, smoothed or tensors, smoothed), spec)
            graph.save()
    embeddings = np.float32 if row.name == "fp32" else np.float16
    _write_embeddings(staging / EMBEDDINGS, source, _reporting(source, step, embeddings), embeddings)
    shutil.copyfile(source.path / TOKENIZER, staging / TOKENIZER)
    io: Literal["fp32", "fp16"] = "fp32" if target.io == np.float32 else "fp16"
    return Manifest(
        schema_version=SCHEMA_VERSION,
        notice=NOTICE,
        model=spec,
        precision=PrecisionInfo(
            name=row.name,
            decoder=row.decoder,
            head=row.head,
            vision=row.vision,
            embeddings="fp32" if embeddings is np.float32 else "fp16",
            kv_cache=io,
            io=io,
            activations=_activations(row, target, io),
            block_size=block,
            recipe=_recipe(row, target, record),
        ),
        target=target.name,  # type: ignore[arg-type]
        checkpoint=source.info(),
        tools={name: version(name) for name in ("pulse-edge", "onnx", "numpy", "safetensors")}
        | {"python": platform.python_version()},
        files=(),
    )


def _hashed(staging: Path) -> tuple[FileEntry, ...]:
    files = sorted(staging.iterdir())
    with ThreadPoolExecutor(WORKERS) as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(sha256_file, files))
    return tuple(FileEntry(p.name, p.stat().st_size, d) for p, d in zip(files, digests, strict=True))


def _activations(row: Precision, target: Target, io: str) -> str:
    """What the decoder's weights are multiplied with, in words."""
    if row.decoder == "w8a8":
        return "int8, static, per tensor" if target.calibrated else "int8, dynamic, per token"
    return target.activations if row.decoder in BITS else io


def _recipe(row: Precision, target: Target, record: Calibration | None) -> str:
    """The row's, what shares a scale, and what the activations' scales come from."""
    stored = sorted({row.decoder, row.head, row.vision} & BITS.keys())
    shared = [f"{s} per {'block' if s in target.blocked else 'output'}" for s in stored]
    return ", ".join([row.recipe, *shared, *([str(record)] if record else [])])


def _reporting(source: Checkpoint, step: Progress, dtype: type[np.generic]) -> Tensors:
    """`source.tensor`, counting, and refusing weights that are not numbers, or not in `dtype`."""
    largest = float(np.finfo(dtype).max)  # type: ignore[type-var]

    def read(name: str) -> Floats:
        tensor = source.tensor(name)
        if not np.isfinite(tensor.sum()) and not np.isfinite(tensor).all():
            raise CheckpointError(f"{source.path}: tensor {name} holds values that are not finite")
        if max(tensor.max(), -tensor.min()) > largest:
            raise CheckpointError(
                f"{source.path}: tensor {name} holds values over {largest:.0f}, too large for float16"
            )
        step(source.stored_size(name))
        return tensor

    return read


def _write_embeddings(path: Path, source: Checkpoint, tensors: Callable[[str], Any], dtype: type[np.generic]) -> None:
    """[vocab (+ 1: the newline feature of spatial_unpad), hidden], row-major."""
    with path.open("wb") as file:
        names = ["embed_tokens.weight"] + ["image_newline"] * (source.spec.image.merge == "spatial_unpad")
        for name in names:
            rows = tensors(name).reshape(-1, source.spec.text.hidden)
            for at in range(0, len(rows), 4096):
                file.write(rows[at : at + 4096].astype(dtype).data)


def _check_space(parent: Path, source: Checkpoint, row: Precision) -> None:
    # Bytes a weight, scales included (block 32).
    width = {"fp32": 4.0, "fp16": 2.0, "int8": 1.04, "int4": 0.63, "w8a8": 1.04}
    parts = {"vision": row.vision, "projector": row.vision, "lm_head": row.head}
    needed = sum(
        source.elements(name) * width[parts.get(name.split(".")[0], row.decoder)] for name in source.names
    ) + 2 * source.elements("embed_tokens.weight")
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ExportError(f"{parent}: the bundle needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
