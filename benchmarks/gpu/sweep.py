"""Item: what ONNX Runtime's options do to a page's prefill and to decode steps.

    python -m benchmarks.gpu.sweep WORK --bundle BUNDLE --variant int4:128:cuda

Each option runs in its own process, because some are environment variables that a process reads
once. The first and the last are the same, so that a difference smaller than theirs is noise. Names:
onnxruntime's docs/contrib_ops/cuda/gqa.md, onnxruntime_session_options_config_keys.h and the CUDA
provider's page.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np

from benchmarks.gpu.emit import emit, parse
from benchmarks.gpu.stages import CONTEXT, PAGE_TOKENS, spread, timed
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine

LIMIT = 60.0  # seconds an option may take


@dataclass(frozen=True)
class Option:
    """environment: of the process; provider: the CUDA provider's options; config: the session's."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    provider: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    graphs: bool = True


OPTIONS = (
    Option("as it is"),
    Option("cuDNN attention", provider={"sdpa_kernel": "8"}),
    Option("flash attention", provider={"sdpa_kernel": "1"}, environment={"ORT_ENABLE_XQA": "0"}),
    Option("XQA on", environment={"ORT_ENABLE_XQA": "1"}),
    Option("XQA off", environment={"ORT_ENABLE_XQA": "0"}),
    Option("GEMM auto-tuning", config={"ep.cuda.enable_gemm_auto_tune": "1"}),
    Option("small-N GEMV", environment={"ORT_ENABLE_SMALL_N_GEMV": "1"}),
    Option("no CUDA graphs", graphs=False),
    Option("flash decoding off", environment={"ORT_DISABLE_FLASH_DECODE": "1"}),
    Option("as it is, again"),
)
BY_NAME = {option.name: option for option in OPTIONS}


def measure(bundle: Path, option: Option, dry_run: bool) -> None:
    """In a process that has the option's environment."""
    device = "cpu" if dry_run else "cuda"
    if not dry_run:
        providers = engine_module("onnxruntime").PROVIDERS
        row = providers[device]
        graphs = row.graphs if option.graphs else {}
        providers[device] = replace(
            row,
            options=row.options | option.provider,
            config=row.config | option.config,
            graphs=graphs,
        )
    opened = open_bundle(bundle, check_hashes=False)
    text = opened.manifest.model.text
    engine = open_engine(opened, EngineOptions(device, context=min(CONTEXT, text.context)))
    runs = 1 if dry_run else 4
    most = min(PAGE_TOKENS, engine.capacity - 20)
    rows = engine.rows(np.random.default_rng(0).integers(3, text.vocab, 3000))
    prefill = timed(lambda: engine.prefill(rows[:most]), runs, lambda: engine.rewind(0))
    emit("option", option=option.name, case="prefill", tokens=most, **spread(prefill))
    for depth in (min(3000, most), 0):
        engine.rewind(0)
        if depth:
            engine.prefill(rows[:depth])
        steps = timed(lambda: engine.choose(rows[:1]), 24, lambda d=depth: engine.rewind(d))  # type: ignore[misc]
        emit("option", option=option.name, case="step", depth=depth, **spread(steps))


def in_process(work: Path, bundle: Path, option: Option, dry_run: bool) -> str | None:
    """Run `measure` in a process of its own, handing on its results; the reason where it fails."""
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        str(work),
        "--bundle",
        str(bundle),
        "--only",
        option.name,
    ]
    command += ["--variant", ""] + ["--dry-run"] * dry_run
    environment = os.environ | option.environment
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"no end in {LIMIT:g} s"
    for line in done.stdout.splitlines():
        if found := parse(line):
            emit(found.pop("result"), **found)
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1][:300] if lines else f"ended with {done.returncode}"
    return None


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--variant", required=True, help="Of the bundle, for the record.")
@click.option("--only", type=click.Choice(list(BY_NAME)), help="One option, in this process.")
@click.option("--dry-run", is_flag=True)
def main(work: Path, bundle: Path, variant: str, only: str | None, dry_run: bool) -> None:
    """Try the options on one BUNDLE."""
    if only is not None:
        measure(bundle, BY_NAME[only], dry_run)
        return
    failed = 0
    for option in OPTIONS[:2] if dry_run else OPTIONS:
        reason = in_process(work, bundle, option, dry_run)
        if reason is not None:
            failed += 1
            emit("option failed", option=option.name, variant=variant, reason=reason)
    if failed == len(OPTIONS):
        sys.exit("no option could be measured")


if __name__ == "__main__":
    main()
