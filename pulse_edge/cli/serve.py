"""`pulse-edge serve`: a model behind HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli.options import model_options, options_from
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show
from pulse_edge.errors import ParameterError, PulseEdgeError
from pulse_edge.guarded import read_guarded
from pulse_edge.serve.config import ServeConfig

if TYPE_CHECKING:
    from pulse_edge.model import Model

LARGEST_FILE = 1 << 16  # bytes
_VALUES = (str, int, float, bool)


class LogHandler(logging.Handler):
    """Prints the server's log to stderr, a line an event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one event."""
        show(record.getMessage(), err=True)


def _use_config(context: click.Context, _option: click.Parameter, path: str | None) -> None:
    """Make the values of a file the defaults of the command's options."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_config_values(context, Path(path))}


def _config_values(context: click.Context, path: Path) -> dict[str, Any]:
    """Parameters of the command by name, as click wants them."""
    options = _options_by_name(context.command)
    values: dict[str, Any] = {}
    for key, value in _read_table(path).items():
        if key not in options:
            legal = ", ".join(sorted(options))
            raise ParameterError(f"{path}: unknown key {key!r:.60}; there are {legal}")
        if not isinstance(value, _VALUES):
            raise ParameterError(f"{path}: {key} must be a text, a number, or true or false")
        values[options[key]] = value
    return values


def _read_table(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        raw = read_guarded(path, LARGEST_FILE, ParameterError)
        return tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{path}: no such file; write the server's settings into it") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{path}: not valid TOML ({error}); correct it") from None


def _options_by_name(command: click.Command) -> dict[str, str]:
    """Names of long options as a file has them -> the command's parameters."""
    names = {}
    for option in command.params:
        long = [word[2:].replace("-", "_") for word in option.opts if word.startswith("--")]
        if long and option.name and long[0] not in ("config", "help"):
            names[long[0]] = option.name
    return names


@click.command("serve")
@click.option(
    "--config",
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_use_config,
    help="TOML file with options by name, such as port = 8000; the command line goes first.",
)
@options_from(ServeConfig, "config")
@model_options
def serve_command(config: ServeConfig, open_model: Callable[..., Model], status: Status) -> None:
    """Serve a model to OpenAI's clients and to carts, over HTTP.

    It listens on this machine only, unless --host says otherwise; then it needs keys. SIGTERM lets
    running requests end.
    """
    try:
        from pulse_edge.serve.server import run_server
    except ImportError as error:
        raise PulseEdgeError(
            f"serving needs {error.name}: pip install 'pulse-edge[server]'"
        ) from error
    from pulse_edge.serve.keys import read_keys
    from pulse_edge.serve.listener import open_listener, url_of
    from pulse_edge.serve.logs import LOGGER
    from pulse_edge.serve.memory import share_one_arena
    from pulse_edge.serve.stages import Stages

    share_one_arena()
    read_keys(config.key_path)  # before the bundle takes seconds
    listener = open_listener(config)
    stages = Stages()
    model = open_model(
        progress=stages,
        queue_limit=config.queue + config.pages,
        kept_bytes=config.kept_bytes,
        slots=config.slots,
    )
    status.clear()
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(LogHandler())
    show(f"listening on {url_of(listener)}")
    run_server(model, config, listener, stages)
