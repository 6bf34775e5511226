"""The tables of docs/precision.md: what each precision takes, gives and runs on.

    python -m benchmarks.precision_page           # writes it
    python -m benchmarks.precision_page --check   # exits with 1 if the page differs

Sizes come from PULSE-7B's shapes and the export's tables, devices from the targets, accuracy from
the last records of `benchmarks.accuracy` and `benchmarks.recipes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import accuracy, recipes, synthetic
from benchmarks.report.page import markdown
from benchmarks.report.records import read_kind
from pulse_edge.errors import ExportError
from pulse_export.options import ExportOptions
from pulse_export.quantize.precision import BLOCK_SIZES, PRECISIONS, STORAGES
from pulse_export.targets.registry import TARGETS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "precision.md"
RESULTS = Path(__file__).parent / "results"
DEVICES = {  # of a target
    "cpu": "CPUs",
    "cuda": "NVIDIA GPUs",
    "standard": "TensorRT, Jetson",
}
SCALE_BYTES = {"cpu": 4, "cuda": 2, "standard": 2}
SPEEDS = (
    (0.3, "fastest"),
    (0.6, "fast"),
    (1.1, "medium"),
    (9.0, "slow"),
)  # bytes a step over fp16's


@dataclass(frozen=True)
class Choice:
    """A line of the table.

    Attributes:
        options: of `pulse-edge export`.
        precision: the row's name.
        block: inputs that share a scale; 0 for the default.
        recipe: "" for none.
    """

    options: str
    precision: str
    block: int = 0
    recipe: str = ""


def choices() -> Iterator[Choice]:
    """Every precision, and int4 with each block size and recipe."""
    for name in PRECISIONS:
        if name != "int4":
            yield Choice(f"--precision {name}", name)
            continue
        for block in BLOCK_SIZES:
            for recipe in ("", *ExportOptions.choices("recipe")):
                extra = f" --recipe {recipe}" if recipe else ""
                yield Choice(
                    f"--precision int4 --block-size {block}{extra}", name, block, str(recipe)
                )


def stored_gigabytes(choice: Choice, target: str) -> tuple[float, float]:
    """PULSE-7B's bundle, and what a step reads of it: decoder and head."""
    resolved = ExportOptions(precision=choice.precision, target=target).resolve()
    row = resolved.precision
    total = step = 0.0
    for name, shape in synthetic.tensors(synthetic.Sizes()):
        part = _part(name)
        if len(shape) != 2 or part == "embeddings":
            width = 4.0 if row.full else 2.0
        else:
            block = (choice.block or resolved.block) if part != "vision" else resolved.block
            storage = getattr(row, part)
            blocked = storage in resolved.target.blocked
            width = _bytes_a_weight(storage, block if blocked else shape[1], target)
        size = math.prod(shape) * width / 1e9
        total += size
        step += size if part in ("decoder", "head") else 0
    return total, step


def _part(name: str) -> str:
    """A precision's part, as its fields are named."""
    if "vision_tower" in name or "mm_projector" in name or "newline" in name:
        return "vision"
    if "embed_tokens" in name:
        return "embeddings"
    return "head" if name.startswith("lm_head") else "decoder"


def _bytes_a_weight(storage: str, block: int, target: str) -> float:
    row = STORAGES[storage]
    return row.bits / 8 + (SCALE_BYTES[target] / block if row.quantized else 0)


def targets_of(choice: Choice) -> list[str]:
    """Targets that run the precision."""
    found: list[str] = []
    for target in TARGETS:
        try:
            ExportOptions(precision=choice.precision, target=target)
        except ExportError:
            continue
        found.append(target)
    return found


def rows(folder: Path = RESULTS) -> list[list[str]]:
    """A header and a line for each choice."""
    whole = _last(folder, accuracy.KIND)
    codes = _last(folder, recipes.KIND)
    lines = [
        [
            "options",
            "PULSE-7B",
            "a step reads",
            "steps",
            "KL, whole bundle",
            "KL, decoder",
            "devices",
        ]
    ]
    half = stored_gigabytes(Choice("", "fp16"), "cuda")[1]
    for choice in choices():
        targets = targets_of(choice)
        total, step = stored_gigabytes(choice, targets[0])
        lines.append(
            [
                f"`{choice.options}`",
                f"{total:.1f} GB",
                f"{step:.1f} GB",
                next(word for most, word in SPEEDS if step / half <= most),
                _kl(whole.get("logits", {}), _whole_name(choice)),
                _kl(codes.get("outcomes", {}), f"{choice.recipe or 'plain'}-{choice.block}"),
                ", ".join(DEVICES[target] for target in targets),
            ]
        )
    return lines


def _whole_name(choice: Choice) -> str:
    """The row of `benchmarks.accuracy`."""
    if choice.precision == "int4":
        if choice.recipe:
            return f"int4-{choice.block}-{choice.recipe}"
        return "int4" if choice.block == 32 else f"int4-{choice.block}"
    return choice.precision


def _kl(figures: dict[str, Any], name: str) -> str:
    return f"{figures[name]['kl_mean']:.1e}" if name in figures else "–"


def _last(folder: Path, kind: str) -> dict[str, Any]:
    """The newest record with figures."""
    records = [r for r in read_kind(folder, kind) if r.get("logits") or r.get("outcomes")]
    return records[-1] if records else {}


def filled(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of today's rows and records."""
    tables = {
        "precisions": rows(folder),
        "codes": _codes(folder, recipes.KIND),
        "language model": _codes(folder, recipes.MODEL_KIND),
    }
    for name, lines in tables.items():
        page = _put(page, name, markdown(lines))
    return page


def _codes(folder: Path, kind: str) -> list[list[str]]:
    """The newest comparison of codes."""
    record = _last(folder, kind)
    return recipes.table(record) if record else [["nothing was measured yet"]]


def _put(page: str, name: str, text: str) -> str:
    """The page with `text` at the one place with this name."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    parts = re.split(rf"(?<={start}).*?(?={end})", page, flags=re.S)
    if len(parts) != 2:
        raise click.ClickException(f"{PAGE.name} has no one place marked {start.strip()}")
    return f"{parts[0]}{text}\n{parts[1]}"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the page differs.")
def main(check: bool) -> None:
    """Write the table of docs/precision.md."""
    old = PAGE.read_text("utf-8")
    new = filled(old)
    if check and new != old:
        raise click.ClickException(f"{PAGE} is outdated: run python -m benchmarks.precision_page")
    if not check:
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
