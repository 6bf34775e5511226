"""The tables of docs/results.md, from results/*.jsonl and results/gpu/*.jsonl.

    python -m benchmarks.results_page           # writes them
    python -m benchmarks.results_page --check   # exits with 1 if the page differs from the records

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, with NAME a key of `SECTIONS`.

The prose around the tables is written by hand. Each table says which record it shows, by its time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import accuracy, compare, engines, predictions, speculation
from benchmarks.report.latency import request_rows, sweep_rows
from benchmarks.report.page import markdown
from benchmarks.report.records import read_kind, read_results
from pulse_edge.measure.tables import number

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
RESULTS = Path(__file__).parent / "results"
LEAST_THREADS = 2  # comparisons with fewer were trials

Record = dict[str, Any]


def peers(folder: Path, on_gpu: bool) -> Iterator[str]:
    """The last comparison of each processor, depth, set of cases and set of peers, newest first."""
    last: dict[str, Record] = {}
    for run in read_kind(folder, compare.KIND):
        if run["settings"]["threads"] >= LEAST_THREADS and bool(run["machine"]["gpu"]) == on_gpu:
            names = sorted({entry["peer"] for entry in run["entries"]})
            cases = sorted(case["name"] for case in run["cases"])
            last[json.dumps([run["machine"]["simd"], run["sizes"]["layers"], cases, names])] = run
    for run in sorted(last.values(), key=lambda run: str(run["time"]), reverse=True):
        processor = run["machine"]["gpu"] or ", ".join(run["machine"]["simd"])
        yield f"**{compare.title(run)}** ({processor})"
        yield markdown(compare.speed_table(run))
        ratios = compare.ratio_table(run)
        if len(ratios) > 1:
            yield markdown(ratios)


def precisions(folder: Path) -> Iterator[str]:
    """The last record that compared logits, and the last that asked tasks."""
    records = read_kind(folder, accuracy.KIND)
    for run in (
        *[r for r in records if r["logits"]][-1:],
        *[r for r in records if r["pages"]][-1:],
    ):
        pages = f"{run['logit_pages']} pages for logits, {run['pages']} for tasks"
        yield f"**{run['checkpoint']['name']}, {pages}; {run['time']}**"
        yield markdown(run["rows"])


def bench(folder: Path) -> Iterator[str]:
    """The last record of each series, by machine."""
    for machine, series in read_results(folder).items():
        yield f"**{machine}**"
        yield markdown(request_rows(series))
        yield markdown(sweep_rows(series))


def lookup(folder: Path) -> Iterator[str]:
    """The last record of each model."""
    replayed = {r["name"]: r for r in read_kind(folder, speculation.KIND)}
    if replayed:
        yield markdown(speculation.rows_of([*replayed.values()]))


def predicted(folder: Path) -> Iterator[str]:
    """The last record of each bundle on each machine."""
    checked = {
        json.dumps([r["machine"]["name"], r["way"]["precision"], r["way"]["cache"], r["text"]]): r
        for r in read_kind(folder, predictions.KIND)
    }
    if checked:
        yield markdown(predictions.rows_of([*checked.values()]))


def plans(folder: Path) -> Iterator[str]:
    """The last build of each plan."""
    records = read_kind(folder, engines.KIND)
    last = {json.dumps([r["part"], r["key"], r["precision"], r["model"]]): r for r in records}
    if last:
        rows = [["plan", "layers", "library", "weights", "plan", "host memory at the peak", "time"]]
        for run in last.values():
            part = "vision" if run["part"] == "vision" else "decoder"
            rows.append(
                [
                    f"{run['part']}, {run['precision'][part]}",
                    str(run["model"][f"{part}_layers"]),
                    "{library} {version}, SM{capability}".format(**run["key"]),
                    number(run["weights_size"], "bytes"),
                    number(run["plan_size"], "bytes"),
                    number(run["peak_allocated"], "bytes") if run["peak_allocated"] else "-",
                    number(run["seconds"], "s"),
                ]
            )
        yield markdown(rows)


def gpu_runs(folder: Path) -> Iterator[str]:
    """Every acceptance run on a GPU: stages of a page, and what the engine's options change."""
    for file in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        machines = [line["machine"] for line in lines if line["kind"] == "machine"]
        card, versions = machines[-1]["card"], machines[-1]["versions"]
        shown = ", ".join(
            f"{n} {versions[n]}"
            for n in ("onnxruntime-gpu", "torch", "transformers")
            if n in versions
        )
        yield f"**{card['name']}, driver {card['driver_version']}, {shown}; {lines[-1]['time']}**"
        results = [line for line in lines if line["kind"] == "result"]
        tables = stage_table, step_table, option_table, checks_table
        for table in (made(results) for made in tables):
            if len(table) > 1:
                yield markdown(table)


def stage_table(results: Sequence[Record]) -> list[list[str]]:
    """Milliseconds of each stage of a page, a column for each precision: median (range)."""
    columns: dict[str, dict[str, str]] = {}
    for line in results:
        values = line["values"]
        if line["result"] == "stage":
            cell = f"{values['ms']:.1f} ({values['ms_min']:.1f}-{values['ms_max']:.1f})"
            columns.setdefault(line["item"], {})[values["stage"]] = cell
    names = list(dict.fromkeys(stage for column in columns.values() for stage in column))
    rows = [["ms: median (range)", *(item.removeprefix("stages-") for item in columns)]]
    return rows + [
        [name, *(column.get(name, "-") for column in columns.values())] for name in names
    ]


def checks_table(results: Sequence[Record]) -> list[list[str]]:
    """What was checked: the tests for a GPU, and the trained model's answers beside the CPU's."""
    rows = [["checked", "as it should be", "of"]]
    for line in results:
        values = line["values"]
        if line["result"] == "tests":
            ran = values["passed"] + values["failed"]
            rows.append(["tests on the GPU", str(values["passed"]), str(ran)])
        elif line["result"] == "pulse-nano":
            equal = str(values["as_the_embedded_on_the_cpu"])
            rows.append(
                [f"answers of pulse-nano, {values['precision']}", equal, str(values["answers"])]
            )
    return rows


def step_table(results: Sequence[Record]) -> list[list[str]]:
    """Milliseconds of a step of our own kernels, by themselves."""
    steps: dict[tuple[str, int, bool], dict[int, float]] = {}
    for line in results:
        v = line["values"]
        if line["result"] == "native step" and "ms" in v:
            steps.setdefault((v["storage"], v["rows"], v["tuned"]), {})[v["depth"]] = v["ms"]
    depths = sorted({depth for found in steps.values() for depth in found})
    rows = [["a step of our kernels, ms", "rows", "shapes", *(f"at {d:,}" for d in depths)]]
    for (storage, count, tuned), found in steps.items():
        cells = [f"{found[d]:.2f}" if d in found else "-" for d in depths]
        rows.append([storage, str(count), "tuned" if tuned else "first guess", *cells])
    return rows


def option_table(results: Sequence[Record]) -> list[list[str]]:
    """Milliseconds with each option of ONNX Runtime that was tried, medians."""
    cells: dict[str, dict[str, str]] = {}
    for line in results:
        values = line["values"]
        if line["result"] == "option" and "ms" in values:
            at = values.get("depth", values.get("tokens"))
            case = (
                f"{values['case']}, {at:,} tokens"
                if values["case"] == "prefill"
                else f"step after {at:,}"
            )
            cells.setdefault(values["option"], {})[case] = f"{values['ms']:.2f}"
    cases = list(dict.fromkeys(case for row in cells.values() for case in row))
    rows = [["option of ONNX Runtime, ms", *cases]]
    return rows + [
        [option, *(row.get(case, "-") for case in cases)] for option, row in cells.items()
    ]


SECTIONS: dict[str, Callable[[Path], Iterator[str]]] = {
    "precisions": precisions,
    "peers-cpu": lambda folder: peers(folder, on_gpu=False),
    "bench": bench,
    "lookup": lookup,
    "predictions": predicted,
    "peers-gpu": lambda folder: peers(folder, on_gpu=True),
    "gpu": lambda folder: gpu_runs(folder / "gpu"),
    "plans": plans,
}


def filled(page: str, folder: Path = RESULTS) -> str:
    """The page with the tables of some records.

    Raises:
        click.ClickException: a line of the records is not a record, or the page does not have the
            markers of a section exactly once.
    """
    for name, section in SECTIONS.items():
        text = "\n\n".join(part.strip() for part in section(folder))
        text = re.sub(r"\b\d(?:\.\d+)?e\+\d+", lambda match: f"{float(match[0]):,.0f}", text)
        parts = re.split(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", page, flags=re.S)
        if len(parts) != 2:
            raise click.ClickException(
                f"the page has {len(parts) - 1} places marked {name}, not one"
            )
        page = f"{parts[0]}{text}\n{parts[1]}"
    return page


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the page differs.")
def main(check: bool) -> None:
    """Write the tables of docs/results.md."""
    old = PAGE.read_text("utf-8")
    new = filled(old)
    if check and new != old:
        raise click.ClickException(
            f"{PAGE} is not what the records say: run python -m benchmarks.results_page"
        )
    if not check:
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
