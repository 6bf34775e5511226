"""Writes the synthetic checkpoint and exports it, as compare.py would, but in parallel.

python -m benchmarks.gpu.prepare WORK

What is there already is kept. Each path is emitted as a product as soon as it is usable.
"""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import click

from benchmarks import compare, synthetic
from benchmarks.gpu import layout
from benchmarks.gpu.emit import emit
from benchmarks.gpu.items import CHECKPOINT, PRODUCT
from pulse_edge import system

SHARDS = 16  # files, each written by a thread
OTHERS = (("transformers", "fp16"), ("transformers", "fp16:compiled"), ("torch-int4", "int4"))
SERIAL_BELOW = 32e9  # bytes of memory: with less, one export after the other


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--dry-run", is_flag=True, help="A tiny model, for the CPU.")
def main(work: Path, dry_run: bool) -> None:
    """Make the models of an acceptance run in WORK."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sizes = layout.sizes(dry_run)
    start = time.perf_counter()
    path = compare.checkpoint_path(work, sizes)
    if not (path / "config.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        _check_disk(work, sizes)
        synthetic.write(path, sizes, shard=synthetic.size(sizes) // SHARDS)
    emit(PRODUCT, name=CHECKPOINT, path=str(path), seconds=round(time.perf_counter() - start, 2))
    entries = {name: compare.Entry("ours", v) for name, v in layout.variants(dry_run).items()}
    # These write next to nothing, but take seconds to import. Why one cannot, compare will say.
    others = [] if dry_run else [compare.Entry(*pair) for pair in OTHERS]
    memory = system.describe()["memory"] or 0
    serial = memory < SERIAL_BELOW and not dry_run
    start = time.perf_counter()
    with ThreadPoolExecutor(1 if serial else len(entries) + 1) as pool:

        def submit(entry: compare.Entry) -> Future[None]:
            return pool.submit(compare.prepare, entry, work, path, installed=True)

        exports = {submit(entry): name for name, entry in entries.items()}
        for other in others:
            submit(other)
        for future in as_completed(exports):
            future.result()
            name = exports[future]
            entry = entries[name]
            seconds = round(time.perf_counter() - start, 2)
            if entry.reason is None:
                what = {"path": str(entry.path), "variant": entry.variant, "seconds": seconds}
                emit(PRODUCT, name=name, **what)
    failures = [f"{e.name}: {e.reason}" for e in entries.values() if e.reason is not None]
    if failures:
        sys.exit("; ".join(failures))


def _check_disk(work: Path, sizes: synthetic.Sizes) -> None:
    """Two bytes a weight for the checkpoint and for fp16, half a byte and scales for int4."""
    needed = 2.35 * synthetic.size(sizes)
    free = shutil.disk_usage(work).free
    if free < needed:
        amounts = f"{needed / 1e9:.0f} GB are needed at {work}, {free / 1e9:.0f} GB are free"
        raise click.ClickException(f"{amounts}; name another folder with --work")


if __name__ == "__main__":
    main()
