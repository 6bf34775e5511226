"""The `pulse-edge` command. The one place where errors become messages and exit codes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pulse_edge.answer import Answer
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.status import Status
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import ExportError, PulseEdgeError
from pulse_edge.model import EMBEDDED, Model, Stream, load
from pulse_edge.params import SamplingParams
from pulse_edge.units import size

REPORT_PROMPT = "Please write a clinical report based on this ECG image."  # ECGBench's
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
DEFAULTS = SamplingParams()

Command = Callable[..., Any]


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: runs a command, prints its error in one line, exits with the error's code."""
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args, prog_name="pulse-edge", standalone_mode=False) or 0
    except PulseEdgeError as error:
        click.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pulse-edge", prog_name="pulse-edge")
def cli() -> None:
    """Answer questions about ECG images, on a device.

    Research use only: not a medical device.
    """


def engine_options(command: Command) -> Command:
    """How to run; the command receives `options`."""

    @click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
    @click.option("--threads", default=0, show_default=True, help="CPU threads; 0 lets the engine choose.")
    @click.option("--context", type=int, help="Cap on prompt + answer, in tokens; lowers memory.")
    @click.option(
        "--prefill-chunk",
        type=int,
        help="Prompt tokens at a time; 0: all [default: 512 on a CPU, 2048 on a GPU].",
    )
    @functools.wraps(command)
    def wrapped(device: str, threads: int, context: int | None, prefill_chunk: int | None, **rest: Any) -> Any:
        return command(options=EngineOptions(device, threads, context, prefill_chunk), **rest)

    return wrapped


def model_options(command: Command) -> Command:
    """--model and how to run it; the command receives `open_model`, a function that loads."""

    @click.option("-m", "--model", "bundle", metavar="BUNDLE", help="Bundle directory [default: the embedded one].")
    @engine_options
    @functools.wraps(command)
    def wrapped(bundle: str | None, options: EngineOptions, **rest: Any) -> Any:
        with Status() as status:

            def open_model() -> Model:
                return load(bundle or default_bundle(), **dataclasses.asdict(options), progress=status)

            return command(open_model=open_model, status=status, **rest)

    return wrapped


def sampling_options(command: Command) -> Command:
    """One option for each field of `SamplingParams`; the command receives them as `params`."""

    @functools.wraps(command)
    def wrapped(**options: Any) -> Any:
        params = {f.name: options.pop(f.name) for f in dataclasses.fields(SamplingParams)}
        return command(params=params, **options)

    for name, help_text in (
        ("seed", "Seed of the sampler."),
        ("repetition_penalty", "Over 1 discourages repeating; 1 is off."),
        ("top_k", "Sample from the k likeliest; 0 is off."),
        ("top_p", "Sample from the likeliest that make up p; 1 is off."),
        ("temperature", "0 is greedy."),
        ("max_new_tokens", "Longest answer."),
    ):
        default = getattr(DEFAULTS, name)
        wrapped = click.option(
            "--" + name.replace("_", "-"), type=type(default), default=default, show_default=True, help=help_text
        )(wrapped)
    wrapped = click.option("--speculate", is_flag=True, help="Draft from earlier text and verify it.")(wrapped)
    return click.option("--stop", multiple=True, help="End the answer before this text; repeatable.")(wrapped)


@cli.command()
@click.argument("image", type=click.Path())
@click.option("-q", "--question", default=REPORT_PROMPT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON (docs/answer.schema.json).")
@click.option("--stream/--no-stream", default=True, show_default=True, help="Print text while it is generated.")
@model_options
@sampling_options
def ask(
    image: str, question: str, as_json: bool, stream: bool, open_model: Callable[[], Model], status: Status,
    params: dict[str, Any],
) -> None:  # fmt: skip
    """Answer a QUESTION about the ECG page IMAGE (PNG, JPEG, TIFF, BMP, WebP).

    IMAGE may also be a 12-lead recording (DICOM), which is drawn first, as `pulse-edge draw` does.
    """
    SamplingParams(**params)  # a wrong parameter is refused before the model is loaded
    page = page_of(image)
    pieces = open_model().stream(page, question, **params)
    if as_json:
        click.echo(json.dumps(pieces.answer.to_dict(), indent=2))
        return
    say(pieces, status, stream)


@cli.command()
@click.argument("image", type=click.Path())
@model_options
@sampling_options
def chat(image: str, open_model: Callable[[], Model], status: Status, params: dict[str, Any]) -> None:
    """Talk about the ECG page IMAGE. Ctrl-C stops an answer, Ctrl-D ends the chat."""
    conversation = open_model().chat(page_of(image))
    click.echo(NOTICE, err=True)
    while True:
        status.clear()
        try:
            question = click.prompt(">", prompt_suffix=" ").strip()
        except click.Abort:
            click.echo()
            return
        stream = conversation.stream(question, **params)
        try:
            say(stream, status, True)
        except KeyboardInterrupt:
            stream.close()
            click.echo(" [stopped]")


def say(stream: Stream, status: Status, as_it_comes: bool) -> None:
    """Print an answer and, below it, what produced it."""
    for piece in stream:
        status.clear()
        if as_it_comes:
            click.echo(piece, nl=False)
            sys.stdout.flush()
    status.clear()
    click.echo("" if as_it_comes else stream.text)
    click.secho(footer(stream.answer), dim=True)


def footer(answer: Answer) -> str:
    """The line under every answer: what produced it, how fast, and that it is for research only."""
    made, t = answer.provenance, answer.timings
    engine = made["engine"]
    speed = f", {1 / t.tpot:.0f} tokens/s" if t.tpot else ""
    first = f"{t.ttft:.2f} s to first token" if t.ttft else "no token"
    return (
        f"[{made['checkpoint']['name']} {made['precision']['name']}, bundle {made['bundle'][:12]}, {engine['engine']} "
        f"{engine['engine_version']} on {engine['device']}; {first}{speed}; ended by {answer.finish_reason}]\n{NOTICE}"
    )


def page_of(path: str) -> Any:
    """An image's path as it is; a recording drawn as a page."""
    from pulse_edge.ecg.drawing import draw_page
    from pulse_edge.ecg.readers.registry import is_recording, read_recording

    return draw_page(read_recording(path)) if is_recording(path) else path


@cli.command()
@click.argument("recording", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--layout", type=click.Choice(["3x4", "6x2", "12x1"]), default="3x4", show_default=True)
@click.option("--speed", type=click.Choice(["25", "50"]), default="25", show_default=True, help="mm/s")
@click.option("--gain", type=click.Choice(["5", "10", "20"]), default="10", show_default=True, help="mm/mV")
@click.option("--dpi", default=200, show_default=True)
@click.option("--header", help="Text above the traces; nothing is printed there otherwise.")
def draw(recording: str, out: str, layout: str, speed: str, gain: str, dpi: int, header: str | None) -> None:
    """Draw the 12-lead RECORDING (DICOM waveform) as the ECG page OUT (.png)."""
    from pulse_edge.ecg.drawing import draw_page
    from pulse_edge.ecg.layout import PageStyle
    from pulse_edge.ecg.readers.registry import read_recording

    style = PageStyle(layout=layout, speed=float(speed), gain=float(gain), dpi=dpi)
    read = read_recording(recording)
    try:
        draw_page(read, style, header).save(out, dpi=(dpi, dpi))
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise PulseEdgeError(f"{out}: cannot be written ({error})") from None
    missing = f"; not recorded: {' '.join(read.missing)}" if read.missing else ""
    click.echo(f"{out}: {style.size[0]} x {style.size[1]} pixels, {read.duration:.1f} s at {read.rate:g} Hz{missing}")


@cli.command()
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def info(bundle: str | None, as_json: bool) -> None:
    """Show what a BUNDLE is, after checking it."""
    with Status() as status:
        opened = open_bundle(bundle or default_bundle(), progress=status)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(opened.manifest), indent=2))
        return
    for name, value in describe(opened):
        click.echo(f"{name:<12} {value}")


@cli.command()
@click.argument("checkpoint", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8", "int4", "w8a8"]), default="int8", show_default=True
)
@click.option("--block-size", type=click.Choice(["32", "64", "128"]), help="[default: 32 for int4, else 128]")
@click.option("--target", type=click.Choice(["cpu", "cuda", "standard", "tensorrt"]), default="cpu", show_default=True)
@click.option(
    "--device", metavar="NAME", help="With --target tensorrt: build plans for it, as `pulse-edge build` does."
)
@click.option("--context", type=click.IntRange(1), help="Longest prompt + answer, in tokens [default: the model's].")
@click.option("--cache", type=click.Choice(["float", "int8"]), default="float", show_default=True, help="KV cache.")
@click.option("--head", type=click.Choice(["int8", "int4"]), help="Output matrix of a quantized model [default: int8].")
@click.option(
    "--tower",
    type=click.Choice(["int8", "fp16"]),
    help="Vision tower and projector [default: the precision's; fp16 for int8 and int4 on cuda].",
)
@click.option("--calibration", metavar="DIR", help="w8a8: ECG pages to calibrate on [default: simulated ones].")
@click.option("--prompts", metavar="FILE", help="w8a8: conversations about them, JSON as ECGInstruct's.")
@click.option("--samples", type=int, help="w8a8: how many of them to use [default: 16].")
@click.option("--smoothing", type=float, help="w8a8: SmoothQuant's alpha, 0 is off [default: 0.8].")
@click.option("--force", is_flag=True, help="Replace OUT if it is a bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def export(
    checkpoint: str, out: str, precision: str, block_size: str | None, target: str, device: str | None,
    context: int | None, cache: str, head: str | None, tower: str | None, calibration: str | None,
    prompts: str | None, samples: int | None, smoothing: float | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn a LLaVA-style CHECKPOINT directory into the bundle OUT.

    The target tensorrt is the target standard, and plans where this machine can build them.
    """
    console = exporting("console")  # says what to install, where it is not
    if device is not None:
        if target != "tensorrt":
            raise click.UsageError("--device goes with --target tensorrt")
        exporting("plan.builder").check_device(device)
    recipe = {"images": calibration and Path(calibration), "prompts": prompts and Path(prompts), "samples": samples,
              "alpha": smoothing}  # fmt: skip
    given = {name: value for name, value in recipe.items() if value is not None}
    summary = console.export_with_progress(
        checkpoint, out, precision=precision, target="standard" if target == "tensorrt" else target, force=force,
        block_size=int(block_size) if block_size else None, context=context,
        cache=cache, head=head, tower=tower,
        calibration=exporting("quantize.calibrate").Recipe(**given) if given else None,
    )  # fmt: skip
    click.echo(json.dumps(dataclasses.asdict(summary) | {"size": summary.size}, indent=2) if as_json else str(summary))
    if target == "tensorrt":
        console.build_if_possible(open_bundle(out, check_hashes=False), device, to_stderr=as_json)


@cli.command()
@click.argument("bundle")
@click.option("--device", metavar="NAME", help="Build for this device [default: the GPU in this machine].")
@click.option(
    "--prefill-rows",
    type=click.IntRange(1),
    help="Tokens of a prompt at a time; fewer need less memory "
    "[default: 2048 on a device with 16 GB or more, else 512].",
)
def build(bundle: str, device: str | None, prefill_rows: int | None) -> None:
    """Build TensorRT plans for a BUNDLE exported with --target tensorrt, on the device or ahead of time for it."""
    engine = exporting("plan.builder")
    if device is not None:
        engine.check_device(device)
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
    exporting("console").build_with_progress(opened, engine.choose_builder(opened, device), prefill_rows)


@cli.command()
@click.argument("bundle")
@click.option("--against", metavar="CHECKPOINT", type=click.Path(), help="Compare with this checkpoint.")
@click.option("--image", type=click.Path(), help="Page to compare on [default: a drawn test page].")
@click.option("--tokens", default=64, show_default=True, help="Greedy tokens to compare.")
@click.option("--threads", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def verify(bundle: str, against: str | None, image: str | None, tokens: int, threads: int, as_json: bool) -> None:
    """Check a BUNDLE's integrity, or compare it with its checkpoint, stage by stage."""
    with Status() as status:
        opened = open_bundle(bundle, progress=status)
        status.clear()
        if against is None:
            files = len(opened.manifest.files)
            click.echo(
                json.dumps({"bundle": opened.digest, "files": files, "intact": True})
                if as_json
                else f"{opened.path}: intact ({files} files, {size(opened.size)}, seal {opened.digest[:16]}…)"
            )
            return
        report = exporting("verify").compare(opened, against, image, tokens, threads, status)
    click.echo(json.dumps(dataclasses.asdict(report), indent=2) if as_json else str(report))
    if not report.passed:
        raise PulseEdgeError(f"{bundle} does not agree with {against}: {report.verdict}")


@cli.command("eval")
@click.argument("bundles", nargs=-1)
@click.option("--pages", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Another held-out set [default: the fixed one].")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print scores and confusions as JSON.")
def evaluate(bundles: tuple[str, ...], pages: int, seed: int | None, workers: int, device: str, as_json: bool) -> None:
    """Score BUNDLES on held-out simulated ECG pages, side by side, each against the first.

    The questions are those that pulse-nano is trained on; no score says anything about patients.
    """
    from pulse_edge.evaluate.run import evaluate_bundles
    from pulse_edge.evaluate.scoring import report_on, table
    from pulse_edge.simulation.cases import SEED

    paths = [str(bundle) for bundle in bundles or (default_bundle(),)]
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        raise click.UsageError("bundles need different names, which head the columns")
    seed = SEED if seed is None else seed
    with Status() as status:
        for path in paths:
            open_bundle(path, progress=status)  # a broken one is refused here, not in a worker
        scores = evaluate_bundles(paths, pages, seed, workers, status, device)
    report = report_on(names, scores, pages, seed)
    click.echo(json.dumps(report, indent=1) if as_json else f"{table(report['scores'])}\n\n{report['notice']}")


def numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas between; an empty text is none of them."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers like 128,512") from None


@cli.command()
@click.argument("bundle", required=False)
@click.option("--image", type=click.Path(), help="Page to ask about [default: a sample page].")
@click.option("-r", "--repetitions", type=int, help="Of every measurement [default: 5; quick: 2].")
@click.option("--warmup", type=int, help="Repetitions before those, thrown away [default: 1].")
@click.option("-n", "--new-tokens", type=int, help="Of a request and of a tg run [default: 128; quick: 16].")
@click.option("--prompt-lengths", callback=numbers, help="Of pp runs [default: 128,512,1024,2048,2933; quick: 128].")
@click.option("--depths", callback=numbers, help="Cached tokens before tg runs [default: 0,512,3000; quick: 0].")
@click.option("--quick", is_flag=True, help="A smoke test: few, short repetitions; rough figures.")
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON (docs/bench.schema.json).")
@click.option("--append", metavar="FILE", type=click.Path(), help="Add the record to this file, a line of JSON each.")
@click.option("--compare", metavar="BASELINE", type=click.Path(), help="A record (JSON), or a file's last (JSONL).")
@click.option("--fail-over", default="10%", show_default=True, help="Exit with 9 where a median is worse by more.")
def bench(
    bundle: str | None, image: str | None, quick: bool, options: EngineOptions, as_json: bool, append: str | None,
    compare: str | None, fail_over: str, **settings: Any,
) -> None:  # fmt: skip
    """Measure latency and memory of BUNDLE on this machine, from a whole request down to the engine."""
    from pulse_edge.measure import baseline, tables
    from pulse_edge.measure import bench as benchmark

    given = {name: value for name, value in settings.items() if value is not None}
    wanted = dataclasses.replace(benchmark.QUICK if quick else benchmark.FULL, **given)
    against = baseline.Baseline(compare, fail_over) if compare else None  # what is wrong with either is said before
    if append:
        baseline.append(append)
    with Status() as status:
        record = benchmark.run(bundle or default_bundle(), options, wanted, image or benchmark.PAGE, status)
    click.echo(json.dumps(record) if as_json else tables.tables(record))
    if append:
        baseline.append(append, record)
    if against:
        click.echo(against.table(record), err=as_json)
        against.check(record)


@cli.command()
@click.option("--model", "model", default="pulse-7b", show_default=True, help="pulse-7b, or a bundle directory.")
@click.option("--device", default="this", show_default=True, help="this (the CPU here), or a name that --list shows.")
@click.option("--context", type=click.IntRange(1), help="Longest prompt + answer, in tokens [default: the model's].")
@click.option("--threads", default=0, show_default=True, help="With --device this: of the peaks.")
@click.option("--list", "as_list", is_flag=True, help="List the devices.")
@click.option("--json", "as_json", is_flag=True, help="Print the predictions as JSON.")
def fit(model: str, device: str, context: int | None, threads: int, as_list: bool, as_json: bool) -> None:
    """PREDICT what fits on a device, and the latency there. Nothing is run, so it needs no such device."""
    from pulse_edge.measure import roofline

    if as_list:
        click.echo(roofline.device_table())
        return
    geometry, ways = roofline.PULSE_7B, roofline.WAYS
    if model != geometry.name:
        bundle = open_bundle(model, check_hashes=False)
        geometry = roofline.of_bundle(bundle)
        ways = (roofline.way_of_bundle(bundle, geometry),)
    chosen = roofline.device_named(device, threads)
    found = roofline.predictions(geometry, chosen, ways, context)
    if as_json:
        click.echo(json.dumps(roofline.report(geometry, chosen, found, context), indent=1))
    else:
        click.echo(roofline.text(geometry, chosen, found, context))


def exporting(name: str) -> Any:
    """A module of the export, which is an extra."""
    try:
        return importlib.import_module(f"pulse_export.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("pulse_edge"):
            raise
        raise ExportError(f"{error.name} is not installed; pip install 'pulse-edge[export]'") from None


def default_bundle() -> Path:
    if not EMBEDDED.is_dir():
        raise click.UsageError("this build ships no embedded model; name a bundle with --model")
    return EMBEDDED
