"""Options that several commands share. Those of a record are made from its fields, so that a new
field is a new option without a line here."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import click

from pulse_edge.assets import EMBEDDED
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.table import DEVICES, ENGINES
from pulse_edge.known import QUANTITIES, SHORT_NAMES
from pulse_edge.params import ALPHA_MODES, AlphaMode, GenerationParams
from pulse_edge.system import usable_cores

if TYPE_CHECKING:
    from pulse_edge.model import Model

Command = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """What the commands that load a model take besides how to run it. See `pulse_edge.load`."""

    alpha: AlphaMode = dataclasses.field(default="white", metadata={"choices": ALPHA_MODES})
    expect: str | None = None
    trusted_keys: str | None = None
    audit: str | None = None


@dataclasses.dataclass(frozen=True)
class TimeOptions:
    """How long a request may take, once the model is loaded. See `Model.ask`."""

    deadline: float | None = None
    best_effort: bool = False

    @property
    def terms(self) -> dict[str, Any]:
        """Keywords of `Model.ask`."""
        return {"deadline_s": self.deadline, "best_effort": self.best_effort}


def _one_of(values: Sequence[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}."


class CoreCount(click.IntRange):
    """A number of threads: at most the logical cores, because more only wait for each other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, capped with a warning."""
        number: int = super().convert(value, param, ctx)
        if ctx is not None and ctx.resilient_parsing:  # a shell asks
            return number
        return capped_threads(number)


def capped_threads(number: int) -> int:
    """A number of threads, capped at the logical cores with a warning on stderr."""
    most = usable_cores()
    if number > most:
        cores = "the one logical core" if most == 1 else f"the {most} logical cores"
        show(f"warning: {number} threads are more than {cores}; {most} will run", err=True)
    return min(number, most)


# What --help says of a field. A field's own metadata "help" comes first.
HELP = {
    # EngineOptions
    "device": _one_of(DEVICES),
    "engine": _one_of(ENGINES),
    "threads": "CPU threads; 0 lets the engine choose.",
    "context": "Cap on prompt + answer, in tokens; lowers memory.",
    "prefill_chunk": "Prompt tokens at a time; 0: all [default: 512 on a CPU, 2048 on a GPU].",
    # LoadOptions
    "alpha": "Transparent pixels of a page: on white, or dropped as the authors' code does.",
    "expect": "Seal that the bundle must have, 64 hex digits.",
    "trusted_keys": "Folder of public keys; one of them must have signed the bundle.",
    "audit": "Log file that gets a line for each answer, without its text.",
    # TimeOptions
    "deadline": "Seconds for the request, once the model is loaded; then it ends with what it has.",
    "best_effort": "Run it also if it is predicted to miss the deadline.",
    # GenerationParams
    "max_new_tokens": "Longest answer.",
    "temperature": "0 is greedy.",
    "top_p": "Sample from the likeliest that make up p; 1 is off.",
    "top_k": "Sample from the k likeliest; 0 is off.",
    "repetition_penalty": "Over 1 discourages repeating; 1 is off.",
    "seed": "Seed of the sampler.",
    "stop": "End the answer before this text; repeatable.",
    "speculate": "Draft from earlier text and verify it.",
}


TYPES: dict[str, CoreCount] = {"threads": CoreCount(0)}  # of fields that need their own


def field_options(record: type, only: Iterable[str] | None = None) -> list[click.Option]:
    """Options made from the fields of a dataclass, in their order.

    A field `top_k: int = 0` becomes `--top-k INTEGER`. `X | None` shows no default, `bool` is a
    flag, a tuple of texts may be given several times. Metadata may hold "help" and "choices".

    Args:
        record: a dataclass whose fields all have defaults.
        only: names of fields; those that the record does not have are left out. None: all.
    """
    types = get_type_hints(record)
    names = None if only is None else tuple(only)
    return [
        click.Option(["--" + field.name.replace("_", "-")], **_settings(field, types[field.name]))
        for field in dataclasses.fields(record)
        if names is None or field.name in names
    ]


def _settings(field: dataclasses.Field[Any], kind: Any) -> dict[str, Any]:
    """Keywords of `click.Option`."""
    settings: dict[str, Any] = {"help": field.metadata.get("help", HELP.get(field.name))}
    if kind is bool:
        return settings | {"is_flag": True}
    if get_origin(kind) is tuple:
        return settings | {"multiple": True}
    if field.default is None:
        settings["type"] = next(arm for arm in get_args(kind) if arm is not type(None))
    else:
        settings |= {"type": type(field.default), "default": field.default, "show_default": True}
    if field.name in TYPES:
        settings["type"] = TYPES[field.name]
    if "choices" in field.metadata:
        # Choices are texts to click; a value becomes the field's type again.
        convert = settings["type"]
        settings["type"] = click.Choice([str(choice) for choice in field.metadata["choices"]])
        settings["callback"] = lambda _context, _option, text: text and convert(text)
    return settings


def options_from(
    record: type, argument: str, only: Iterable[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options of `field_options`; it receives the record itself.

    Args:
        record: see `field_options`. What it raises for an illegal value passes through the command.
        argument: the command's parameter that receives a `record`.
        only: see `field_options`.
    """
    options = field_options(record, only)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_record(**values: Any) -> Any:
            fields = {option.name: values.pop(option.name) for option in options if option.name}
            return command(**{argument: record(**fields)}, **values)

        wrapped: Command = with_record
        for option in reversed(options):  # the last decorator is the first in --help
            wrapped = _attach(option)(wrapped)
        return wrapped

    return decorate


def _attach(option: click.Option) -> Callable[[Command], Command]:
    """A decorator like `click.option`, for an option that is there already."""
    return click.option(*option.opts, cls=lambda *_, **__: option)  # type: ignore[arg-type]


def engine_options(command: Command) -> Command:
    """Options that say how to run; the command receives `options`, an `EngineOptions`.

    `slots` is none of them: a command asks one question at a time. `serve` has its own setting.
    """
    names = [field.name for field in dataclasses.fields(EngineOptions) if field.name != "slots"]
    return options_from(EngineOptions, "options", names)(command)


def generation_options(command: Command) -> Command:
    """Options that say how to generate; the command receives `params`, a `GenerationParams`."""
    return options_from(GenerationParams, "params")(command)


def time_options(command: Command) -> Command:
    """Options that bound a request's time; the command receives `time`, a `TimeOptions`."""
    return options_from(TimeOptions, "time")(command)


def model_options(command: Command) -> Command:
    """--model, and options that say how to run it.

    The command receives `open_model`, a function that loads the model, and `status`, the progress
    line that loading writes to. `open_model` takes further keywords of `load`.
    """

    @click.option(
        "-m",
        "--model",
        "bundle",
        metavar="BUNDLE",
        help="Bundle directory [default: the embedded one].",
    )
    @engine_options
    @options_from(LoadOptions, "conditions")
    @functools.wraps(command)
    def wrapped(
        bundle: str | None, options: EngineOptions, conditions: LoadOptions, **rest: Any
    ) -> Any:
        with Status() as status:

            def open_model(**more: Any) -> Model:
                from pulse_edge.model import load

                path = default_bundle() if bundle is None else bundle
                keywords = dataclasses.asdict(options) | dataclasses.asdict(conditions)
                model = load(path, **keywords | {"progress": status} | more)
                status.expect(model.runner.rates.stage)
                return model

            return command(open_model=open_model, status=status, **rest)

    return wrapped


def known_option(command: Command) -> Command:
    """--known; the command receives `known`, texts for `parse_known`."""
    units = ", ".join(f"{name} ({QUANTITIES[whole].unit})" for name, whole in SHORT_NAMES.items())
    return click.option(
        "--known",
        multiple=True,
        metavar="NAME=VALUE,...",
        help=f"Values that you have, for the prompt, as hr=72,pr=160: {units}, or whole names.",
    )(command)


def default_bundle() -> Path:
    """The embedded bundle. Raises `click.UsageError` if this build ships none."""
    if not EMBEDDED.is_dir():
        raise click.UsageError("this build ships no embedded model; name a bundle with --model")
    return EMBEDDED


def numbers(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Callback of an option that lists whole numbers, separated by commas; "" is an empty list."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers like 128,512") from None
