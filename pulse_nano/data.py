"""Shards of drawn pages -> training batches.

Batch `i` depends only on the seed and `i`, so a run can be resumed.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_edge.simulation.pages import no_ecg, sample_look
from pulse_nano.model import DENSE, LOCAL, VIEWS
from pulse_nano.photos import move_events, sample_photo
from pulse_nano.shards import F32, SIDE, Page, Shard
from pulse_nano.targets import attribute_targets, dense_target
from pulse_nano.views import compose, views_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
WINDOW = 4  # shards that are shuffled together


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.shard"


@dataclass
class Batch:
    """`views` float32 (pages, VIEWS, 3, 336, 336); targets as `targets.losses` takes them; labels,
    None: no ECG.
    """

    number: int
    views: Tensor
    dense: Tensor
    heads: dict[str, Tensor]
    labels: list[dict[str, Any] | None]


@dataclass
class Pages:
    """Endless batches from `start` on.

    Waits for shards that are still being written (first epoch: in order).
    """

    folder: Path
    shards: int
    batch: int
    patch: int
    seed: int
    start: int = 0
    stride: int = 1  # between the numbers of batches: the workers' batches are interleaved
    empty: float = 0.05  # share of images without an ECG
    backwards: bool = False  # the first epoch begins with the last shards
    photos: float = 0.0  # share of pages that are distorted as by a scanner or a phone

    def __post_init__(self) -> None:
        self._open: dict[int, Shard] = {}

    def _shard(self, number: int) -> Shard:
        path = shard_path(self.folder, number)
        while not path.exists():
            time.sleep(2)
        if number not in self._open:
            if len(self._open) >= 2 * WINDOW:
                self._open.clear()
            self._open[number] = Shard(path)
        return self._open[number]

    @functools.cached_property
    def shard_pages(self) -> int:
        """All shards of a folder have as many pages as its first one."""
        return len(self._shard(0))

    def page(self, position: int) -> Page:
        """Page at this place of the endless sequence of epochs."""
        epoch, at = divmod(position, self.shards * self.shard_pages)
        order: NDArray[np.int64] = np.arange(self.shards)[:: -1 if self.backwards else 1]
        if epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.shards)
        window, within = divmod(at, WINDOW * self.shard_pages)
        group = order[window * WINDOW : (window + 1) * WINDOW]
        shuffled = np.random.default_rng([self.seed, epoch, window, 1]).permutation(
            len(group) * self.shard_pages
        )
        pick = int(shuffled[within])
        return self._shard(int(group[pick // self.shard_pages]))[pick % self.shard_pages]

    def make(self, number: int, views: F32 | None = None) -> Batch:
        """Batch `number`.

        `views` is memory to write the views into; the batch then lives until it is used again.
        """
        if views is None:
            views = self.room()
        dense: list[F32 | None] = []
        heads: list[dict[str, F32]] = []
        labels: list[dict[str, Any] | None] = []
        for slot in range(self.batch):
            rng = np.random.default_rng([self.seed, number, slot, 2])
            if rng.random() < self.empty:
                views[slot] = views_of(no_ecg(rng))
                labels.append(None)
                dense.append(None)  # zeros below, once the shape is known
            else:
                page = self.page(number * self.batch + slot)
                look, photo = sample_look(rng), sample_photo(rng, self.photos)
                views[slot] = compose(page, look, rng, photo)
                if photo is not None:
                    height, width = page.ink.shape
                    moved = move_events(page.events, photo, width, height, page.top)
                    page = replace(page, events=moved)
                dense.append(dense_target(page, self.patch))
                labels.append(page.labels)
            heads.append(attribute_targets(labels[-1]))
        shape = (VIEWS * (SIDE // self.patch) ** 2, DENSE)
        stacked = np.stack([np.zeros(shape, np.float32) if d is None else d for d in dense])
        for slot, label in enumerate(labels):
            if label is None:
                stacked[slot, :, -len(LOCAL) :] = np.nan
        joined = {name: torch.from_numpy(np.stack([h[name] for h in heads])) for name in heads[0]}
        return Batch(number, torch.from_numpy(views), torch.from_numpy(stacked), joined, labels)

    def room(self) -> F32:
        return np.empty((self.batch, VIEWS, 3, SIDE, SIDE), np.float32)


class Source(Protocol[T_co]):
    """Numbered batches: `start`, `start + stride`, ... `make` may write into what `room` gave."""

    start: int
    stride: int

    def room(self) -> Any: ...

    def make(self, number: int, room: Any, /) -> T_co: ...


def stream(pages: Source[T], ahead: int = 2) -> Iterator[T]:
    """Endless batches, made by a thread `ahead` of time. A batch is valid until the next one is
    asked for.

    The views go into a ring of buffers: first touches of fresh memory cost more than the arithmetic
    (17 of 36 ms a page where this was measured), and a worker process pays them twice.
    """
    ring = [pages.room() for _ in range(ahead + 2)]  # queued, being made, and in the caller's hands
    ready: queue.Queue[T | BaseException] = queue.Queue(ahead)

    def produce() -> None:
        try:
            for turn, number in enumerate(itertools.count(pages.start, pages.stride)):
                ready.put(pages.make(number, ring[turn % len(ring)]))
        except BaseException as error:  # handed to the caller, who can act on it
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    while True:
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch
