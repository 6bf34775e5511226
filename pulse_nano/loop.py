"""The training loop of all stages: data-parallel processes of one thread each, resumable to the
bit.

On few cores that other work shares, two processes of one thread outrun one process of two: they
meet once a step, where threads of one process meet in every operator. Seed, steps and number of
workers fix the result, however often and for whatever time training is interrupted.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from pulse_nano.cpu import keep_memory  # isort: skip (before torch)

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from pulse_nano.data import Source, T, stream
from pulse_nano.optim import set_rate

LOG_STEPS, SAVE_SECONDS = 25, 180
Loss = tuple[Tensor, dict[str, Tensor]]
Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


def launch(workers: int, train: Callable[..., None], *args: Any) -> None:
    """`train(rank, workers, *args)` in as many processes; a single one runs here."""
    if workers == 1:
        train(0, 1, *args)
        return
    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_enter, (workers, f"file://{meeting}/ranks", train, args), nprocs=workers)


def _enter(
    rank: int, workers: int, meeting: str, train: Callable[..., None], args: tuple[Any, ...]
) -> None:
    if (
        sys.platform == "linux"
    ):  # die with the command: torch asks for SIGINT, which background jobs ignore
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", meeting, rank=rank, world_size=workers, timeout=timedelta(hours=6)
    )
    train(rank, workers, *args)
    dist.destroy_process_group()


def prepare(seed: int) -> None:
    keep_memory()
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)


def rate_at(step: int, steps: int, peak: float, restarts: tuple[int, ...] = ()) -> float:
    """Cosine from `peak` to 2 %, after 150 steps of warm-up, or an eighth of fewer than 1,200; from
    each step of `restarts` on again, from half of it.

    SGDR (Loshchilov & Hutter, arXiv 1608.03983): a finished run can be made longer. At the full
    rate a restart undoes what the decay had gained (conduction's loss 0.09 -> 0.31 in 200 steps).
    """
    begin = max(at for at in (0, *restarts) if at <= step)
    end = min(at for at in (*restarts, steps) if at > step)
    progress = (step - begin) / (end - begin)
    warm = min(1.0, (step - begin + 1) / max(1, min(150, (end - begin) // 8)))
    return (
        peak
        * (0.5 if begin else 1.0)
        * warm
        * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
    )


def restart_option() -> Callable[[Command], Command]:
    """`--restart`, as `rate_at` takes it."""
    text = "Step at which the learning rate's schedule begins again."
    return click.option("--restart", "restarts", type=int, multiple=True, help=text)


def digest(module: nn.Module) -> str:
    """Beginning of the SHA-256 over all parameters and buffers, bytes in the order
    of `state_dict`.
    """
    total = hashlib.sha256()
    for value in module.state_dict().values():
        total.update(value.contiguous().numpy().data)
    return total.hexdigest()[:16]


@dataclass
class Loop:
    """State of one stage in `folder`: NAME.pt and NAME.jsonl.

    `header` is stored in NAME.pt and must be equal to what is found there: what the weights mean.
    """

    name: str
    folder: Path
    module: nn.Module
    optimizers: list[torch.optim.Optimizer]
    header: dict[str, Any]
    steps: int
    peak: float
    minutes: float | None = None
    rank: int = 0
    workers: int = 1
    restarts: tuple[int, ...] = ()  # of the learning rate's schedule
    step: int = 0
    spent: float = 0.0  # seconds, over all calls
    kept: Callable[[], None] = lambda: None  # called by rank 0 after each save
    _sums: dict[str, float] = field(default_factory=dict)
    _lock: IO[str] | None = None  # held until this is gone: STATE has one writer

    @property
    def saved(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def resume(self) -> None:
        """Go on from NAME.pt, if there is one.

        Raises `ValueError` when it is of another model, or being trained.
        """
        if self.rank == 0:
            self._lock = (self.folder / f"{self.name}.lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"{self.saved} is being trained by another process") from None
        if not self.saved.exists():
            return
        had = torch.load(self.saved, weights_only=True)
        if had["header"] != self.header:
            raise ValueError(
                f"{self.saved} holds {had['header']}, not {self.header}; move it and its log away"
            )
        self.module.load_state_dict(had["module"])
        for optimizer, state in zip(self.optimizers, had["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.spent = had["step"], had["spent"]

    def note(self, row: dict[str, Any]) -> None:
        if self.rank == 0:
            with (self.folder / f"{self.name}.jsonl").open("a") as log:
                log.write(
                    json.dumps({"step": self.step, "spent": round(self.spent, 1), **row}) + "\n"
                )

    def save(self) -> None:
        if self.rank:
            return
        state = {
            "header": self.header,
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "spent": self.spent,
        }
        partial = self.saved.with_suffix(".tmp")
        torch.save(state, partial)
        os.replace(partial, self.saved)
        self.kept()

    def run(
        self, pages: Source[T], loss: Callable[[T], Loss], validate: Callable[[], None]
    ) -> None:
        """Steps until they are done or the minutes are over. `loss` gives what to minimise, and
        what to log.

        `pages` has one worker's share of a batch. `validate` is called ten times, by rank 0; the
        log then also tells the weights' digest, by which two trainings are seen to be the same.
        """
        pages.start, pages.stride = self.step * self.workers + self.rank, self.workers
        source, begun, before = stream(pages), time.time(), self.spent
        last_saved, count, over = begun, 0, False
        while self.step < self.steps and not over:
            total, shown = loss(next(source))
            set_rate(self.optimizers, rate_at(self.step, self.steps, self.peak, self.restarts))
            self.module.zero_grad(set_to_none=True)
            total.backward()
            over = self._meet(self.minutes is not None and time.time() - begun >= self.minutes * 60)
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step, self.spent, count = self.step + 1, before + time.time() - begun, count + 1
            for name, value in shown.items():
                self._sums[name] = self._sums.get(name, 0.0) + value.item()
            if count == LOG_STEPS:
                self.note(
                    {"loss": {name: round(value / count, 4) for name, value in self._sums.items()}}
                )
                self._sums, count = {}, 0
            if time.time() - last_saved > SAVE_SECONDS:
                self.save()
                last_saved = time.time()
            if self.rank == 0 and self.step % max(1, self.steps // 10) == 0:
                self.note({"weights": digest(self.module)})
                validate()
        self.save()

    def _meet(self, over: bool) -> bool:
        """Average the gradients over the workers; whether rank 0's time is over."""
        if self.workers == 1:
            return over
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        flat = torch.cat(
            [g.reshape(-1) for g in grads] + [torch.tensor([float(over and self.rank == 0)])]
        )
        dist.all_reduce(flat)
        at = 0
        for grad in grads:
            grad.copy_(flat[at : at + grad.numel()].view_as(grad))
            grad /= self.workers
            at += grad.numel()
        return bool(flat[-1] > 0)
