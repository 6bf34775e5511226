"""Finding a GPU's launch shapes, on an executor whose clock is arithmetic; where they are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.cubins import LaunchShape, Shapes, read_shapes, write_cubins
from pulse_edge.engines.native.cubins import build_kernels, needed_kernels
from pulse_edge.engines.native.engine import open_checked
from pulse_edge.engines.native.kernels import Kernel, Tuning
from pulse_edge.engines.native.steps import Gain, Launch, SharedCache, StepBuilder
from pulse_edge.engines.native.tuning import Choices, Tuner, choices_of, shapes_of
from pulse_edge.engines.native.weights import arranged, matrices
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError

from support.fake_cuda import FakeCuda

BEST = 12  # warps: a product with so many takes 1 ms, with another number more


class Clock:
    """A device that runs nothing. A step takes the sum of what `cost` says of its products."""

    multiprocessors = 132
    shared_bytes = 227 << 10

    def __init__(self, cost: Callable[[Kernel], float]) -> None:
        self._cost = cost
        self._launched: list[Launch] = []
        self.loaded: set[Kernel] = set()

    def allocate(self, size: int) -> int:
        return 0

    def write(self, to: int, array: NDArray[Any]) -> None: ...

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)

    def upload(self, to: int, source: NDArray[Any]) -> None: ...

    def download(self, to: NDArray[Any], source: int) -> None: ...

    def replay(self, graph: Any) -> None: ...

    def finish(self) -> None: ...

    def wait_for_others(self) -> None: ...

    def load(self, kernels: Collection[Kernel]) -> None:
        self.loaded.update(kernels)

    def launch(self, launch: Launch, early: bool) -> None:
        assert launch.kernel in self.loaded, "a kernel that was not loaded"
        self._launched.append(launch)

    def capture(self, issue: Callable[[], None]) -> list[Launch]:
        self._launched = []
        issue()
        return self._launched

    def milliseconds(self, graph: list[Launch]) -> float:
        return sum(self._cost(launch.kernel) for launch in graph)


def distance(kernel: Kernel) -> float:
    """Milliseconds by the distance from the best number of warps; only products have any."""
    if kernel.entry != "gemv":
        return 0.0
    return 1 + abs(dict(kernel.defines)["WARPS"] - BEST) / 10


def tuned(bundle: Bundle, cost: Callable[[Kernel], float]) -> tuple[Choices, Any]:
    text = bundle.manifest.model.text
    clock = Clock(cost)
    weights = arranged(text, matrices(bundle), lambda _: Gain(0, 1.0), 0, (0, 0))
    nowhere = (0,) * text.layers
    cache = SharedCache(nowhere, nowhere, slots=1, capacity=64)
    choices = Choices({})
    builder = StepBuilder(text, weights, cache, clock, tunings=choices)
    return choices, Tuner(clock, choices, builder, clock.load).tune()


def test_the_fastest_candidate_is_chosen(opened: Bundle) -> None:
    choices, times = tuned(opened, distance)
    products = {"qkv", "output", "gate_up", "down", "head"}
    assert set(choices.chosen) == {(p, s) for p in products for s in (False, True)}
    assert {tuning.warps for tuning in choices.chosen.values()} == {BEST}
    for before, after in times.values():
        assert after < before


def test_what_is_no_faster_changes_nothing(opened: Bundle) -> None:
    choices, times = tuned(opened, lambda kernel: 1.0)
    assert choices.chosen == {}
    assert all(before == after for before, after in times.values())


def test_progress_ends_at_its_total(opened: Bundle) -> None:
    text = opened.manifest.model.text
    clock = Clock(distance)
    weights = arranged(text, matrices(opened), lambda _: Gain(0, 1.0), 0, (0, 0))
    nowhere = (0,) * text.layers
    builder = StepBuilder(text, weights, SharedCache(nowhere, nowhere, 1, 64), clock)
    told: list[tuple[str, int, int]] = []
    Tuner(clock, Choices({}), builder, clock.load).tune(lambda *step: told.append(step))
    assert sum(done for _, done, _ in told) == told[-1][2]


@pytest.fixture
def copied(decoder: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(decoder, tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


SHAPE = LaunchShape("qkv", False, 4, 2, 2, 1, 1, 128)


def test_shapes_are_kept_with_the_kernels(copied: Bundle) -> None:
    assert read_shapes(copied, 90) == Shapes()
    shapes = Shapes("A GPU", (SHAPE,))
    write_cubins(copied, 90, "nobody", {"0": b"code"}, shapes)
    assert read_shapes(copied, 90) == shapes
    choices = choices_of(shapes)
    assert choices.chosen == {("qkv", False): Tuning(4, 2, 2, 1, 1, 128)}
    assert shapes_of(choices, "A GPU") == shapes
    default = needed_kernels(copied, 227 << 10, byte_cache=False)
    assert needed_kernels(copied, 227 << 10, False, choices) != default


@pytest.mark.parametrize(("card", "used"), [("Fake GPU", True), ("Another GPU", False)])
def test_the_engine_takes_the_shapes_of_its_card(
    cuda: FakeCuda, copied: Bundle, card: str, used: bool
) -> None:
    write_cubins(copied, 90, "nobody", {}, Shapes(card, (SHAPE,)))
    engine = open_checked(copied, EngineOptions(device="cuda", engine="native"))
    described = engine.describe()["native"]
    assert described["tuned"] is used
    assert described["self_check"]["error"] < described["self_check"]["bound"]


def test_tuning_takes_a_gpu_here(copied: Bundle) -> None:
    with pytest.raises(EngineError, match=r"tuning takes a GPU of compute capability 9\.0 here"):
        build_kernels(copied, "sm90", tune=True)
