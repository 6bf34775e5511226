"""Where a decode step and a prompt spend their time on the GPU: kernels by name, copies, gaps.

    python -m benchmarks.gpu.trace WORK --bundle PATH --variant int4:128:cuda

CUPTI sees what the whole process puts on the GPU, so torch's profiler traces ONNX Runtime's
kernels. Steps are replays of a CUDA graph; CUPTI breaks a graph into its kernels, and where it
shows launches only, the result says so. The events themselves are written to WORK. Launches cost
more while they are traced: `wall_us` is of steps that are not.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from benchmarks.gpu.emit import emit
from pulse_edge.cli import numbers

STEPS = 4  # traced, after WARM
WARM = 8  # steps; the first ones capture the graph
TIMED = 12  # steps for the wall clock
PAGE = 2933  # tokens of a prompt with a page of five views
CONTEXT = 4096
SHORT_GAP = 20.0  # us: between two kernels of a step; longer ones wait for the host
LONGEST = 25  # rows of kernels in a result

Event = tuple[str, float, float]  # name, start and end in us


@dataclass(frozen=True)
class Kernel:
    """Of one step: microseconds and launches of what has one name."""

    name: str
    us: float
    calls: float


@dataclass(frozen=True)
class Summary:
    """Of one step, averaged.

    Attributes:
        busy_us: a kernel or copy runs; less than the sum of the kernels where they overlap.
        gaps_us: nothing runs, for less than SHORT_GAP at a time.
        idle_us: nothing runs, for longer: the host's part, also between two steps.
        launches: kernels, copies and memory sets.
    """

    busy_us: float
    gaps_us: float
    idle_us: float
    launches: float
    kernels: tuple[Kernel, ...]


def summarize(events: Iterable[Event], steps: int) -> Summary:
    """Events of so many equal steps, in any order and on any streams."""
    ordered = sorted(events, key=lambda event: event[1])
    total: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    busy = gaps = idle = 0.0
    until = ordered[0][1] if ordered else 0.0  # the end of what has run so far
    for name, start, end in ordered:
        total[short(name)] += end - start
        calls[short(name)] += 1
        pause = max(0.0, start - until)
        if pause < SHORT_GAP:
            gaps += pause
        else:
            idle += pause
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    rows = (Kernel(name, us / steps, calls[name] / steps) for name, us in total.items())
    kernels = tuple(sorted(rows, key=lambda row: -row.us))
    return Summary(busy / steps, gaps / steps, idle / steps, len(ordered) / steps, kernels)


def short(name: str) -> str:
    """A kernel's name without template arguments, parameters and return type.

    Copies keep their direction: `Memcpy HtoD (Pinned -> Device)` is `Memcpy HtoD`.
    """
    if name.startswith(("Memcpy", "Memset")):
        return re.sub(r" \(.*", "", name)
    plain = _without_templates(name.replace("(anonymous namespace)::", ""))
    plain = re.sub(r"\(.*", "", plain).strip().removeprefix("void ").strip()
    return (plain or name)[-90:]


def _without_templates(name: str) -> str:
    depth = 0
    kept = []
    for letter in name:
        depth += letter == "<"
        if depth <= 0:
            kept.append(letter)
        depth -= letter == ">"
    return "".join(kept)


def fields(summary: Summary) -> dict[str, Any]:
    """JSON-ready; where there are more than LONGEST kernels, the last row is the sum of
    the others.
    """
    kernels = list(summary.kernels)
    if len(kernels) > LONGEST:
        rest = kernels[LONGEST - 1 :]
        kernels[LONGEST - 1 :] = [
            Kernel(f"{len(rest)} others", sum(k.us for k in rest), sum(k.calls for k in rest)),
        ]
    return _rounded(asdict(summary) | {"kernels": [_rounded(asdict(k)) for k in kernels]})


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(v, 2) if isinstance(v, float) else v for name, v in values.items()}


class Peer(Protocol):
    """What is traced: `benchmarks.peers.ours`."""

    def feed(self, tokens: list[int]) -> None: ...

    def rewind(self, length: int) -> None: ...


@dataclass(frozen=True)
class Trace:
    """What the GPU did, and the calls of the host that launched it, by name."""

    events: list[Event]
    calls: dict[str, int]


Profile = Callable[[Callable[[], object]], Trace]


def with_torch(work: Callable[[], object]) -> Trace:
    """CUPTI's events of `work`, through torch's profiler."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        torch.cuda.synchronize()
    events: list[Event] = []
    calls: dict[str, int] = defaultdict(int)
    for event in profile.events():
        if event.device_type.name == "CUDA":
            events.append((event.name, float(event.time_range.start), float(event.time_range.end)))
        elif event.name.startswith("cu"):
            calls[event.name] += 1
    return Trace(events, dict(calls))


def prepare_torch() -> None:
    """Before ONNX Runtime is imported: CUDA's libraries come from torch then, after CUPTI.

    A graph that is instantiated before CUPTI is there may be one opaque launch to it. CUPTI must
    stay between traces: with CUDA graphs, starting it again has crashed (the workaround is that of
    torch/profiler/profiler.py).
    """
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    import torch

    if not torch.cuda.is_available():
        raise click.ClickException("torch sees no GPU")
    x = torch.ones(1024, device="cuda")
    if not with_torch(lambda: x + x).events:
        raise click.ClickException("torch's profiler sees no kernels: CUPTI does not work here")


def wall_us(work: Callable[[], object], times: int) -> float:
    """Median wall clock of `work`, which waits for the GPU itself."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(seconds), 2)


def trace_step(peer: Peer, depth: int, profile: Profile) -> tuple[Trace, dict[str, Any]]:
    """Decode steps after `depth` tokens."""
    peer.rewind(0)
    if depth:
        peer.feed(prompt(depth))

    def step() -> None:
        peer.feed([5])

    for _ in range(WARM):
        step()
    wall = wall_us(step, TIMED)

    def steps() -> None:
        for _ in range(STEPS):
            step()

    trace = profile(steps)
    return trace, {"depth": depth, "wall_us": wall} | described(trace, STEPS)


def trace_prefill(peer: Peer, tokens: int, profile: Profile) -> tuple[Trace, dict[str, Any]]:
    """One prompt into an empty cache."""

    def prefill() -> None:
        peer.rewind(0)
        peer.feed(prompt(tokens))

    prefill()
    wall = wall_us(prefill, 2)
    trace = profile(prefill)
    return trace, {"tokens": tokens, "wall_us": wall} | described(trace, 1)


def prompt(tokens: int) -> list[int]:
    return [3 + at % 200 for at in range(tokens)]


def described(trace: Trace, steps: int) -> dict[str, Any]:
    """The summary, and a note where CUPTI has not broken the graph into kernels."""
    found = fields(summarize(trace.events, steps))
    launches = ("cudaGraphLaunch", "cuGraphLaunch")
    graphs = sum(count for name, count in trace.calls.items() if name.startswith(launches))
    found["graph_launches"] = graphs / steps
    kernels = sum(not name.startswith(("Memcpy", "Memset")) for name, _, _ in trace.events)
    if graphs >= steps and kernels <= 2 * graphs:
        found["note"] = "CUPTI shows the launches of CUDA graphs, not the kernels in them"
    elif not trace.events:
        found["note"] = "the profiler saw nothing on the GPU"
    return found


class FakePeer:
    """For --dry-run."""

    def feed(self, tokens: list[int]) -> None:
        assert tokens

    def rewind(self, length: int) -> None:
        assert length >= 0


def fake_profile(work: Callable[[], object]) -> Trace:
    """Four steps of three kernels and two copies."""
    work()
    one = (
        ("Memcpy HtoD (Pinned -> Device)", 0.0, 2.0),
        ("void onnxruntime::MatMulFloat4BitsKernelM1<__half, 128, false>(__half*, int)", 3.5, 20.0),
        ("void kernel_mha(float)", 21.0, 25.0),
        ("void onnxruntime::MatMulFloat4BitsKernelM1<__half, 128, true>(__half*, int)", 26.0, 40.0),
        ("Memcpy DtoH (Device -> Pinned)", 42.0, 50.0),
    )
    events = [
        (name, 100.0 * n + start, 100.0 * n + end) for n in range(STEPS) for name, start, end in one
    ]
    return Trace(events, {"cudaGraphLaunch": STEPS})


def write(path: Path, events: Sequence[Event]) -> None:
    """All events, for a look at their order: [name, start, end] in us from the first one."""
    first = min((start for _, start, _ in events), default=0.0)
    rows = [
        [name, round(start - first, 3), round(end - first, 3)]
        for name, start, end in sorted(events, key=_start)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def _start(event: Event) -> float:
    return event[1]


@click.command(context_settings={"show_default": True})
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--variant", default="int4:128:cuda", help="What the bundle is: a variant of `ours`.")
@click.option(
    "--depth", "depths", callback=numbers, default="0,3000", help="Tokens before the steps."
)
@click.option("--tokens", default=PAGE, help="Of the prompt; 0: trace none.")
@click.option("--threads", default=8)
@click.option("--dry-run", is_flag=True, help="Events that are made up, without a GPU.")
def main(
    work: Path,
    bundle: Path,
    variant: str,
    depths: tuple[int, ...],
    tokens: int,
    threads: int,
    dry_run: bool,
) -> None:
    """Trace decode steps and a prompt of BUNDLE; raw events go to WORK."""
    profile: Profile = fake_profile
    peer: Peer = FakePeer()
    if not dry_run:
        prepare_torch()
        from benchmarks.peers import ours  # after torch

        profile = with_torch
        peer = ours.load(bundle, variant, threads, CONTEXT)
    name = variant.replace(":", "-")
    seen = 0
    for depth in depths:
        trace, result = trace_step(peer, depth, profile)
        emit("trace step", **result)
        write(work / f"trace-{name}-step-{depth}.json", trace.events)
        seen += len(trace.events)
    if tokens:
        trace, result = trace_prefill(peer, tokens, profile)
        emit("trace prefill", **result)
        write(work / f"trace-{name}-prefill-{tokens}.json", trace.events)
        seen += len(trace.events)
    if not seen:
        raise click.ClickException("the profiler saw nothing on the GPU")


if __name__ == "__main__":
    main()
