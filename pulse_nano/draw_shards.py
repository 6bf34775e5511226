"""Draw the pages that stages A and B train on, as shards of 200.

    python -m pulse_nano.draw_shards STATE_DIR --workers 2

Writes STATE_DIR/pages/NNNN.shard (about 11 MB each) and two validation shards; existing ones are
kept. Training may start while this runs: it waits for the shards it needs.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from pulse_nano.shards import write_shard

SHARD_PAGES = 200
SETS = {"pages": 20261123, "valid": 5}  # folder -> seed; `evaluate.SEED` is a third one


@click.command()
@click.argument("state", type=click.Path(path_type=Path))
@click.option("--shards", default=300, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--varied", default=0.0, show_default=True, help="Share of pages of other programs.")
@click.option("--seed", default=SETS["pages"], show_default=True, help="Of the training pages.")
def main(state: Path, shards: int, workers: int, varied: float, seed: int) -> None:
    """Fill STATE/pages and STATE/valid."""
    with ProcessPoolExecutor(workers) as pool:
        jobs = []
        for name, count in (("valid", 2), ("pages", shards)):
            (state / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = state / name / f"{number:04d}.shard"
                if not path.exists():
                    of_set = seed if name == "pages" else SETS[name]
                    start = number * SHARD_PAGES
                    jobs.append(pool.submit(write_shard, path, of_set, start, SHARD_PAGES, varied))
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
