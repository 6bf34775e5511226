"""Load on a server: latency percentiles at given rates, goodput, and what the server adds.

    python -m benchmarks.serve http://127.0.0.1:8000 --rates 0.5,1,2 --requests 200 --deadline 20
    python -m benchmarks.serve --spawn my-bundle --clients 1,4,16
    python -m benchmarks.serve --spawn embedded --added 50

Open loop (`--rates`, requests a second at random times) and closed loop (`--clients`). `--added`
asks the server and a model in this process in turns; both use `--threads`. On one machine
this program takes some of its cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

import pulse_edge
from benchmarks.serve import KIND, SCHEMA
from benchmarks.serve.added import measure_added, rows_of_added
from benchmarks.serve.client import open_client, open_plainly
from benchmarks.serve.loops import arrival_times, closed_loop, open_loop
from benchmarks.serve.spawned import spawned_server
from benchmarks.serve.summary import line_of, rows_of, summarise
from benchmarks.serve.workload import Mix, Workload
from pulse_edge import system as machine
from pulse_edge.errors import PulseEdgeError
from pulse_edge.measure.tables import table

EMBEDDED = "embedded"  # as --spawn


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        rates: requests a second of open loops.
        clients: of closed loops.
        requests: of each loop.
        mix: of kinds of requests.
        max_tokens: of each answer.
        seed: of arrivals and requests.
        width: of pages in pixels; None for the sample page's own.
        deadline: seconds, for goodput.
        enforce: let requests carry the deadline.
        timeout: seconds without a byte.
        added: repetitions of the comparison with a model in this process; 0 for none.
        threads: of that model and of a spawned server.
    """

    rates: tuple[float, ...]
    clients: tuple[int, ...]
    requests: int
    mix: Mix
    max_tokens: int
    seed: int
    width: int | None
    deadline: float | None
    enforce: bool
    timeout: float
    added: int
    threads: int


async def run_plan(
    url: str,
    plan: Plan,
    key: str | None,
    model: pulse_edge.Model | None,
    told: Callable[[int], Any],
) -> dict[str, Any]:
    """Run the loops one after the other, and compare with `model` if there is one."""
    runs: list[dict[str, Any]] = []
    deadline = plan.deadline if plan.enforce else None
    own = time.time_ns() % 10**9  # the server may have seen the pages of an earlier run

    async with open_client(url, plan.timeout, key) as client:
        served = await served_model(client)

        def workload(number: int) -> Workload:
            run = own + number
            tokens = plan.max_tokens
            return Workload(plan.mix, tokens, served, plan.seed, plan.width, deadline, run)

        for number, rate in enumerate(plan.rates):
            times = arrival_times(rate, plan.requests, plan.seed)
            run = await open_loop(client, iter(workload(number)), times, told)
            runs.append({"loop": "open", "rate": rate, **summarise(run, plan.deadline)})
        for number, clients in enumerate(plan.clients, len(plan.rates)):
            requests = iter(workload(number))
            run = await closed_loop(client, requests, clients, plan.requests, told)
            runs.append({"loop": "closed", "clients": clients, **summarise(run, plan.deadline)})
        added = None
        if model is not None:
            more = workload(len(runs))
            with closing(open_plainly(url, plan.timeout)) as connection:
                added = measure_added(connection, model, more, plan.added, plan.max_tokens, key)
    return {"runs": runs, "added": added, "served": served}


async def served_model(client: httpx.AsyncClient) -> str:
    """What a server calls its model.

    Raises:
        PulseEdgeError: it does not answer, or not as OpenAI's API does.
    """
    try:
        listed = await client.get("/v1/models")
        listed.raise_for_status()
        return str(listed.json()["data"][0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PulseEdgeError(f"{client.base_url}: no models are listed there ({error!r})") from None


def text_of(record: dict[str, Any]) -> str:
    """A record for people."""
    parts = [
        f"{record['served']} at {record['pulse_edge']}, {record['machine']['name']}, "
        f"{record['machine']['usable_cores']} cores, load {record['machine']['load_average']}, "
        f"threads {record['plan']['threads']}, {record['plan']['requests']} requests a run, "
        f"seed {record['plan']['seed']}"
    ]
    for run in record["runs"]:
        open_one = run["loop"] == "open"
        title = f"open loop, {run['rate']:g}/s" if open_one else f"{run['clients']} clients"
        parts.append(f"{title}: {line_of(run)}\n{table(rows_of(run))}")
    if record["added"]:
        parts.append(table(rows_of_added(record["added"])))
    return "\n\n".join(parts)


def _numbers(cast: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    def parse(_: click.Context, __: click.Parameter, value: str) -> tuple[Any, ...]:
        try:
            numbers = tuple(cast(part) for part in value.split(",") if part)
        except ValueError:
            raise click.BadParameter(f"{value}: numbers with commas between, please") from None
        if any(not 0 < number < float("inf") for number in numbers):
            raise click.BadParameter(f"{value}: numbers over 0, please")
        return numbers

    return parse


def _mix(_: click.Context, __: click.Parameter, value: str) -> Mix:
    try:
        cold, repeated, text = map(float, value.split(","))
        return Mix(cold, repeated, text)
    except ValueError as error:
        raise click.BadParameter(f"{value} is not COLD,REPEATED,TEXT: {error}") from None


@click.command(context_settings={"show_default": True})
@click.argument("url", required=False)
@click.option("--spawn", metavar="BUNDLE", help=f"Start a server; '{EMBEDDED}' is pulse-nano.")
@click.option("--rates", default="", callback=_numbers(float), help="Of open loops, per second.")
@click.option("--clients", default="", callback=_numbers(int), help="Of closed loops.")
@click.option("--requests", default=100, type=click.IntRange(min=1), help="Of each loop.")
@click.option("--mix", default="1,2,1", callback=_mix, help="Weights of cold, repeated, text.")
@click.option("--max-tokens", default=64, type=click.IntRange(min=2))
@click.option("--width", type=click.IntRange(min=50), help="Of pages, in pixels.")
@click.option("--seed", default=0)
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="For goodput, s.")
@click.option("--enforce", is_flag=True, help="Requests carry the deadline.")
@click.option("--timeout", default=600.0, help="Seconds without a byte.")
@click.option("--added", default=0, help="Repetitions of the comparison with Model.stream.")
@click.option("--model", metavar="BUNDLE", help="Of that comparison, with a URL.")
@click.option("--threads", default=1, type=click.IntRange(min=1))
@click.option("--queue", default=64, type=click.IntRange(min=0), help="Of a spawned server.")
@click.option("--key-file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of tables.")
@click.option("--append", type=click.Path(path_type=Path, dir_okay=False))
def main(
    url: str | None,
    spawn: str | None,
    model: str | None,
    queue: int,
    key_file: Path | None,
    as_json: bool,
    append: Path | None,
    **plan_options: Any,
) -> None:
    """Put load on the server at URL, or on one that is started for it."""
    if (url is None) == (spawn is None):
        raise click.UsageError("name a server's URL, or a bundle with --spawn")
    plan = Plan(**plan_options)
    if plan.added and url is not None and model is None:
        raise click.UsageError("--added needs --model, the bundle that the server runs")
    bundle = spawn if spawn is not None else model
    directory = None if bundle in (EMBEDDED, None) else bundle
    server: AbstractContextManager[str] = nullcontext(url or "")
    if spawn is not None:
        server = spawned_server(directory, plan.threads, queue)
    key = key_file.read_text("utf-8").split()[0] if key_file else None
    count = (len(plan.rates) + len(plan.clients)) * plan.requests
    host = machine.describe()
    try:
        with server as address, click.progressbar(length=count, file=sys.stderr) as bar:
            compared = pulse_edge.load(directory, threads=plan.threads) if plan.added else None
            figures = asyncio.run(run_plan(address, plan, key, compared, bar.update))
    except PulseEdgeError as error:
        raise click.ClickException(str(error)) from None
    record = {
        "kind": KIND,
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pulse_edge": pulse_edge.__version__,
        "machine": host,
        "spawned": spawn is not None,
        "queue": queue if spawn is not None else None,
        "plan": asdict(plan),
        **figures,
    }
    if append:
        append.parent.mkdir(parents=True, exist_ok=True)
        with append.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    click.echo(json.dumps(record) if as_json else text_of(record))


if __name__ == "__main__":
    main()
