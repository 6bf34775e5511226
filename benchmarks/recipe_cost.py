"""What a four-bit recipe takes of a 7B model: time and memory of full-width layers, times 32.

    python -m benchmarks.recipe_cost --recipe gptq --tokens 5888 --append

Two layers of PULSE-7B's width with random weights go through `quantize.decoder_codes`, as an export
sends them. Every layer has the same shapes, so 32 take sixteen times as long. Memory does not grow
with the number of layers. Processor time is what counts where other programs share the machine.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np

from benchmarks.compare import commit
from pulse_edge.bundle.spec import ModelSpec, TextSpec
from pulse_edge.measure import baseline
from pulse_edge.system import peak_memory, usable_cores
from pulse_edge.units import size
from pulse_export.checkpoint import Checkpoint, Floats, Tensors
from pulse_export.quantize.decoder_codes import DecoderCodes
from pulse_export.quantize.rounding import ROWS, Rounding
from pulse_export.quantize.search import BlockFormat

CHECKPOINT = Path(__file__).parent.parent / "pulse_nano" / "pulse-nano"
KIND, SCHEMA = "recipe cost", 1
RESULTS = Path(__file__).parent / "results" / "recipe_cost.jsonl"
LAYERS = 32  # of PULSE-7B
SAMPLE = 2944  # tokens of a page with five views and its conversation


@dataclass(frozen=True)
class Cost:
    """Measured on some layers.

    Attributes:
        layers: how many were rounded.
        tokens: of the calibration.
        wall_seconds: of these layers, with whatever else ran on the machine.
        processor_seconds: of these layers, all cores together.
        peak_bytes: the process's largest resident set.
    """

    recipe: str
    layers: int
    tokens: int
    cores: int
    wall_seconds: float
    processor_seconds: float
    peak_bytes: int

    def minutes(self) -> float:
        """Of the whole model, on this many cores with nothing else running."""
        return self.processor_seconds / self.cores * LAYERS / self.layers / 60

    def __str__(self) -> str:
        each = self.processor_seconds / self.layers
        return (
            f"{self.recipe}, {self.tokens:,} tokens: {each:.0f} processor-seconds a layer "
            f"({self.wall_seconds / self.layers:.0f} s passed); {LAYERS} layers on {self.cores} "
            f"cores {self.minutes():.0f} minutes; peak memory {size(self.peak_bytes)}"
        )


def random_tensors(spec: ModelSpec, seed: int = 0) -> Tensors:
    """A decoder of random weights, which makes each tensor when it is asked for it."""
    text = spec.text
    widths = {"down": (text.hidden, text.ffn), "gate": (text.ffn, text.hidden)}
    widths["up"] = widths["gate"]
    pool = np.random.default_rng(seed).normal(0, 0.02, 1 << 22).astype(np.float32)

    def tensor(name: str) -> Floats:
        if name.endswith("norm.weight"):
            return np.ones(text.hidden, np.float32)
        part = name.split(".")[-2].removesuffix("_proj")
        shape = widths.get(part, (text.heads * text.head_size, text.hidden))
        return np.resize(pool, shape)

    return tensor


def measure(recipe: str, spec: ModelSpec, layers: int, tokens: int, block: int) -> Cost:
    """Round the first layers of a random decoder of this size."""
    rng = np.random.default_rng(1)
    lengths = [min(SAMPLE, tokens - at) for at in range(0, tokens, SAMPLE)]
    states = [rng.normal(0, 1, (n, spec.text.hidden)).astype(np.float32) for n in lengths]
    codes = DecoderCodes(
        random_tensors(spec),
        spec,
        Rounding(recipe),
        lambda bits, _: BlockFormat(bits, block),
        states if ROWS[recipe].takes_data else (),
    )
    states.clear()
    wall, processor = time.perf_counter(), time.process_time()
    for i in range(layers):
        codes.codes((f"layers.{i}.mlp.down_proj",))
    return Cost(
        recipe=recipe,
        layers=layers,
        tokens=tokens if ROWS[recipe].takes_data else 0,
        cores=usable_cores(),
        wall_seconds=time.perf_counter() - wall,
        processor_seconds=time.process_time() - processor,
        peak_bytes=peak_memory(),
    )


def full_width() -> ModelSpec:
    """PULSE-7B's decoder; of the rest nothing is run."""
    text = TextSpec(4096, LAYERS, 32, 32, 128, 11008, 32000, 1e-5, 10000.0, 4096, 1, (2,))
    return replace(Checkpoint(CHECKPOINT).spec, text=text)


@click.command(help=(__doc__ or "").split("\n\n", 1)[0])
@click.option("--recipe", type=click.Choice(list(ROWS)), default="gptq", show_default=True)
@click.option("--tokens", default=2 * SAMPLE, show_default=True, help="Of the calibration.")
@click.option("--layers", default=2, show_default=True, help="To measure.")
@click.option("--block-size", default=32, show_default=True)
@click.option("--append", is_flag=True, help=f"Add a line of JSON to results/{RESULTS.name}.")
def main(recipe: str, tokens: int, layers: int, block_size: int, append: bool) -> None:
    cost = measure(recipe, full_width(), layers, tokens, block_size)
    if append:
        RESULTS.parent.mkdir(exist_ok=True)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        head = {"kind": KIND, "schema": SCHEMA, "time": stamp, "commit": commit()}
        baseline.append(RESULTS, head | asdict(cost) | {"minutes_of_32": cost.minutes()})
    click.echo(str(cost))


if __name__ == "__main__":
    main()
