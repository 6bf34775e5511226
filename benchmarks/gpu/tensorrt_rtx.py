"""Does TensorRT-RTX build and run a decoder on this GPU? Two layers in int4, exported for TensorRT.

    python -m benchmarks.gpu.tensorrt_rtx WORK

Its compute capabilities leave out SM87, SM90 and SM100, so a refusal is likely on a data centre's
GPU, and an answer as good as the other. Two ways are tried, each in a process of its own, since a
library may end the process: `current` builds for the GPU that is here; `default` names none.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import click

from benchmarks import synthetic
from benchmarks.gpu.emit import emit

LIBRARY: Final = "tensorrt_rtx"
ROOT = Path(__file__).parents[2]
LIMIT = 22.0  # seconds of one way; the item has 60
# Heads of PULSE-7B's sizes (decoder 128, tower 64), half its width: a build takes seconds.
SIZES = synthetic.Sizes(
    layers=2,
    hidden=2048,
    heads=16,
    ffn=5504,
    vocab=4096,
    vision_layers=3,
    vision_width=512,
    vision_heads=8,
    vision_mlp=2048,
    image_size=56,
)
WAYS = ("current", "default")
# FAILED is no answer of TensorRT's: no GPU, no time, or an error of our own.
REFUSED, RAN, FAILED, NOT_TRIED = "refused", "ran", "failed", "not tried"
Answer = dict[str, Any]  # outcome, reason, version, and what else is known
Attempt = Callable[[Path, str], Answer]  # a bundle, one of WAYS


class ForThisGpu:
    """The library, with its CURRENT under the name by which pulse_export.plan.builder asks for an
    SM.
    """

    def __init__(self, library: Any, capability: int) -> None:
        self._library = library
        current = library.ComputeCapability.CURRENT
        self.ComputeCapability = SimpleNamespace(**{f"SM{capability}": current})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


def make_bundle(work: Path) -> Path:
    """The checkpoint and its export for TensorRT; new each time, without plans of a run before."""
    from pulse_export.pipeline import export

    checkpoint, bundle = work / "rtx-checkpoint", work / "rtx-int4"
    for folder in (checkpoint, bundle):
        shutil.rmtree(folder, ignore_errors=True)
    synthetic.write(checkpoint, SIZES)
    export(checkpoint, bundle, precision="int4", block_size=128, target="standard")
    return bundle


def build_and_run(path: Path, way: str) -> Answer:
    """In this process, which may not survive it."""
    from benchmarks.peers import ours
    from pulse_edge.bundle.bundle import open_bundle
    from pulse_edge.bundle.plans import PlanKey, load_library
    from pulse_edge.engines.cuda_runtime import Cuda
    from pulse_edge.errors import EngineError, ExportError
    from pulse_export.plan import builder as plan_builder

    library = load_library(LIBRARY)
    capability = Cuda().capability()
    answer: Answer = {"version": library.__version__, "capability": capability, "stage": "build"}
    try:
        answer["known"] = [n for n in library.ComputeCapability.__members__ if n != "NONE"]
        current = way == "current"
        chosen = ForThisGpu(library, capability) if current else library
        key = PlanKey("tensorrt_rtx", library.__version__, capability)
        built = plan_builder.build_plans(
            open_bundle(path), plan_builder.Builder(chosen, key, ahead=current)
        )
        answer |= {"stage": "run", "build_s": round(built.seconds, 2)}
        peer = ours.load(path, "int4:128", 4, SIZES.context)
        peer.feed(list(range(3, 131)))
        peer.feed([5])
        peer.feed([5])
        start = time.perf_counter()
        for _ in range(16):
            peer.feed([5])
        answer["step_ms"] = round(1e3 * (time.perf_counter() - start) / 16, 3)
    except (EngineError, ExportError, RuntimeError) as error:
        return answer | {"outcome": REFUSED, "reason": " ".join(str(error).split())[:600]}
    return answer | {"outcome": RAN, "reason": None}


def in_a_child(path: Path, way: str, command: tuple[str, ...] = ()) -> Answer:
    """`build_and_run` in a process of its own. A crash is a refusal, too."""
    own = (sys.executable, "-m", "benchmarks.gpu.tensorrt_rtx", str(path), "--attempt", way)
    try:
        done = subprocess.run(
            command or own,
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return {"outcome": FAILED, "reason": f"not done in {LIMIT:g} s"}
    sys.stderr.write(done.stderr[-4000:])
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"outcome"'):
            answer: Answer = json.loads(line)
            return answer
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    outcome = REFUSED if done.returncode < 0 else FAILED
    return {"outcome": outcome, "reason": f"the process ended with {done.returncode}: {last}"}


def not_tried(path: Path, way: str) -> Answer:
    """For --dry-run."""
    said = f"would export two layers in int4 to {path}, build them for {way}, and run steps"
    return {"outcome": NOT_TRIED, "reason": said, "version": None}


def ask(path: Path, attempt: Attempt) -> None:
    """Try the ways until one runs, and emit each answer.

    Exits with a reason where no way has one.
    """
    answers = []
    for way in WAYS:
        answer = attempt(path, way)
        emit("tensorrt-rtx", **{"way": way, "version": None} | answer)
        answers.append(answer)
        if answer["outcome"] == RAN:
            break
    if all(answer["outcome"] == FAILED for answer in answers):
        sys.exit(str(answers[-1]["reason"]))


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option(
    "--attempt", type=click.Choice(WAYS), help="One way, in this process, of the bundle WORK."
)
@click.option("--dry-run", is_flag=True, help="Say what would be tried.")
def main(work: Path, attempt: str | None, dry_run: bool) -> None:
    """Build and run two decoder layers; the bundle is made in WORK."""
    work = work.resolve()
    if dry_run:
        ask(work / "rtx-int4", not_tried)
    elif attempt is not None:
        answer = build_and_run(work, attempt)
        print("\n" + json.dumps({"outcome": answer.pop("outcome"), **answer}), flush=True)
    elif importlib.util.find_spec(LIBRARY) is None:
        emit("skipped", reason=f"{LIBRARY} is not installed")
    else:
        ask(make_bundle(work), in_a_child)


if __name__ == "__main__":
    main()
