"""`pulse-edge bench` of each machine: what a user waits for, stages, sweeps, history, roofline."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from benchmarks.report.charts import Bar, Curve, bars, lines, roofline, stacked
from benchmarks.report.page import Rows, figure, grid, heading, html_table
from benchmarks.report.records import Record, Series
from pulse_edge.measure.contention import busy_reasons
from pulse_edge.measure.figures import Point
from pulse_edge.measure.tables import headline, number

STAGES = ("decode_image", "preprocess", "vision", "prefill")
LATENCIES = ("ttft_cold", "ttft_warm", "tpot")
OPTIONAL = ("itl", "e2e")  # of records that have them
HISTORY = (*LATENCIES, "peak_memory")
TITLES = {
    "ttft_cold": "First token about a new page",
    "ttft_warm": "First token of a second question",
    "tpot": "Each further token",
    "itl": "Between pieces of text",
    "e2e": "A whole answer",
    "peak_memory": "Peak memory",
}


def latency_parts(series: Series) -> Iterator[str]:
    """Everything about the runs on one machine."""
    yield heading(3, "What a user waits for", "median and the range of all repetitions")
    yield html_table(request_rows(series))
    yield grid(_wait_figures(series))
    yield heading(3, "The engine alone, tokens/s")
    yield html_table(sweep_rows(series))
    yield grid([*_sweep_figures(series), *_rooflines(series)])
    history = list(_history(series))
    if history:
        yield heading(3, "Over time")
        yield grid(history)
    yield heading(3, "What ran")
    for key, records in series.items():
        told = [*headline(records[-1]), *_busy(records[-1])]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in told)
        yield f'<p>{html.escape(key)}</p><ul class="soft">{items}</ul>'


def request_rows(series: Series) -> Rows:
    """The last record of each series: what a user waits for, with ranges."""
    rows = [["", *(TITLES[n] for n in LATENCIES), "tokens/s", "load", "memory", "measured"]]
    for key, records in series.items():
        f = records[-1]["figures"]
        waits = [value_text(f.get(name)) for name in LATENCIES]
        others = [
            number(1 / f["tpot"]["p50"], "tokens/s") if "tpot" in f else "-",
            value_text(f.get("load_engine")),
            value_text(f.get("peak_memory")),
            records[-1]["time"][:10],
        ]
        rows.append([key, *waits, *others])
    return rows


def sweep_rows(series: Series) -> Rows:
    """tokens/s of every point that any series has, with its share of the peak that binds it."""
    points = {
        key: {Point(**p).name: p for p in records[-1]["sweeps"]} for key, records in series.items()
    }
    names = list(dict.fromkeys(n for found in points.values() for n in found))
    rows = [["pp: share of the GEMM peak; tg: of the read peak", *names]]
    for key, records in series.items():
        cells = []
        for n in names:
            point, f = points[key].get(n), records[-1]["figures"].get(n)
            share = point and point["gemm_share" if point["kind"] == "pp" else "read_share"]
            shown = "-" if f is None else number(f["p50"], "tokens/s").removesuffix("/s")
            cells.append(shown + (f" ({share:.0%})" if share else ""))
        rows.append([key, *cells])
    return rows


def value_text(f: Record | None) -> str:
    """A median with the range of its repetitions."""
    if f is None:
        return "-"
    text = number(f["p50"], f["unit"])
    if len(f["samples"]) < 2:
        return text
    low, high = (number(end(f["samples"]), f["unit"]) for end in (min, max))
    unit = text.partition(" ")[2]
    if unit and {low.partition(" ")[2], high.partition(" ")[2]} == {unit}:  # once is enough
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{text} ({low} to {high})"


def _busy(record: Record) -> Iterator[str]:
    for reason in busy_reasons(record.get("contention")):
        yield f"on a busy machine: {reason}"
    if record.get("interrupted"):
        yield f"interrupted at its {record['interrupted']}"


def _wait_figures(series: Series) -> Iterator[str]:
    figures = {key: records[-1]["figures"] for key, records in series.items()}
    stages = {
        key: [(s, f[s]["p50"], number(f[s]["p50"], "s")) for s in STAGES]
        for key, f in figures.items()
        if all(s in f for s in STAGES)
    }
    if stages:
        title = "Stages before the first token"
        yield figure(title, "a new page; medians, one after the other", stacked(stages, title))
    for name in (*LATENCIES, *OPTIONAL):
        rows = [
            Bar(
                key,
                f[name]["p50"],
                *_range(f[name]),
                value_text(f[name]),
            )
            for key, f in figures.items()
            if name in f
        ]
        if rows:
            what = next(f[name]["what"] for f in figures.values() if name in f)
            yield figure(TITLES[name], f"{what}; less is better", bars(rows, TITLES[name]))


def _range(f: Record) -> tuple[float | None, float | None]:
    if len(f["samples"]) < 2:
        return None, None
    return min(f["samples"]), max(f["samples"])


def _sweep_figures(series: Series) -> Iterator[str]:
    for kind, x, along, title in (
        ("pp", "prompt tokens", "tokens", "Prefill by prompt length"),
        ("tg", "cached tokens", "depth", "Decode by depth"),
    ):
        curves = [_sweep_curve(key, records[-1], kind, along) for key, records in series.items()]
        curves = [curve for curve in curves if curve.points]
        if curves:
            yield figure(title, "tokens/s, with ranges", lines(curves, x, "tokens/s", title))


def _sweep_curve(key: str, record: Record, kind: str, along: str) -> Curve:
    points = [p for p in record["sweeps"] if p["kind"] == kind]
    found = [(p[along], record["figures"][Point(**p).name]) for p in points]
    return Curve(
        key,
        [(x, f["p50"]) for x, f in found],
        [(min(f["samples"]), max(f["samples"])) for _, f in found],
    )


def _rooflines(series: Series) -> Iterator[str]:
    for key, records in series.items():
        peaks, sweeps = records[-1]["peaks"], records[-1]["sweeps"]
        if not peaks or not sweeps:
            continue
        kind = records[-1]["gemm_type"] if records[-1]["gemm_type"] in peaks["gemm"] else "fp32"
        points = [(Point(**p).name, p["flop"] / p["read"], p["flop_per_s"]) for p in sweeps]
        note = (
            f"{key}. Roofs as measured: {kind} GEMM ({peaks['gemm_library'][kind]}) and memory "
            f"reads (numpy), {peaks['threads']} threads; what caches hold may lie above."
        )
        svg = roofline(points, peaks["gemm"][kind], peaks["read"], "Roofline")
        yield figure("Roofline", note, svg)


def _history(series: Series) -> Iterator[str]:
    """A chart for each figure of series that were measured at least twice."""
    several = {key: records for key, records in series.items() if len(records) > 1}
    longest: Sequence[Record] = max(several.values(), key=len, default=[])
    dates = [f"{r['time'][5:10]}" for r in longest]
    for name in HISTORY:
        curves = [_curve(key, records, name) for key, records in several.items()]
        curves = [curve for curve in curves if curve.points]
        if curves:
            unit = "MB" if name == "peak_memory" else "ms"
            note = f"{unit}; by record, oldest first"
            yield figure(TITLES[name], note, lines(curves, "date", unit, TITLES[name], dates))


def _curve(key: str, records: Sequence[Record], name: str) -> Curve:
    scale = 1e-6 if name == "peak_memory" else 1e3
    found = [(at, r["figures"][name]) for at, r in enumerate(records) if name in r["figures"]]
    points = [(float(at), scale * f["p50"]) for at, f in found]
    ranges = [(scale * min(f["samples"]), scale * max(f["samples"])) for _, f in found]
    return Curve(key, points, ranges)
