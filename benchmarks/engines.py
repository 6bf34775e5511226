"""Builds TensorRT plans of bundles and records the time, the memory and the plans' sizes.

    python -m benchmarks.synthetic synthetic-7b
    pulse-edge export synthetic-7b trt-int4 --target standard --precision int4 --block-size 128
    python -m benchmarks.engines trt-int4 --device l4

Each graph is built in a process of its own, whose memory is sampled from here. A machine must have
what that process allocates; weights that it maps from files come and go. A line of JSON for each
plan is added to results/engines.jsonl; the plans are thrown away. Nothing is run, so no GPU is
needed where the library builds ahead of time.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pulse_edge import system as machine
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_export.plan import builder as plan_builder

KIND = "engine"  # of a record
RESULTS = Path(__file__).parent / "results" / "engines.jsonl"
GRAPHS = {"vision": VISION_GRAPH, "decoder": DECODER_GRAPH}
SAMPLING = 0.02  # seconds between looks at a build's memory


def measure(bundle: Bundle, part: str, device: str, prefill_rows: int) -> dict[str, Any]:
    """Build one graph in a child. Sizes in bytes; memory is None where the OS does not tell."""
    with tempfile.TemporaryDirectory(dir=bundle.path.parent, prefix=".engines-") as folder:
        plan = Path(folder) / "plan"
        child = [sys.executable, "-m", "benchmarks.engines", str(bundle.path), "--device", device]
        child += ["--prefill-rows", str(prefill_rows), "--part", part, "--into", str(plan)]
        with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
            allocated, resident = watch(process)
            output = process.stdout.read() if process.stdout else ""
        if process.returncode:
            raise click.ClickException(f"{bundle.path}: building {part} for {device} failed")
        made: dict[str, Any] = json.loads(output) | {
            "peak_allocated": allocated,
            "peak_resident": resident,
            "weights_size": next(
                f.size for f in bundle.manifest.files if f.path == f"{GRAPHS[part]}.data"
            ),
            "plan_size": plan.stat().st_size,
        }
        return made


def watch(process: subprocess.Popen[str]) -> tuple[int | None, int | None]:
    """(allocated, resident) at their peaks, until it ends; resident counts mapped files."""
    peaks: dict[str, int] = {}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            for name in ("RssAnon", "VmHWM"):
                peaks[name] = max(
                    peaks.get(name, 0), int(status.split(f"{name}:")[1].split()[0]) * 1024
                )
        except (OSError, IndexError):  # gone, or another system
            pass
        time.sleep(SAMPLING)
    return peaks.get("RssAnon"), peaks.get("VmHWM")


def record(bundle: Bundle, part: str, device: str, prefill_rows: int) -> dict[str, Any]:
    """What was built and on what, and `measure`'s figures."""
    manifest = bundle.manifest
    builder = plan_builder.choose_builder(bundle, device)
    return {
        "kind": KIND,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "part": part,
        "device": device,
        "key": dataclasses.asdict(builder.key),
        "precision": dataclasses.asdict(manifest.precision),
        "model": {
            "decoder_layers": manifest.model.text.layers,
            "hidden": manifest.model.text.hidden,
            "context": manifest.model.text.context,
            "vision_layers": manifest.model.vision.feature_layers,
            "vision_width": manifest.model.vision.width,
        },
        "prefill_rows": prefill_rows,
        **measure(bundle, part, device, prefill_rows),
        "machine": machine.describe(),
        "versions": {
            **manifest.tools,
            "python": platform.python_version(),
            builder.key.library: builder.key.version,
        },
    }


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True))
@click.option(
    "--device",
    "devices",
    multiple=True,
    required=True,
    help="As pulse-edge build has them; repeatable.",
)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(list(GRAPHS)), default=list(GRAPHS)
)
@click.option("--prefill-rows", default=plan_builder.PREFILL_ROWS, show_default=True)
@click.option(
    "--append",
    type=click.Path(path_type=Path),
    default=RESULTS,
    help="[default: results/engines.jsonl]",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    hidden=True,
    help="Build one plan there, in this process.",
)
def main(
    bundles: tuple[str, ...],
    devices: tuple[str, ...],
    parts: tuple[str, ...],
    prefill_rows: int,
    append: Path,
    into: Path | None,
) -> None:
    for path in bundles:
        bundle = open_bundle(path, check_hashes=False)
        for device in devices:
            plan_builder.check_device(device)
            for part in parts:
                if into:
                    build_here(bundle, part, device, prefill_rows, into)
                    return
                made = record(bundle, part, device, prefill_rows)
                append.parent.mkdir(exist_ok=True)
                with append.open("a") as file:
                    file.write(json.dumps(made) + "\n")
                click.echo(summary(made))


def build_here(bundle: Bundle, part: str, device: str, prefill_rows: int, plan: Path) -> None:
    builder = plan_builder.choose_builder(bundle, device)
    start = time.perf_counter()
    profiles = plan_builder.write_plan(bundle, builder, GRAPHS[part], plan, prefill_rows)
    click.echo(
        json.dumps(
            {"seconds": round(time.perf_counter() - start, 2), "profiles": len(profiles.spans)}
        )
    )


def summary(made: dict[str, Any]) -> str:
    peak = f"{made['peak_allocated'] / 1e9:.2f}" if made["peak_allocated"] else "?"
    library = "{library} {version} for SM{capability}".format(**made["key"])
    layers = made["model"]["vision_layers" if made["part"] == "vision" else "decoder_layers"]
    return (
        f"{made['part']} {made['precision']['vision' if made['part'] == 'vision' else 'decoder']}, "
        f"{layers} layers, {library}: {made['seconds']:.1f} s, {peak} GB allocated at the peak, "
        f"plan {made['plan_size'] / 1e9:.3f} GB "
        f"of {made['weights_size'] / 1e9:.3f} GB of weights, profiles {made['profiles']}"
    )


if __name__ == "__main__":
    main()
