"""Bundles whose manifest or files were changed.

A change that the seal does not cover is refused, whatever it is. A manifest that was changed and
sealed again is another bundle: it is refused in one line, or it runs, and its provenance says so.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulse_edge
from pulse_edge.bundle.manifest import MANIFEST, loads
from pulse_edge.errors import PulseEdgeError
from pulse_export.pipeline import export

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import SILENT, Counts, Finding, attempt
from fuzz.json_ import Place, change, find
from support import families, tiny
from support.manifests import reseal

QUESTION = "What is the rate?"
TINY: dict[str, Any] = {"layers": 1, "vision_layers": 2, "context": 256}
# How to make a checkpoint, and how to export it: the last has a tokenizer.json.
FORMS: tuple[tuple[Callable[..., Path], dict[str, Any]], ...] = (
    (tiny.make_checkpoint, {"precision": "fp32"}),
    (tiny.make_checkpoint, {"precision": "int4"}),
    (families.make_qwen, {"precision": "int4"}),
)
KINDS = ("manifest", "manifest", "sealed", "sealed", "sealed", "file", "entry")


class Bundles:
    """The campaign. Its bundles are changed in place and mended after each case."""

    def __init__(self, folder: Path) -> None:
        self._bundles = []
        for number, (make, options) in enumerate(FORMS):
            checkpoint = make(folder / f"checkpoint{number}", **TINY)
            path = folder / f"bundle{number}"
            export(checkpoint, path, **options)
            raw = (path / MANIFEST).read_bytes()
            answer = pulse_edge.load(path, threads=1).ask(None, QUESTION, max_new_tokens=3)
            self._bundles.append((path, raw, answer.token_ids))

    def case(self, number: int, rng: random.Random) -> Counts:
        path, raw, tokens = self._bundles[number % len(self._bundles)]
        kind = rng.choice(KINDS)
        try:
            match kind:
                case "manifest":
                    return _unsealed(path, DAMAGE[rng.choice(list(DAMAGE))](raw, rng), raw)
                case "sealed":
                    return _sealed(path, raw, tokens, rng)
                case "file":
                    return _file(path, rng)
            return _entry(path, rng)
        finally:
            (path / MANIFEST).write_bytes(raw)


def _unsealed(path: Path, changed: bytes, raw: bytes) -> Counts:
    """The manifest's bytes are damaged."""
    (path / MANIFEST).write_bytes(changed)
    found = attempt(lambda: pulse_edge.open_bundle(path))
    if not isinstance(found, PulseEdgeError) and changed != raw:
        raise Finding(SILENT, "a damaged manifest was accepted")
    return {"manifest refused": 1}


def _sealed(path: Path, raw: bytes, tokens: tuple[int, ...], rng: random.Random) -> Counts:
    """A value of the manifest is another, under a new seal."""
    data = json.loads(raw)
    changed, place = change(data, rng)
    try:
        (path / MANIFEST).write_bytes(reseal(changed))
    except (TypeError, ValueError):
        return {"sealed, not JSON": 1}
    manifest = attempt(lambda: loads((path / MANIFEST).read_bytes()))
    if isinstance(manifest, PulseEdgeError):
        return {"sealed refused": 1}
    model = attempt(lambda: pulse_edge.load(path, threads=1))
    if isinstance(model, PulseEdgeError):
        return {"sealed refused": 1}
    answer = attempt(lambda: model.ask(None, QUESTION, max_new_tokens=3))
    if isinstance(answer, PulseEdgeError):
        return {"sealed refused": 1}
    written = (path / MANIFEST).read_bytes()
    if answer.provenance["bundle"] == json.loads(raw)["seal"] and written != raw:
        raise Finding(SILENT, f"{_shown(changed, place)} is not in the provenance")
    same = "the same answer" if answer.token_ids == tokens else "another answer"
    return {f"sealed, {same}": 1}


def _file(path: Path, rng: random.Random) -> Counts:
    """The content of a listed file is damaged."""
    name = rng.choice(sorted(p.name for p in path.iterdir() if p.name != MANIFEST))
    before = (path / name).read_bytes()
    changed = DAMAGE[rng.choice(list(DAMAGE))](before, rng)
    (path / name).write_bytes(changed)
    try:
        found = attempt(lambda: pulse_edge.load(path, threads=1))
    finally:
        (path / name).write_bytes(before)
    if not isinstance(found, PulseEdgeError) and changed != before:
        raise Finding(SILENT, f"{name} was accepted with {len(changed)} of {len(before)} bytes")
    return {"file refused": 1}


def _entry(path: Path, rng: random.Random) -> Counts:
    """A copy of the bundle with an entry more, less, renamed or replaced by a link."""
    copy = Path(shutil.copytree(path, path.with_name("copy")))
    names = sorted(p.name for p in path.iterdir())
    name = rng.choice(names)
    changes: tuple[Callable[[], object], ...] = (
        lambda: (copy / f"{name}.data").write_bytes(b"0"),
        lambda: (copy / "more").mkdir(),
        lambda: (copy / "more").symlink_to(copy / name),
        lambda: (copy / name).unlink(),
        lambda: (copy / name).rename(copy / f"{name}2"),
        lambda: _link(copy / name, path / name),
        lambda: (copy / name).write_bytes((path / rng.choice(names)).read_bytes() + b"0"),
        lambda: _pipe(copy / name),
    )
    try:
        rng.choice(changes)()
        found = attempt(lambda: pulse_edge.load(copy, threads=1))
        listing = sorted(p.name for p in copy.iterdir())
    finally:
        shutil.rmtree(copy)
    if not isinstance(found, PulseEdgeError):
        raise Finding(SILENT, f"accepted with the entries {listing}")
    return {"entry refused": 1}


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _shown(data: Any, place: Place) -> str:
    try:
        return f"{'.'.join(map(str, place))} = {find(data, place)!r:.80}"
    except (KeyError, IndexError):
        return f"{'.'.join(map(str, place))} removed"
