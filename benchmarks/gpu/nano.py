"""Item: pulse-nano, which is trained, on this GPU: its answers beside those of the CPU.

    python -m benchmarks.gpu.nano WORK

Random weights show speed. A trained model shows whether answers stay what they are: its heads have
32 numbers, which no other item has. A crash inside a library leaves its Python stack in the log.
"""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import click

import pulse_edge
from benchmarks.gpu.emit import emit
from pulse_edge.assets import EMBEDDED, REPORT_QUESTION, SAMPLE_PAGE
from pulse_edge.simulation.cases import heldout_case, heldout_indices
from pulse_export.pipeline import export

CHECKPOINT = Path(__file__).parents[2] / "pulse_nano" / "pulse-nano"
TOKENS = 48
PAGES = 12


def answers(bundle: Path, device: str, pages: int) -> list[tuple[int, ...]]:
    """Greedy tokens of the sample page's report, and of questions about held-out pages."""
    model = pulse_edge.load(bundle, device=device)
    found = [model.ask(SAMPLE_PAGE, REPORT_QUESTION, max_new_tokens=TOKENS).token_ids]
    for index in heldout_indices(pages):
        case = heldout_case(index)
        found += [
            model.ask(case.image, item.question, max_new_tokens=TOKENS).token_ids
            for item in case.items[:4]
        ]
    return found


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="The CPU beside itself, one page.")
def main(work: Path, dry_run: bool) -> None:
    """Compare answers; bundles are made in WORK."""
    faulthandler.enable(sys.stderr)
    device, target, pages = ("cpu", "cpu", 1) if dry_run else ("cuda", "cuda", PAGES)
    expected: list[tuple[int, ...]] | None = None
    for precision in ("int8",) if dry_run else ("fp16", "int4"):
        bundle = work / f"nano-{precision}-{target}"
        export(CHECKPOINT, bundle, precision=precision, target=target, force=True)
        expected = expected or answers(EMBEDDED, "cpu", pages)
        got = answers(bundle, device, pages)
        equal = sum(a == b for a, b in zip(got, expected, strict=True))
        emit(
            "pulse-nano",
            precision=precision,
            device=device,
            answers=len(got),
            as_the_embedded_on_the_cpu=equal,
        )


if __name__ == "__main__":
    main()
