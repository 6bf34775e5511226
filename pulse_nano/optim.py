"""The two optimizers: Muon for the hidden matrices, AdamW for the rest, under one learning rate.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) orthogonalises the momentum,
so that rare directions of the gradient count as much as common ones. torch.optim.Muon does it in
bfloat16, which on a CPU without bfloat16 instructions takes 20 times as long as float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(wide: Tensor) -> Tensor:
    """(k, m, n), m <= n -> about U V^T of each: five quintic Newton-Schulz steps with Muon's
    constants.
    """
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445
        )
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the size of AdamW's steps (Liu et al., arXiv
    2502.16982).
    """

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.02})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[
                tuple[int, ...], list[tuple[Tensor, Tensor]]
            ] = {}  # matrices of one shape go together
            for p in group["params"]:
                if p.grad is not None:
                    velocity = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(velocity, group["momentum"])
                    wide, turned = (p.T, update.T) if p.shape[0] > p.shape[1] else (p, update)
                    alike.setdefault(tuple(wide.shape), []).append((wide, turned))
            for shape, pairs in alike.items():
                updates = orthogonalise(torch.stack([update for _, update in pairs]))
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


HIDDEN = (
    "layers.",
    "kv.",
    "asks.",
    "outs.",
    "mlps.",
)  # modules whose matrices map activations to activations


def make_optimizers(
    parts: Iterable[tuple[nn.Module, float]], lr: float
) -> list[torch.optim.Optimizer]:
    """Muon and AdamW for modules with their share of the learning rate; the patch filters learn at
    a fifth of it.

    Muon takes the patch filters as well: 90 steps from one checkpoint on the same batches left
    every loss lower than AdamW did (events 1.860 against 1.875, ST 0.116 against 0.121, rhythm
    0.474 against 0.491).

    Of the parameters that AdamW takes, vectors do not decay.
    """
    adam: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    for module, share in parts:
        hidden, filters = [], []
        for name, p in module.named_parameters():
            if name == "patch_embedding.weight":
                filters.append(p)
            elif p.dim() == 2 and name.startswith(HIDDEN):
                hidden.append(p)
            else:
                adam.append({"params": [p], "weight_decay": 0.02 * (p.dim() > 1), "share": share})
        muon += [{"params": hidden, "share": share}, {"params": filters, "share": 0.2 * share}]
    return [
        torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98)),
        Muon([g for g in muon if g["params"]], lr),
    ]


def set_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
