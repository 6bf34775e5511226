"""`pulse-edge export`: a checkpoint becomes a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.exporter import check_plan_device, exporter, print_build_if_possible
from pulse_edge.cli.options import field_options
from pulse_edge.cli.terminal import show_json, show_text

PLANS = "tensorrt"  # a --target of the command alone: standard, and plans

# Options of the export stage, in the order of --help. `calibration` is four options of this
# command.
FIELDS = (
    "precision",
    "block_size",
    "target",
    "context",
    "cache",
    "head",
    "tower",
    "network",
    "prefill",
    "template",
    "recipe",
    "damping",
    "act_order",
    "budget_mib",
    "self_test",
    "turns",
    "force",
)


class ExportCommand(click.Command):
    """Makes its options from `ExportOptions` when somebody asks for them: the export is an extra,
    so this module cannot import it."""

    _params: list[click.Parameter]
    _complete: bool  # whether `_params` holds the options of the export stage

    @property
    def params(self) -> list[click.Parameter]:
        """Its own arguments and options, between them those of the export stage.

        Always the same list, because click adds to it.
        """
        if not self._complete:
            self._complete = True
            options = field_options(exporter("options").ExportOptions, FIELDS)
            for option in options:
                if option.name == "target" and isinstance(option.type, click.Choice):
                    option.type = click.Choice([*option.type.choices, PLANS])
                elif option.name == "context":
                    option.type = click.IntRange(1)
            self._params[2:2] = options  # after the arguments
        return self._params

    @params.setter
    def params(self, own: list[click.Parameter]) -> None:
        self._params = own
        self._complete = False


@click.command("export", cls=ExportCommand)
@click.argument("checkpoint", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--build",
    is_flag=True,
    help="With --target standard: build plans too, where this machine can.",
)
@click.option(
    "--device",
    metavar="NAME",
    help="With --target tensorrt: build plans for it, as `pulse-edge build` does.",
)
@click.option(
    "--calibration",
    metavar="DIR",
    help="w8a8, --recipe: ECG pages to calibrate on [default: simulated ones].",
)
@click.option(
    "--prompts",
    metavar="FILE",
    help="w8a8, --recipe: conversations about them, JSON as ECGInstruct's.",
)
@click.option("--samples", type=int, help="w8a8, --recipe: how many of them [default: 16].")
@click.option("--smoothing", type=float, help="w8a8: SmoothQuant's alpha, 0 is off [default: 0.8].")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def export_command(
    checkpoint: str,
    out: str,
    build: bool,
    device: str | None,
    calibration: str | None,
    prompts: str | None,
    samples: int | None,
    smoothing: float | None,
    as_json: bool,
    target: str,
    **options: Any,
) -> None:
    """Turn a LLaVA-style CHECKPOINT directory into the bundle OUT.

    The target tensorrt is the target standard with --build.
    """
    if smoothing is not None and options["recipe"] is not None:
        raise click.UsageError("--smoothing goes with --precision w8a8, not with --recipe")
    console = exporter("console")  # if the extra is missing, its error comes first
    with_plans = build or target == PLANS
    if build and target not in ("standard", PLANS):
        raise click.UsageError("--build goes with --target standard")
    if device is not None:
        if not with_plans:
            raise click.UsageError("--device goes with --target tensorrt, or --build")
        check_plan_device(device)
    recipe = {
        "images": Path(calibration) if calibration else None,
        "prompts": Path(prompts) if prompts else None,
        "samples": samples,
        "alpha": smoothing,
    }
    recipe = {name: value for name, value in recipe.items() if value is not None}
    summary = console.export_with_progress(
        checkpoint,
        out,
        target="standard" if target == PLANS else target,
        calibration=exporter("quantize.recipe").Recipe(**recipe) if recipe else None,
        **options,
    )
    if as_json:
        record = dataclasses.asdict(summary) | {"size": summary.size}
        show_json(record, indent=2)
    else:
        show_text(str(summary))
    if with_plans:
        print_build_if_possible(open_bundle(out, check_hashes=False), device, to_stderr=as_json)
