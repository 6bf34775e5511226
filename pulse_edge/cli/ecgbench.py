"""`pulse-edge ecgbench`: the benchmark that PULSE was measured on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli.ecgbench_runs import model_opener, run_all, server_opener
from pulse_edge.cli.options import default_bundle, engine_options
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json, show_text
from pulse_edge.engines.options import EngineOptions
from pulse_edge.evaluate.ecgbench.ask import MODES

if TYPE_CHECKING:
    from pulse_edge.evaluate.ecgbench.ask import Mode

KEY_VARIABLE = "PULSE_EDGE_API_KEY"
CONFIGS_HELP = "Configurations, with commas between them [default: all that are there]."
Command = Callable[..., Any]


def server_options(command: Command) -> Command:
    """--base-url and --api-key, of the two commands that may reach a network."""
    key = click.option(
        "--api-key", envvar=KEY_VARIABLE, help=f"Key of the server [default: ${KEY_VARIABLE}]."
    )
    return click.option("--base-url", metavar="URL", help="An OpenAI-compatible server.")(
        key(command)
    )


@click.group("ecgbench")
def ecgbench_command() -> None:
    """Run and score ECGBench, the benchmark that PULSE was measured on.

    prepare unpacks the data set, run asks a model, score needs neither a model nor a GPU. Only
    judge and run --base-url reach a network, and only the URL that they are given.
    """


@ecgbench_command.command("mini")
@click.option("--out", required=True, type=click.Path(), help="Folder to make.")
@click.option("--pages", type=click.IntRange(1, 10_000), default=6, show_default=True)
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Another set of pages.")
def mini_command(out: str, pages: int, seed: int | None) -> None:
    """Make a synthetic mini-ECGBench in its three layouts: OUT/parquet, OUT/readme, OUT/gem.

    Its pages are simulated, with the questions of `pulse-edge eval`. No score on it says anything
    about patients.
    """
    from pulse_edge.evaluate.ecgbench.mini import write_mini

    with Status() as status:
        counts = write_mini(out, pages, seed, status)
    show(f"{sum(counts.values())} questions about {pages} pages in {out}")


@ecgbench_command.command("prepare")
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder to make: the BENCH.")
@click.option("--configs", help=CONFIGS_HELP)
@click.option("--images", type=click.Path(), help="Pages of a JSON layout [default: beside it].")
def prepare_command(data: str, out: str, configs: str | None, images: str | None) -> None:
    """Unpack ECGBench from DATA once: questions in one file, pages with their bytes as they are.

    DATA is the folder of parquet files, the JSON and images of upstream's README, or GEM's JSON.
    """
    from pulse_edge.evaluate.ecgbench.items import checked_configs
    from pulse_edge.evaluate.ecgbench.layouts import DESCRIPTIONS
    from pulse_edge.evaluate.ecgbench.prepare import prepare_benchmark

    with Status() as status:
        index = prepare_benchmark(data, out, checked_configs(configs), images, status)
    show(f"layout {index['layout']}: {DESCRIPTIONS[index['layout']]}")
    for config, row in index["configs"].items():
        more = {
            "missing_images": "pages are missing",
            "duplicates": "were there twice",
            "renamed": "shared an id and were renamed",
            "further_turns": "have further turns",
        }
        notes = "".join(f", {row[key]} {text}" for key, text in more.items() if row[key])
        show(f"{config}: {row['n']} of {row['published']} published{notes}")
    show(f"{index['n']} questions about {index['images']} pages in {out}")


@ecgbench_command.command("run")
@click.argument("bench", type=click.Path())
@click.option("-m", "--model", "bundle", metavar="BUNDLE", help="Bundle, or a server's model.")
@click.option("--against", multiple=True, metavar="BUNDLE", help="Another bundle; repeatable.")
@click.option("--out", required=True, type=click.Path(), help="Folder of the answers: the RUN.")
@click.option("--configs", help=CONFIGS_HELP)
@click.option("--limit", type=click.IntRange(1), help="Only the first N of each configuration.")
@click.option("--sample", type=click.IntRange(1), help="Only N random ones of each configuration.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --sample.")
@click.option("--shard", metavar="I/N", help="Only part I of N, from 1; pages stay together.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="Prompts as the authors' scripts have them, or right [default: upstream; server: clean].",
)
@click.option("--scores", is_flag=True, help="Log-probabilities of the options, too.")
@click.option("--yes", is_flag=True, help="Do not ask if it takes over an hour.")
@click.option("--table", is_flag=True, help="Score the answers, too: a table for a README.")
@server_options
@engine_options
def ask_bench_command(
    bench: str,
    bundle: str | None,
    against: tuple[str, ...],
    out: str,
    configs: str | None,
    limit: int | None,
    sample: int | None,
    seed: int,
    shard: str | None,
    mode: Mode | None,
    scores: bool,
    yes: bool,
    table: bool,
    base_url: str | None,
    api_key: str | None,
    options: EngineOptions,
) -> None:
    """Ask the questions of BENCH: greedily, with up to 1,024 new tokens.

    Answers go to RUN/<config>/step-final.jsonl, each on the disk before the next one is asked. The
    same command goes on where an earlier one was interrupted.
    """
    from pulse_edge.evaluate.ecgbench.items import checked_configs, open_benchmark
    from pulse_edge.evaluate.ecgbench.selection import Selection, parse_shard

    selection = Selection(checked_configs(configs), limit, sample, seed, parse_shard(shard))
    opened = open_benchmark(bench)
    with Status() as status:
        if base_url is not None:
            _check_server(against, mode, scores)
            openers = [server_opener(base_url, bundle, api_key)]
        else:
            paths = [str(bundle or default_bundle()), *against]
            openers = [
                model_opener(path, mode or "upstream", scores, options, status) for path in paths
            ]
        plan = selection.of(opened)
        runs = run_all(openers, opened, plan, Path(out), yes, status, table)
    if table:
        from pulse_edge.evaluate.ecgbench.score import score_runs
        from pulse_edge.evaluate.ecgbench.score_table import score_markdown

        show_text(score_markdown(score_runs(runs, Path(bench), answered_only=True)))


def _check_server(against: tuple[str, ...], mode: Mode | None, scores: bool) -> None:
    problems = {
        "--against": bool(against),
        "--mode upstream": mode == "upstream",
        "--scores": scores,
    }
    for option, given in problems.items():
        if given:
            raise click.UsageError(
                f"{option} needs a bundle that is loaded here; leave out it or --base-url"
            )


@ecgbench_command.command("score")
@click.argument("run", type=click.Path())
@click.argument("bench", type=click.Path())
@click.option("--scorer", default="upstream,gem,strict", show_default=True, help="Which scorers.")
@click.option("--against", multiple=True, metavar="RUN", help="Another RUN; repeatable.")
@click.option("--answered-only", is_flag=True, help="Score only items that every RUN answered.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--html", type=click.Path(), metavar="FILE", help="Write a report with pages, too.")
def score_command(
    run: str,
    bench: str,
    scorer: str,
    against: tuple[str, ...],
    answered_only: bool,
    as_json: bool,
    html: str | None,
) -> None:
    """Score the answers of RUN to BENCH, as the authors did, as GEM's did, and strictly."""
    from pulse_edge.evaluate.ecgbench.score import score_runs

    runs = [Path(run), *map(Path, against)]
    names = [name.strip() for name in scorer.split(",") if name.strip()]
    report = score_runs(runs, Path(bench), names, answered_only)
    if html is not None:
        from pulse_edge.evaluate.ecgbench.page import write_report

        write_report(report, runs, Path(bench), Path(html))
    if as_json:
        show_json(report, indent=1)
    else:
        from pulse_edge.evaluate.ecgbench.score_table import score_markdown

        show_text(score_markdown(report))


@ecgbench_command.command("judge")
@click.argument("run", type=click.Path())
@click.argument("bench", type=click.Path())
@click.option("--model", required=True, metavar="NAME", help="Of the server.")
@click.option("--prompts", required=True, type=click.Path(), help="File with the judge's prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@server_options
def judge_command(
    run: str,
    bench: str,
    model: str,
    prompts: str,
    as_json: bool,
    base_url: str | None,
    api_key: str | None,
) -> None:
    """Let another model judge the reports and the arena of RUN.

    Sends questions, golds and answers to --base-url, which must be given.
    """
    from pulse_edge.evaluate.ecgbench.judge import judge_markdown, judge_run

    if base_url is None:
        raise click.UsageError("judge needs --base-url, an OpenAI-compatible server")
    with Status() as status:
        report = judge_run(
            Path(run),
            Path(bench),
            base_url=base_url,
            model=model,
            prompts=Path(prompts),
            api_key=api_key,
            progress=status,
        )
    if as_json:
        show_json(report, indent=1)
    else:
        show_text(judge_markdown(report))
