"""results/*.jsonl -> one HTML page to send to a colleague, and its tables as Markdown on stdout.

    python -m benchmarks.report report.html
    python -m benchmarks.report report.html --results elsewhere/

The page begins with the ratios to the peers. Then each machine follows, with its comparisons and
its own records: the last of each series, and all of them over time. Needs the extra `report`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks import accuracy, batching, compare, engines, predictions, speculation
from benchmarks.batching.tables import report_tables
from benchmarks.report.latency import latency_parts, request_rows, sweep_rows
from benchmarks.report.page import Rows, document, heading, html_table, markdown
from benchmarks.report.peers import headline_parts, headlines, latest, peer_parts, rate_rows
from benchmarks.report.records import Record, Series, machine_of, read_kind, read_results


def other_tables(folder: Path) -> list[Rows]:
    """The last of accuracy.py, of each model by speculation.py, of each bundle by predictions.py,
    of each plan by engines.py.
    """
    checked = {
        json.dumps([r["machine"]["name"], r["way"]["precision"], r["way"]["cache"], r["text"]]): r
        for r in read_kind(folder, predictions.KIND)
    }
    built = read_kind(folder, engines.KIND)
    plans = {json.dumps([r["part"], r["key"], r["precision"], r["model"]]): r for r in built}
    tables: list[Rows] = [
        [
            [
                f"{r['checkpoint']['name']}, {r['logit_pages']} and {r['pages']} pages",
                *r["rows"][0][1:],
            ],
            *r["rows"][1:],
        ]
        for r in read_kind(folder, accuracy.KIND)[-1:]
    ]
    replayed = {r["name"]: r for r in read_kind(folder, speculation.KIND)}
    tables += [speculation.rows_of([*replayed.values()])] if replayed else []
    tables += [predictions.rows_of([*checked.values()])] if checked else []
    tables += report_tables(read_kind(folder, batching.KIND))
    return tables + (
        [[("TensorRT plans",), *((engines.summary(r),) for r in plans.values())]] if plans else []
    )


def page(machines: dict[str, Series], runs: Sequence[Record], others: Sequence[Rows] = ()) -> str:
    """The whole document; refers to nothing outside itself.

    Args:
        machines: of `read_results`.
        runs: comparisons, oldest first.
        others: further tables.
    """
    return document("pulse-edge: benchmarks", _parts(machines, runs, others))


def _parts(
    machines: dict[str, Series], runs: Sequence[Record], others: Sequence[Rows]
) -> Iterator[str]:
    records = [r for series in machines.values() for each in series.values() for r in each]
    times = sorted(r["time"][:10] for r in (*records, *runs)) or ["-"]
    yield "<h1>pulse-edge: benchmarks</h1>"
    yield (
        f'<p class="soft">{len(records)} benchmarks and {len(runs)} comparisons, '
        f"{times[0]} to {times[-1]}. Rates and ratios: more is better.</p>"
    )
    found = headlines(runs)
    if found:
        yield heading(
            2,
            "Against the best peer",
            "the fastest of ours / the fastest peer of any kind, in the last run that has it",
        )
        yield from headline_parts(found)
    newest = {machine_of(run): run["time"] for run in (*records, *runs)}
    order = sorted(newest, key=lambda machine: newest[machine], reverse=True)
    if order:
        yield heading(2, "What ran on what")
        yield html_table(_machine_rows(order, [*records, *runs]))
    for machine in order:
        yield heading(2, machine)
        yield from peer_parts(machine, runs)
        if machine in machines:
            yield from latency_parts(machines[machine])
    if others:
        yield heading(2, "Further measurements")
        yield from map(html_table, others)


def _machine_rows(order: Sequence[str], records: Sequence[Record]) -> Rows:
    """A row for each class of machines."""
    rows = [["machine", "host", "memory", "system", "records", "last"]]
    for machine in order:
        mine = [r for r in records if machine_of(r) == machine]
        host = mine[-1]["machine"]
        memory = f"{host['memory'] / 1e9:.0f} GB" if host["memory"] else "-"
        last = max(r["time"][:10] for r in mine)
        rows.append([machine, host["name"] or "-", memory, host["system"], str(len(mine)), last])
    return rows


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--results", type=click.Path(path_type=Path, exists=True), help="[default: benchmarks/results]"
)
def main(out: Path, results: Path | None) -> None:
    """Write the page OUT, print the tables."""
    folder = results or Path(__file__).parents[1] / "results"
    machines, runs = read_results(folder), read_kind(folder, compare.KIND)
    others = other_tables(folder)
    if not machines and not runs and not others:
        raise click.ClickException(
            f"no results in {folder}: run python -m benchmarks.latency first"
        )
    out.write_text(page(machines, runs, others), encoding="utf-8")
    tables: list[Rows] = [
        table
        for series in machines.values()
        for table in (request_rows(series), sweep_rows(series))
    ]
    tables += others
    shown = {id(run): run for run in latest(runs).values()}
    tables += [
        table for run in shown.values() for table in (rate_rows(run), compare.ratio_table(run))
    ]
    click.echo("\n\n".join(map(markdown, tables)))


if __name__ == "__main__":
    main()
