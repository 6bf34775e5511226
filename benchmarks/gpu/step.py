"""Item: decode steps of our own kernels by themselves, at 7B size with random weights.

    python -m benchmarks.gpu.step WORK

It needs NVRTC and the driver, and neither ONNX Runtime nor a bundle, so it also runs on GPUs that
ONNX Runtime has no code for. Times are of a step's CUDA graph: what the host adds is not in them.
The launch shapes of int4 are then tuned, and the better times are results of their own.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.gpu import layout
from benchmarks.gpu.emit import emit
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.native.compiler import Compiler
from pulse_edge.engines.native.cubins import PlannedDevice, kernels_of
from pulse_edge.engines.native.driver import Gpu
from pulse_edge.engines.native.kernels import MOST_ROWS, Kernel
from pulse_edge.engines.native.steps import (
    Address,
    Gain,
    Layer,
    Matrix,
    SharedCache,
    StepBuilder,
    StepDevice,
    Weights,
)
from pulse_edge.engines.native.tuning import Choices, Tuner
from pulse_edge.errors import EngineError

DEPTHS = (0, 600, 3000)
CONTEXT = 3072
STORAGES = {"int4": 4, "int8": 8, "fp16": 16}
BLOCK = 128
ROWS_OF_TABLE = 64
POOL = 1 << 26  # numbers that all matrices are filled from


def text_spec(dry_run: bool) -> TextSpec:
    """The decoder of PULSE-7B, or a tiny one."""
    sizes = layout.sizes(dry_run)
    return TextSpec(
        hidden=sizes.hidden,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.heads,
        head_size=sizes.hidden // sizes.heads,
        ffn=sizes.ffn,
        vocab=sizes.vocab,
        eps=1e-5,
        rope_theta=1e4,
        context=CONTEXT,
        bos=1,
        eos=(2,),
    )


@dataclass(frozen=True)
class Pools:
    """Random numbers: bytes of codes, fp16 weights, scales. Small enough for fp16 in 32 layers."""

    codes: np.ndarray
    halves: np.ndarray
    scales: np.ndarray


def random_pools() -> Pools:
    generator = np.random.default_rng(0)
    return Pools(
        codes=np.frombuffer(generator.bytes(POOL), np.uint8),
        halves=(0.01 * generator.standard_normal(POOL // 2, np.float32)).astype(np.float16),
        scales=generator.uniform(-0.0035, 0.0035, POOL // 32).astype(np.float16),
    )


class RandomModel:
    """A decoder of random weights on a device."""

    def __init__(self, text: TextSpec, bits: int, device: StepDevice, pools: Pools | None) -> None:
        """`pools`: None for a device that holds nothing."""
        self._device = device
        self._pools = pools
        self.bytes = 0  # that a step reads of weights
        hidden, attention = text.hidden, text.heads * text.head_size
        gain = Gain(self._put(np.ones(hidden, np.float16)), 1.0)
        layers = tuple(
            Layer(
                input_gain=gain,
                qkv=self._matrix((text.heads + 2 * text.kv_heads) * text.head_size, hidden, bits),
                output=self._matrix(hidden, attention, bits),
                post_gain=gain,
                gate=self._matrix(text.ffn, hidden, bits),
                up=self._matrix(text.ffn, hidden, bits),
                down=self._matrix(hidden, text.ffn, bits),
            )
            for _ in range(text.layers)
        )
        table = 0.02 * np.random.default_rng(1).normal(size=(ROWS_OF_TABLE, hidden))
        angles = np.random.default_rng(2).normal(size=(CONTEXT, text.head_size // 2))
        self.weights = Weights(
            table=self._put(table.astype(np.float16)),
            cosines=self._put(np.cos(angles).astype(np.float16)),
            sines=self._put(np.sin(angles).astype(np.float16)),
            layers=layers,
            gain=gain,
            head=self._matrix(text.vocab, hidden, max(bits, 8)),
        )
        size = 2 * text.kv_heads * CONTEXT * text.head_size
        keys, values = (tuple(device.allocate(size) for _ in layers) for _ in range(2))
        self.cache = SharedCache(keys, values, slots=1, capacity=CONTEXT)

    def _matrix(self, n: int, k: int, bits: int) -> Matrix:
        if bits == 16:
            return Matrix(self._fill(2 * n * k, "halves"), 0, n, k, bits, 0)
        codes = self._fill(n * k * bits // 8, "codes")
        return Matrix(codes, self._fill(2 * n * k // BLOCK, "scales"), n, k, bits, BLOCK)

    def _fill(self, size: int, pool: str) -> Address:
        """So many bytes of a pool, over and over."""
        self.bytes += size
        address: Address = self._device.allocate(size)
        if self._pools is not None:
            source = getattr(self._pools, pool).view(np.uint8)
            for start in range(0, size, source.size):
                self._device.write(address + start, source[: min(source.size, size - start)])
        return address

    def _put(self, array: np.ndarray) -> Address:
        address: Address = self._device.allocate(array.nbytes)
        self._device.write(address, np.ascontiguousarray(array))
        return address


class Steps:
    """Times the steps of one model on the GPU."""

    def __init__(self, gpu: Gpu, compiler: Compiler, model: RandomModel, text: TextSpec) -> None:
        self._gpu = gpu
        self._compiler = compiler
        self._loaded: set[Kernel] = set()
        self.choices = Choices({})
        self.builder = StepBuilder(text, model.weights, model.cache, gpu, tunings=self.choices)
        self.load(kernels_of(self.builder))

    def load(self, kernels: Any) -> None:
        """Compile and load what is new of the kernels."""
        new = [kernel for kernel in kernels if kernel not in self._loaded]
        self._gpu.load(self._compiler.compile(new, self._gpu.capability))
        self._loaded.update(new)

    def milliseconds(self, rows: int, depth: int) -> float:
        """Of a step of so many rows after so many positions."""
        self._gpu.write(self.builder.lengths, np.full(1, depth, np.int32))
        launches = self.builder.launches(rows)

        def issue() -> None:
            for launch in launches:
                self._gpu.launch(launch, launch.early)

        with self._gpu.current():
            issue()  # the first launch of a kernel loads its code
            self._gpu.finish()
            return self._gpu.milliseconds(self._gpu.capture(issue))

    def finite(self, rows: int, vocab: int) -> bool:
        """Whether the logits of the last step are numbers."""
        logits = np.empty((rows, vocab), np.float32)
        self._gpu.read(logits, self.builder.logits)
        return bool(np.isfinite(logits).all())


def measure(gpu: Gpu, compiler: Compiler, text: TextSpec, storage: str, pools: Pools) -> None:
    """Times of a storage's steps."""
    model = RandomModel(text, STORAGES[storage], gpu, pools)
    steps = Steps(gpu, compiler, model, text)
    for tuned in (False, True) if storage == "int4" else (False,):
        if tuned:
            times = Tuner(gpu, steps.choices, steps.builder, steps.load).tune()
            chosen = {
                f"{n}, {'several' if s else 'one'}": str(t)
                for (n, s), t in steps.choices.chosen.items()
            }
            emit(
                "tuned",
                storage=storage,
                before_after_ms={str(k): v for k, v in times.items()},
                chosen=chosen,
            )
        for depth in DEPTHS:
            for rows in (1, 2, MOST_ROWS):
                ms = steps.milliseconds(rows, depth)
                ok = steps.finite(rows, text.vocab)
                fields = {"storage": storage, "rows": rows, "depth": depth, "tuned": tuned}
                emit("native step", **fields, ms=round(ms, 4), finite=ok)
    emit("summary", storage=storage, weight_gb=round(model.bytes / 1e9, 3))


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only arrange a tiny model's steps.")
def main(work: Path, dry_run: bool) -> None:
    """Time steps of a 7B decoder."""
    text = text_spec(dry_run)
    if dry_run:
        device = PlannedDevice(100_000)
        for storage, bits in STORAGES.items():
            model = RandomModel(text, bits, device, None)
            builder = StepBuilder(text, model.weights, model.cache, device)
            emit("native step", storage=storage, launches=len(builder.launches(1)))
        return
    try:
        compiler = Compiler()
        pools = random_pools()
        for storage in STORAGES:
            with ExitStack() as stack:
                measure(Gpu(stack), compiler, text, storage, pools)
    except EngineError as error:
        emit("skipped", reason=str(error))


if __name__ == "__main__":
    main()
