"""Stage A: the vision tower alone, with dense event maps and attribute heads.

    python -m pulse_nano.pretrain STATE_DIR --steps 6000

STATE_DIR (outside of the repository) holds pages/, valid/, tower.pt and tower.jsonl; a second call continues where the
first stopped. The learning rate follows the share of the steps that are done: seed and steps fix the result, however
often and for whatever time it is interrupted.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from .cpu import keep_memory  # isort: skip (before torch)

import torch
from numpy.typing import NDArray
from torch import Tensor

from .data import Pages, shard_path, stream
from .model import SHEET, Heads, Size, Tower
from .optim import make_optimizers, set_rate
from .simulate import CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES
from .targets import losses


def auc(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks; NaN when a class is absent."""
    if truth.all() or not truth.any():
        return float("nan")
    rank = np.empty(len(score))
    rank[np.argsort(score)] = np.arange(1, len(score) + 1)
    positive = int(truth.sum())
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(score) - positive)))


@torch.no_grad()
def score_heads(tower: Any, heads: Any, pages: Pages, batches: int) -> dict[str, float]:
    """Held-out scores of the attribute heads: recalls, AUCs and errors, by name."""
    outs: dict[str, list[Tensor]] = {}
    truth: dict[str, list[Tensor]] = {}
    for number in range(batches):
        batch = pages.make(number)
        n = batch.views.shape[0]
        features = tower(batch.views[:, -4:].reshape(-1, *batch.views.shape[2:])).reshape(
            n, -1, tower.size.vision_width
        )
        _, answers = heads(features)
        for name, value in answers.items():
            outs.setdefault(name, []).append(value)
            truth.setdefault(name, []).append(batch.heads[name])
    got = {name: torch.cat(v).double().numpy() for name, v in outs.items()}
    want = {name: torch.cat(v).double().numpy() for name, v in truth.items()}
    real = np.isfinite(want["rate"][:, 0])
    scores: dict[str, float] = {}
    for name, classes in (("rhythm", RHYTHMS), ("ectopy", ECTOPY), ("st", ST_CHANGES)):
        best, right = got[name][real].argmax(1), want[name][real, 0].astype(int)
        recalls = [float((best[right == c] == c).mean()) for c in range(len(classes)) if (right == c).any()]
        scores[f"{name} recall"] = float(np.mean(recalls))
    scores["axis accuracy"] = float((got["axis"][real].argmax(1) == want["axis"][real, 0]).mean())
    for index, label in enumerate(CONDUCTION):
        scores[f"{label} AUC"] = auc(got["conduction"][real, index], want["conduction"][real, index] > 0.5)
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


def rate_at(progress: float, peak: float, step: int) -> float:
    """Cosine from `peak` to 2 %, after 150 steps of warm-up."""
    return peak * min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


@click.command()
@click.argument("state", type=click.Path(path_type=Path))
@click.option("--steps", default=6000, show_default=True, help="Of the whole stage, over all calls.")
@click.option("--minutes", type=float, help="Stop this call then; the next one goes on.")
@click.option("--shards", default=100, help="Shards of 200 pages to train on.")
@click.option("--batch", default=16)
@click.option("--patch", default=42)
@click.option("--peak", default=1.5e-3, help="Learning rate.")
@click.option("--seed", default=20261123)
@click.option("--compile/--no-compile", "compiled", default=True)
def main(
    state: Path,
    steps: int,
    minutes: float | None,
    shards: int,
    batch: int,
    patch: int,
    peak: float,
    seed: int,
    compiled: bool,
) -> None:
    """Train the tower in STATE, resuming what is there."""
    keep_memory()
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    size = Size(patch=patch)
    tower, heads = Tower(size), Heads(size)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizers = make_optimizers([(tower, 1.0), (heads, 1.0)], peak)
    saved, step, spent = state / "tower.pt", 0, 0.0
    if saved.exists():
        had = torch.load(saved, weights_only=True)
        if had.get("sheet") != list(SHEET):
            raise click.ClickException(f"{saved} is from a tower that saw other pixels; move it and tower.jsonl away")
        tower.load_state_dict(had["tower"])
        heads.load_state_dict(had["heads"])
        for optimizer, state_of in zip(optimizers, had["optimizers"], strict=True):
            optimizer.load_state_dict(state_of)
        step, spent = had["step"], had["spent"]
    run_tower: Any = torch.compile(tower) if compiled else tower
    pages = Pages(state / "pages", shards, batch, patch, seed, start=step)
    source = stream(pages)
    valid = Pages(state / "valid", 2, 20, patch, 5)
    begun = last_saved = last_valid = time.time()
    before, count = spent, 0
    sums: dict[str, float] = {}
    log = (state / "tower.jsonl").open("a")

    def note(row: dict[str, Any]) -> None:
        log.write(json.dumps({"step": step, "spent": round(spent, 1), **row}) + "\n")
        log.flush()

    def save() -> None:
        partial = saved.with_suffix(".tmp")
        torch.save(
            {
                "tower": tower.state_dict(),
                "heads": heads.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
                "spent": spent,
                "size": size.asdict(),
                "sheet": list(SHEET),
            },
            partial,
        )
        os.replace(partial, saved)

    def validate() -> None:
        if shard_path(state / "valid", 1).exists():
            note({"valid": {k: round(v, 4) for k, v in score_heads(tower, heads, valid, 20).items()}})

    while step < steps and (minutes is None or time.time() - begun < minutes * 60):
        data = next(source)
        rate = rate_at(step / steps, peak, step)
        set_rate(optimizers, rate)
        features = run_tower(data.views.flatten(0, 1)).reshape(batch, -1, size.vision_width)
        dense, attributes = heads(features)
        terms = losses(dense, attributes, data.dense, data.heads)
        for parameter in parameters:
            parameter.grad = None
        sum(terms.values()).backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step, spent = step + 1, before + time.time() - begun
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        count += 1
        if count == 25:
            note({"rate": rate, "loss": {k: round(v / count, 4) for k, v in sums.items()}})
            sums, count = {}, 0
        if time.time() - last_saved > 180:
            save()
            last_saved = time.time()
        if time.time() - last_valid > 360:
            validate()
            last_valid = time.time()
    save()
    validate()


if __name__ == "__main__":
    main()
