"""Unpacks ECGBench once: questions in one file, pages as files with their bytes as they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.errors import ParameterError, PulseEdgeError
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.items import IMAGES, INDEX, ITEMS, BenchItem, UniqueIds
from pulse_edge.evaluate.ecgbench.layouts import FoundLayout, find_layout
from pulse_edge.guarded import reason
from pulse_edge.progress import Progress

INDEX_SCHEMA = "pulse-edge/ecgbench/1"
# Records of each configuration, by the data set's card and the paper; 11,247 in all.
PUBLISHED = dict(
    zip(CONFIGURATIONS, (2082, 500, 1400, 1317, 2061, 1611, 2026, 200, 50), strict=True)
)
_PART = ".part"  # ends the name of a file that is being written


@dataclass
class _Pages:
    """The pages that were written.

    Attributes:
        folder: they lie below it.
        hashes: by path.
        size: bytes of all pages.
    """

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def add(self, config: str, image: str, data: bytes) -> tuple[str, str]:
        """Write a page; returns its path and hash. Another page of the same path gets the
        configuration's folder in front of its own."""
        digest = hashlib.sha256(data).hexdigest()
        path = image
        number = 0
        while self.hashes.get(path, digest) != digest:
            number += 1
            path = f"{config}/{image}" if number == 1 else f"{config}-{number}/{image}"
        if path not in self.hashes:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            self.hashes[path] = digest
            self.size += len(data)
        return path, digest


def prepare_benchmark(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    configs: Sequence[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Unpack ECGBench into a BENCH.

    Args:
        data: a folder in one of the three layouts.
        out: the folder to make. If a run of this was interrupted there, it is written again.
        configs: to unpack; None: all that are there.
        images: where the pages of a JSON layout lie; None: beside the JSON.
        progress: told after each record.

    Returns:
        The index, as `index.json` has it.

    Raises:
        ParameterError: the data is in none of the layouts, a record is damaged, or `out` is in use.
        PulseEdgeError: a file cannot be written.
    """
    found = find_layout(Path(data), None if images is None else Path(images))
    chosen = _chosen(found, configs)
    folder = Path(out)
    _check_out(folder)
    try:
        return _unpack(found, chosen, folder, progress)
    except OSError as error:
        raise PulseEdgeError(f"{folder}: cannot be written ({reason(error)})") from None


def _chosen(found: FoundLayout, configs: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(found.files) if configs is None else tuple(configs)
    for config in chosen:
        if config not in found.files:
            raise ParameterError(
                f"configuration {config!r:.60} is not in the data, which has "
                + ", ".join(found.files)
            )
    return tuple(config for config in CONFIGURATIONS if config in chosen)


def _check_out(folder: Path) -> None:
    if (folder / INDEX).exists() or (folder / ITEMS).exists():
        raise ParameterError(f"{folder}: is a BENCH already; remove it or name another folder")
    ours = {IMAGES, ITEMS + _PART}
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - ours):
        raise ParameterError(f"{folder}: is in use; name a folder that is new or empty")


def _unpack(
    found: FoundLayout, configs: Sequence[str], folder: Path, progress: Progress | None
) -> dict[str, Any]:
    pages = _Pages(folder / IMAGES)
    pages.folder.mkdir(parents=True, exist_ok=True)
    part = folder / (ITEMS + _PART)
    counts = {}
    with part.open("wb") as file:
        for config in configs:
            counts[config] = _unpack_config(found, config, pages, file, progress)
        file.flush()
        os.fsync(file.fileno())
    index = {
        "schema": INDEX_SCHEMA,
        "notice": NOTICE,
        "layout": found.layout,
        "n": sum(count["n"] for count in counts.values()),
        "images": len(pages.hashes),
        "image_bytes": pages.size,
        "items_sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        "configs": counts,
    }
    part.replace(folder / ITEMS)
    _write_index(folder / INDEX, index)
    return index


def _write_index(path: Path, index: Mapping[str, Any]) -> None:
    part = path.with_name(path.name + _PART)
    part.write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    part.replace(path)


def _unpack_config(
    found: FoundLayout, config: str, pages: _Pages, file: BinaryIO, progress: Progress | None
) -> dict[str, Any]:
    """Write a configuration's lines and pages; returns its row of the index."""
    unique = UniqueIds()
    digest = hashlib.sha256()
    written = 0
    missing = 0
    further = 0
    for record, read in found.rows(config):
        data = read()
        path, sha256 = (record.image, "") if not data else pages.add(config, record.image, data)
        item = unique.add(BenchItem.of(config, record, path, sha256))
        if item is None:
            continue
        line = (json.dumps(item.to_dict()) + "\n").encode()
        file.write(line)
        digest.update(line)
        written += 1
        missing += not data
        further += bool(record.further)
        if progress:
            progress(f"unpacking {config}", 1, PUBLISHED[config])
    return {
        "n": written,
        "published": PUBLISHED[config],
        "sha256": digest.hexdigest(),
        "missing_images": missing,
        "duplicates": unique.dropped,
        "renamed": unique.renamed,
        "further_turns": further,
    }
