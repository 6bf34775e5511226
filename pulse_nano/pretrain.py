"""Stage A: the vision tower alone, with dense event maps and attribute heads.

    python -m pulse_nano.pretrain STATE_DIR

STATE_DIR (outside of the repository) holds pages/, valid/, tower.pt and tower.jsonl; a second call
continues where the first stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from pulse_nano.loop import Loop, Loss, launch, prepare, restart_option  # isort: skip (before torch)

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pulse_edge.simulation.ecg import CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES
from pulse_nano.checkpoint import load_start
from pulse_nano.cpu import autocast
from pulse_nano.data import Batch, Pages, shard_path
from pulse_nano.model import SHEET, Heads, Seen, Size, Tower
from pulse_nano.optim import make_optimizers
from pulse_nano.targets import losses

VALID_BATCHES = 5  # of 20 pages: the other worker waits meanwhile
HARD = (
    "sinus arrhythmia",
    "premature atrial contractions",
)  # what needs distances between beats compared


def auc(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks; NaN when a class is absent."""
    if truth.all() or not truth.any():
        return float("nan")
    rank = np.empty(len(score))
    rank[np.argsort(score)] = np.arange(1, len(score) + 1)
    positive = int(truth.sum())
    return float(
        (rank[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(score) - positive))
    )


@torch.no_grad()
def score_heads(seeing: nn.Module, pages: Pages, batches: int) -> dict[str, float]:
    """Held-out scores of the attribute heads: recalls, AUCs and errors, by name."""
    outs: dict[str, list[Tensor]] = {}
    truth: dict[str, list[Tensor]] = {}
    for number in range(batches):
        batch = pages.make(number)
        seen = seeing(batch.views)
        for name, value in seen.answers.items():
            outs.setdefault(name, []).append(value)
            truth.setdefault(name, []).append(batch.heads[name])
        outs.setdefault("glance", []).append(seen.glances["rhythm"][:, 0])
    got = {name: torch.cat(v).double().numpy() for name, v in outs.items()}
    want = {name: torch.cat(v).double().numpy() for name, v in truth.items()}
    want["glance"] = want["rhythm"]
    real = np.isfinite(want["rate"][:, 0])
    scores: dict[str, float] = {}
    for name, classes in (
        ("rhythm", RHYTHMS),
        ("glance", RHYTHMS),
        ("ectopy", ECTOPY),
        ("st", ST_CHANGES),
    ):
        best, right = got[name][real].argmax(1), want[name][real, 0].astype(int)
        recalls = {
            label: float((best[right == c] == c).mean())
            for c, label in enumerate(classes)
            if (right == c).any()
        }
        scores[f"{name} recall"] = float(np.mean(list(recalls.values())))
        if name in ("rhythm", "ectopy"):
            scores |= {
                f"{label} recall": value for label, value in recalls.items() if label in HARD
            }
    scores["axis accuracy"] = float((got["axis"][real].argmax(1) == want["axis"][real, 0]).mean())
    for index, label in enumerate(CONDUCTION):
        scores[f"{label} AUC"] = auc(
            got["conduction"][real, index], want["conduction"][real, index] > 0.5
        )
    st = got["st"][real] - np.log(np.exp(got["st"][real]).sum(1, keepdims=True))
    for index, label in list(enumerate(ST_CHANGES))[1:]:
        scores[f"{label} AUC"] = auc(st[:, index], want["st"][real, 0] == index)
    scores["lvh AUC"] = auc(got["lvh"][real, 0], want["lvh"][real, 0] > 0.5)
    bpm, true = (75 * np.exp(0.35 * v[real, 0]) for v in (got["rate"], want["rate"]))
    scores["rate within 5"] = float((np.abs(bpm - true) <= 5).mean())
    scores["rate error"] = float(np.abs(bpm - true).mean())
    pr = np.isfinite(want["pr"][:, 0])
    scores["pr error ms"] = float(50 * np.abs(got["pr"][pr] - want["pr"][pr]).mean())
    if (~real).any():
        scores["readable AUC"] = auc(got["readable"][:, 0], real)
    return scores


class Seeing(nn.Module):
    """What stage A trains."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tower, self.heads = Tower(size), Heads(size)

    def forward(self, views: Tensor) -> Seen:
        """Views (pages, VIEWS, 3, 336, 336) -> what `Heads` gives."""
        with autocast():
            features = self.tower(views.flatten(0, 1)).float()
        seen: Seen = self.heads(features.reshape(views.shape[0], -1, features.shape[-1]))
        return seen


@click.command()
@click.argument("state", type=click.Path(path_type=Path))
@click.option(
    "--steps", default=7600, show_default=True, help="Of the whole stage, over all calls."
)
@restart_option()
@click.option("--minutes", type=float, help="Stop this call then; the next one goes on.")
@click.option("--shards", default=300, show_default=True, help="Shards of 200 pages to train on.")
@click.option("--batch", default=12, show_default=True, help="Pages a step, of all workers.")
@click.option("--peak", default=3e-3, show_default=True, help="Learning rate.")
@click.option("--seed", default=20261123)
@click.option(
    "--begin", is_flag=True, help="Begin with start.safetensors, not with random weights."
)
@click.option("--photos", default=0.0, show_default=True, help="Share of distorted pages.")
@click.option("--workers", default=2, show_default=True, help="Processes of one thread.")
def main(workers: int, **settings: Any) -> None:
    """Train the tower in STATE, resuming what is there."""
    launch(workers, train, settings)


def train(rank: int, workers: int, settings: dict[str, Any]) -> None:
    state, seed, batch = settings["state"], settings["seed"], settings["batch"] // workers
    prepare(seed)
    size = Size()
    seeing = Seeing(size)
    if settings["begin"]:
        start = load_start(state, size)
        seeing.load_state_dict({k: v for k, v in start.items() if k in seeing.state_dict()})
    optimizers = make_optimizers([(seeing.tower, 1.0), (seeing.heads, 1.0)], settings["peak"])
    header = {"tower": size.of_tower, "sheet": list(SHEET), "workers": workers}
    loop = Loop(
        "tower",
        state,
        seeing,
        optimizers,
        header,
        settings["steps"],
        settings["peak"],
        settings["minutes"],
        rank,
        workers,
        settings["restarts"],
    )
    loop.resume()
    valid = Pages(state / "valid", 2, 20, size.patch, 5, photos=settings["photos"])

    def loss(data: Batch) -> Loss:
        terms = losses(seeing(data.views), data.dense, data.heads)
        return torch.stack(list(terms.values())).sum(), terms

    def validate() -> None:
        if shard_path(state / "valid", 1).exists():
            loop.note(
                {
                    "valid": {
                        k: round(v, 4) for k, v in score_heads(seeing, valid, VALID_BATCHES).items()
                    }
                }
            )

    pages = Pages(
        state / "pages",
        settings["shards"],
        batch,
        size.patch,
        seed,
        photos=settings["photos"],
    )
    loop.run(pages, loss, validate)


if __name__ == "__main__":
    main()
