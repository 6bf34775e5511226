"""Puts measured figures where people read them: score tables and confusions, and the learning
curves.

    pulse-edge eval bundle-fp32 bundle-int8 bundle-int4 --json > scores.json
    pulse-edge eval --task wording bundle-fp32 bundle-int8 bundle-int4 --json > wording.json
    python -m pulse_nano.card scores.json wording.json

Rewrites what lies between `<!-- NAME -->` and `<!-- /NAME -->` in docs/results.md and
pulse_nano/MODEL_CARD.md, and draws pulse_nano/curves.png from the training logs in pulse_nano/logs/
(needs matplotlib). Figures come from nowhere else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from pulse_edge.evaluate.registry import make_task

ROOT = Path(__file__).parent.parent
LOGS = Path(__file__).parent / "logs"


def confusion_table(names: list[str], counts: list[list[int]]) -> str:
    """Rows are what is true, columns what was said."""
    lines = [
        "| true \\ said | " + " | ".join(names) + " | anything else |",
        "| --- |" + " --- |" * (len(names) + 1),
    ]
    lines += [
        f"| {name} | " + " | ".join(map(str, row)) + " |"
        for name, row in zip(names, counts, strict=True)
    ]
    return "\n".join(lines)


def label_rows(counts: dict[str, dict[str, int]]) -> str:
    lines = [
        "| label | pages that show it | found | stated where absent |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {c['present']} | {c['found']} | {c['false']} |" for name, c in counts.items()
    ]
    return "\n".join(lines)


def confusions(report: dict[str, Any]) -> str:
    """All confusions of the first bundle."""
    name, counts = next(iter(report["confusion"].items()))
    parts = [f"Of `{name}`, {report['pages']} pages."]
    for task, classes in report["classes"].items():
        parts += [f"**{task}**", confusion_table(classes, counts[task])]
    parts += ["**conduction** (may occur together)", label_rows(counts["conduction"])]
    parts += ["**detection from a list**", label_rows(counts["detection"])]
    return "\n\n".join(parts)


def fill(path: Path, name: str, text: str) -> None:
    """Replace what lies between the markers `name` of a file."""
    old = path.read_text()
    new, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda m: f"{m[1]}{text}\n{m[2]}",
        old,
        flags=re.S,
    )
    if count != 1:
        raise click.ClickException(f"{path} has {count} places marked {name}, not one")
    path.write_text(new)


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Two trainings: the first, and the one that taught free words and pages of other programs. For
# each the log of stage A, and of stages that teach words, with their titles.
TRAININGS = (
    ("tower", (("language", "stage L: findings told"), ("joint", "stage B: from the page"))),
    ("tower-2", (("words-2", "stage W: free words"), ("joint-2", "stage B: with other programs"))),
)
LOSSES = ("events", "pr classes", "rhythm", "conduction", "st", "rate")
SCORES = (
    "rhythm recall",
    "ectopy recall",
    "st recall",
    "first-degree AV block AUC",
    "anterior ST elevation AUC",
    "rate within 5",
)
WORDS = {
    "text": "text loss, nats a token",
    "tokens right": "answer tokens right",
    "letters right": "letters of multiple choice right",
    "verdicts right": "yes and no right",
}


def draw_curves(out: Path) -> None:
    """A row of axes for each training: stage A's losses and held-out scores, and text loss and
    right tokens of the stages that teach words, over steps.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, 4, figsize=(20, 8.4))
    for axes, (tower, texts) in zip(rows, TRAININGS, strict=True):
        log = read_log(LOGS / f"{tower}.jsonl")
        draw_rows(axes[0], log, "loss", dict.fromkeys(LOSSES, ""))
        axes[0].set(title="stage A: training losses (weighted)", yscale="log")
        draw_rows(axes[1], log, "valid", dict.fromkeys(SCORES, ""))
        axes[1].set(title="stage A: auxiliary heads, held-out pages", ylim=(0, 1))
        for axis, (name, title) in zip(axes[2:], texts, strict=True):
            draw_rows(axis, read_log(LOGS / f"{name}.jsonl"), "loss", WORDS)
            axis.set(title=title, ylim=(0, 1.2))
    for axis in rows.flat:
        axis.set(xlabel="step")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def draw_rows(axis: Any, log: list[dict[str, Any]], kind: str, names: dict[str, str]) -> None:
    """A log's figures of a kind over steps; those that the log does not have are left out.

    Args:
        axis: to draw on.
        log: its rows.
        kind: "loss" or "valid".
        names: of the figures, and how the legend calls them; "" for the same.
    """
    for name, label in names.items():
        told = [(r["step"], r[kind][name]) for r in log if kind in r and name in r[kind]]
        if told:
            marker = "." if kind == "valid" else ""
            axis.plot(*zip(*told, strict=True), label=label or name, marker=marker)


@click.command()
@click.argument("scores", type=click.Path(path_type=Path, exists=True))
@click.argument("wording", type=click.Path(path_type=Path, exists=True), required=False)
def main(scores: Path, wording: Path | None) -> None:
    """Fill in the documents from SCORES, the output of `pulse-edge eval --json`, and WORDING, that
    of `pulse-edge eval --task wording --json`.
    """
    report = json.loads(scores.read_text())
    table = make_task("simulated", report["pages"], report["seed"]).table(report)
    if wording is not None:
        spoken = json.loads(wording.read_text())
        rows = make_task("wording", spoken["pages"], spoken["seed"]).table(spoken)
        fill(ROOT / "pulse_nano" / "MODEL_CARD.md", "wording", rows)
    fill(ROOT / "docs" / "results.md", "scores", table)
    fill(ROOT / "pulse_nano" / "MODEL_CARD.md", "scores", table)
    fill(ROOT / "pulse_nano" / "MODEL_CARD.md", "confusion", confusions(report))
    draw_curves(ROOT / "pulse_nano" / "curves.png")


if __name__ == "__main__":
    main()
