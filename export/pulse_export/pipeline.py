"""Checkpoint directory -> bundle directory, in order.

The export writes and hashes all files in a hidden directory beside the output, with the manifest
under a temporary name. It renames the directory into place, and last of all the manifest. A bundle
without a manifest does not load, so a killed export leaves nothing that loads.
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
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from pulse_edge.bundle.bundle import Bundle, sha256_file, unsealed_bundle
from pulse_edge.bundle.description import tower_in_words
from pulse_edge.bundle.manifest import (
    DECODER_GRAPH,
    EMBEDDINGS,
    NOTICE,
    PREFILL_GRAPH,
    SCHEMA_VERSION,
    VISION_GRAPH,
    FileEntry,
    Manifest,
    PrecisionInfo,
    TowerInfo,
)
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.bundle.tensors import TENSORS, index_bytes
from pulse_edge.errors import CheckpointError, ExportError
from pulse_edge.system import peak_memory
from pulse_edge.units import size
from pulse_export.checkpoint import Checkpoint, Floats, Tensors
from pulse_export.graph import Graph
from pulse_export.network.decoder import write_decoder, write_prefill
from pulse_export.network.optimum.config import OPTIMUM
from pulse_export.network.vision import write_vision
from pulse_export.network.writer import NetworkWriter
from pulse_export.options import (
    ExportOptions,
    OptionValues,
    Resolved,
    calibrated_parts,
    options_from_keywords,
)
from pulse_export.quantize.cache import cache_scales
from pulse_export.quantize.calibrate import Calibration, calibrate
from pulse_export.quantize.precision import RECIPE_STORAGE, STORAGES, Precision
from pulse_export.quantize.prepare import PreparedCodes, prepare_codes
from pulse_export.quantize.rounding import ROWS
from pulse_export.quantize.search import BlockFormat
from pulse_export.quantize.smooth import Smoothed
from pulse_export.self_test import expected_token
from pulse_export.targets.registry import check_target, target_for_prompts
from pulse_export.targets.target import CacheScales, Target
from pulse_export.threads import WORKERS
from pulse_export.transaction import check_output, publish_bundle, staging_directory

if TYPE_CHECKING:
    from pulse_export.network.optimum.tower import OptimumTower

Advance = Callable[[int], None]  # is told the bytes of the checkpoint done since the last call


@dataclass(frozen=True)
class Summary:
    """What an export did. Sizes in bytes.

    Attributes:
        files: size of each file of the bundle but the manifest.
        peak_memory: the process's largest resident set so far.
        tower: who exported the vision tower, if Optimum did.
    """

    path: str
    precision: str
    target: str
    checkpoint_size: int
    files: dict[str, int]
    seconds: float
    peak_memory: int
    tower: TowerInfo | None = None

    @property
    def size(self) -> int:
        """Bytes of the bundle's files but the manifest."""
        return sum(self.files.values())

    def __str__(self) -> str:
        lines = [f"  {name:<18} {size(bytes_):>10}" for name, bytes_ in self.files.items()]
        if self.tower is not None:
            lines.append(f"  vision tower: {tower_in_words(self.tower)}")
        lines.append(
            f"{self.path}: {size(self.size)} from {size(self.checkpoint_size)} "
            f"({self.precision}, {self.target}) "
            f"in {self.seconds:.1f} s, peak memory {size(self.peak_memory)}"
        )
        return "\n".join(lines)


def export(
    checkpoint: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[int], Advance] | None = None,
    **values: Unpack[OptionValues],
) -> Summary:
    """Export a checkpoint directory to a bundle directory.

    Args:
        checkpoint: a LLaVA-style checkpoint directory.
        out: the bundle directory to make.
        options: how to export; None for the defaults.
        progress: called once with the total number of bytes. It returns a function, which is then
            called with the bytes of each step.
        **values: options by name, over those in `options`: `export(a, b, precision="int4")`.

    Returns:
        What was written.

    Raises:
        CheckpointError: the checkpoint cannot be exported.
        ExportError: an option is not legal, the output exists or its parent does not, or the disk
            is too full.
        TypeError: a keyword is no option.
    """
    start = time.perf_counter()
    options = options_from_keywords(options, values)
    resolved = options.resolve()
    source = Checkpoint(checkpoint, options.template, options.network, options.context)
    spec = shortened(source.spec, options.context or source.spec.text.context)
    check_target(resolved.target, source.path, spec)
    home = Path(os.path.abspath(out))
    check_output(home, options.force)
    _check_space(home.parent, source, resolved)
    recipe = resolved.recipe
    step = progress(_bytes_to_read(source, resolved)) if progress else lambda _: None
    with staging_directory(home) as staging:
        tower = _optimum_tower(source, resolved, step)
        record = None
        if recipe:
            hidden = tower.hidden if tower else None
            tensors = _reporting(source, step, np.float32)
            record = calibrate(source.path, spec, tensors, recipe, hidden)
        manifest = write_files(staging, source, spec, resolved, options.cache, record, step, tower)
        manifest = replace(manifest, files=_hashed(staging), turns=options.turns)
        token = expected_token(Bundle(staging, manifest)) if options.self_test else None
        manifest = replace(manifest, self_test=token).sealed()
        publish_bundle(staging, manifest, home, options.force)
    return Summary(
        path=str(out),
        precision=options.precision,
        target=options.target,
        checkpoint_size=source.size,
        files={f.path: f.size for f in manifest.files},
        seconds=time.perf_counter() - start,
        peak_memory=peak_memory(),
        tower=manifest.tower,
    )


def _optimum_tower(source: Checkpoint, resolved: Resolved, step: Advance) -> OptimumTower | None:
    """The tower's torch module; None for a tower of our own."""
    if resolved.network != OPTIMUM:
        return None
    from pulse_export.network.optimum.tower import OptimumTower

    return OptimumTower(source, _reporting(source, step, resolved.target.io))


def write_files(
    staging: Path,
    source: Checkpoint,
    spec: ModelSpec,
    resolved: Resolved,
    cache: str,
    record: Calibration | None,
    step: Advance,
    tower: OptimumTower | None = None,
) -> Manifest:
    """Write all of a bundle's files but the manifest, which is returned without their hashes."""
    row, target = resolved.precision, resolved.target
    tensors: Tensors = _reporting(source, step, target.io)
    parts = calibrated_parts(row, resolved.network)
    smoothed = Smoothed(tensors, source.spec, record, parts) if record else None
    prepared = _prepared(source, spec, tensors, resolved, tower)
    codes = prepared.codes if prepared else None
    read = codes or smoothed or tensors

    def writer(graph: Graph, smoothed: Smoothed | None) -> NetworkWriter:
        return NetworkWriter(graph, target, row, resolved.block, read, smoothed, codes)

    traced = tower.exported(staging) if tower else None
    if tower:
        tower.release()
    with closing(Graph(staging / VISION_GRAPH, target.opsets)) as vision:
        net = writer(vision, smoothed if "vision" in parts else None)
        write_vision(net, spec, traced.write if traced else None)
        vision.save()
    with closing(Graph(staging / DECODER_GRAPH, target.opsets, target.indexed)) as decoder:
        write_decoder(writer(decoder, smoothed), spec)
        decoder.save()
    if target.indexed:
        (staging / TENSORS).write_bytes(index_bytes(tuple(decoder.tensors)))
    embeddings = np.float32 if row.full else np.float16
    rows = _reporting(source, step, embeddings)
    write_embeddings(staging / EMBEDDINGS, source, rows, embeddings)
    shutil.copyfile(source.path / source.tokenizer, staging / source.tokenizer)
    manifest = _manifest(source, spec, resolved, record, prepared)
    if traced:
        manifest = replace(manifest, tower=traced.info, tools=manifest.tools | traced.versions)
    scales: CacheScales | None = None
    if cache == "int8":
        assert target.quantize_cache, "`ExportOptions` refuses this cache for other targets"
        scales = cache_scales(unsealed_bundle(staging, manifest), source)
        target.quantize_cache(decoder, scales)
        decoder.save()
        manifest = replace(manifest, precision=replace(manifest.precision, kv_cache="int8"))
    if resolved.prefill is None:
        return manifest
    prompts = target_for_prompts(target, scales)
    with closing(Graph(staging / PREFILL_GRAPH, target.opsets)) as graph:
        # The same tensors, or the two decoders would not agree about what the cache holds.
        write_prefill(NetworkWriter(graph, prompts, resolved.prefill, resolved.block, read), spec)
        graph.save()
    storage = resolved.prefill.decoder
    return replace(manifest, precision=replace(manifest.precision, prefill=storage))


def _bytes_to_read(source: Checkpoint, resolved: Resolved) -> int:
    """Bytes of the checkpoint that an export reads, each as often as it is read."""
    total = source.size * (1 + bool(resolved.recipe) + bool(resolved.prefill))
    rounding = resolved.rounding
    if rounding is not None and rounding.data is not None:
        decoder = sum(source.stored_size(n) for n in source.names if n.startswith("layers."))
        unread = sum(map(source.stored_size, ("norm.weight", "lm_head.weight")))
        total += source.size - decoder - unread + (rounding.passes - 1) * decoder
    return total


def _prepared(
    source: Checkpoint,
    spec: ModelSpec,
    tensors: Tensors,
    resolved: Resolved,
    tower: OptimumTower | None,
) -> PreparedCodes | None:
    """The recipe of the decoder's weights, ready for the graph; None rounds them to nearest."""
    target, block = resolved.target, resolved.block
    if resolved.rounding is None:
        return None

    def layouts(bits: int, columns: int) -> BlockFormat:
        storage = {4: "int4", 8: "int8"}[bits]
        length = block if storage in target.blocked else columns
        return BlockFormat(bits, length, target.signed_scales, target.io)

    hidden = tower.hidden if tower else None
    return prepare_codes(source.path, spec, tensors, resolved.rounding, layouts, hidden)


def _manifest(
    source: Checkpoint,
    spec: ModelSpec,
    resolved: Resolved,
    record: Calibration | None,
    prepared: PreparedCodes | None,
) -> Manifest:
    """The manifest of a bundle with a float cache, without hashes."""
    row, target = resolved.precision, resolved.target
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
            embeddings="fp32" if row.full else "fp16",
            kv_cache=io,
            io=io,
            activations=_activations(row, target, io),
            block_size=resolved.block,
            recipe=_recipe(row, target, record, prepared),
            rounding=prepared.info if prepared else None,
        ),
        target=target.name,  # type: ignore[arg-type]
        checkpoint=source.info(),
        tools={name: version(name) for name in ("pulse-edge", "onnx", "numpy", "safetensors")}
        | {"python": platform.python_version()},
        files=(),
    )


def shortened(spec: ModelSpec, context: int) -> ModelSpec:
    """The model with a shorter context, in tokens.

    Raises `ExportError` if `context` is below 1 or longer than the model's.
    """
    if not 1 <= context <= spec.text.context:
        raise ExportError(f"context {context} must be from 1 to the model's {spec.text.context}")
    return replace(spec, text=replace(spec.text, context=context))


def _hashed(staging: Path) -> tuple[FileEntry, ...]:
    files = sorted(staging.iterdir())
    with ThreadPoolExecutor(WORKERS) as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(sha256_file, files))
    return tuple(
        FileEntry(p.name, p.stat().st_size, d) for p, d in zip(files, digests, strict=True)
    )


def _activations(row: Precision, target: Target, io: str) -> str:
    """Type of the activations that the decoder's weights are multiplied with, for the manifest."""
    decoder = STORAGES[row.decoder]
    if decoder.rounds_inputs:
        return "int8, static, per tensor" if target.calibrated else "int8, dynamic, per token"
    return target.activations if decoder.quantized else io


def _recipe(
    row: Precision, target: Target, record: Calibration | None, prepared: PreparedCodes | None
) -> str:
    """How the weights were quantized, in words, and the data behind the activations' scales."""
    stored = sorted(name for name in row.storages if STORAGES[name].quantized)
    shared = [f"{s} per {'block' if s in target.blocked else 'output'}" for s in stored]
    own = [f"{RECIPE_STORAGE} by {ROWS[prepared.info.name].title}"] if prepared else []
    return ", ".join([row.recipe, *shared, *own, *([str(record)] if record else [])])


def _reporting(source: Checkpoint, step: Advance, dtype: type[np.generic]) -> Tensors:
    """`source.tensor` with checks, which tells `step` the bytes of each tensor.

    It raises `CheckpointError` for values that are not finite or too large for `dtype`.
    """
    largest = float(np.finfo(dtype).max)  # type: ignore[type-var]

    def read(name: str) -> Floats:
        tensor = source.tensor(name)
        furthest = max(tensor.max(), -tensor.min())  # NaN if there is one anywhere
        if not np.isfinite(furthest):
            raise CheckpointError(f"{source.path}: tensor {name} holds values that are not finite")
        if furthest > largest:
            raise CheckpointError(
                f"{source.path}: tensor {name} holds values over {largest:.0f}, "
                "too large for float16"
            )
        step(source.stored_size(name))
        return tensor

    return read


def write_embeddings(
    path: Path, source: Checkpoint, tensors: Callable[[str], Any], dtype: type[np.generic]
) -> None:
    """Write the embedding table [rows, hidden], row-major.

    There are as many rows as vocabulary entries, and one more for the newline of `spatial_unpad`.
    """
    with path.open("wb") as file:
        names = ["embed_tokens.weight"] + ["image_newline"] * (
            source.spec.image.merge == "spatial_unpad"
        )
        for name in names:
            rows = tensors(name).reshape(-1, source.spec.text.hidden)
            for at in range(0, len(rows), 4096):
                file.write(rows[at : at + 4096].astype(dtype).data)


def _check_space(parent: Path, source: Checkpoint, resolved: Resolved) -> None:
    row = resolved.precision
    parts = {"vision": row.vision, "projector": row.vision, "lm_head": row.head}

    def stored(name: str) -> float:
        storage = STORAGES[parts.get(name.split(".")[0], row.decoder)]
        return source.elements(name) * storage.bytes_per_weight

    needed = sum(map(stored, source.names)) + 2 * source.elements("embed_tokens.weight")
    if resolved.prefill:
        each = STORAGES[resolved.prefill.decoder].bytes_per_weight
        needed += each * sum(source.elements(n) for n in source.names if n.startswith("layers."))
    if resolved.network == OPTIMUM:  # its graph in fp32, beside ours for a while
        needed += 4 * sum(source.elements(n) for n in source.names if n.startswith("vision."))
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise ExportError(
            f"{parent}: the bundle needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        )
