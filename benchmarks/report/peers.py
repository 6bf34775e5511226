"""Comparisons with peers: headline ratios, bars with ranges, history."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import compare
from benchmarks.report.charts import Bar, Curve, bars, lines
from benchmarks.report.page import figure, grid, heading, html_table
from benchmarks.report.records import Record, machine_of

OWN = "ours"
CASES = {
    "pp": "prefill of {tokens} tokens",
    "tg": "decode after {depth} tokens",
    "vision": "{tokens} views",
}


@dataclass(frozen=True)
class Headline:
    """The best of ours against the best of the peers, in one case on one machine.

    Attributes:
        machine: its class.
        what: the network's size and the threads.
        case: in words.
        ratio: median over rounds of ours / peer.
        low: least of the rounds.
        high: largest.
        rounds: how many.
        ours: which of ours.
        peer: which peer.
    """

    machine: str
    what: str
    case: str
    ratio: float
    low: float
    high: float
    rounds: int
    ours: str
    peer: str


def rate(value: float, kind: str) -> str:
    """A rate with its unit; `kind`: of the case."""
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} {'views' if kind == 'vision' else 'tokens'}/s"


def network(run: Record) -> str:
    """What ran, without when."""
    sizes = run["sizes"]
    threads = run["settings"]["threads"]
    clock = ", seconds of the processor" if run["settings"]["cpu_time"] else ""
    return (
        f"{sizes['layers']} layers of width {sizes['hidden']}, random weights, "
        f"{threads} thread{'s' * (threads != 1)}{clock}"
    )


def latest(runs: Sequence[Record]) -> dict[tuple[str, str, str], Record]:
    """The last comparison that has both ours and a peer, by machine, network and case."""
    last: dict[tuple[str, str, str], Record] = {}
    for run in runs:
        for case in run["cases"]:
            own = [e["peer"] == OWN for e in run["entries"] if case["name"] in e["figures"]]
            if any(own) and not all(own):
                last[machine_of(run), network(run), case["name"]] = run
    return last


def headlines(runs: Sequence[Record]) -> list[Headline]:
    """The fastest of ours against the fastest peer that any run had, newest machine first.

    The last run with that peer counts. Of each machine and number of layers the last network
    counts. Seconds of the processor, which a busy machine was measured in, are no headline.
    """
    timed = [run for run in runs if not run["settings"]["cpu_time"]]
    networks = {(machine_of(run), run["sizes"]["layers"]): network(run) for run in timed}
    found = []
    for (machine, what, name), run in latest(timed).items():
        if networks[machine, run["sizes"]["layers"]] == what:
            same = [r for r in timed if (machine_of(r), network(r)) == (machine, what)]
            found += _headline(machine, what, name, same)
    newest = {machine_of(run): run["time"] for run in runs}
    return sorted(found, key=lambda headline: newest[headline.machine], reverse=True)


def _headline(machine: str, what: str, name: str, runs: Sequence[Record]) -> list[Headline]:
    """Of one case; none if no run of the fastest peer has rounds of ours beside it."""
    entries = [e for run in runs for e in run["entries"] if name in e["figures"]]
    strongest = _fastest([e for e in entries if e["peer"] != OWN], name)["name"]
    for run in reversed(runs):
        beside = [e for e in run["entries"] if name in e["figures"]]
        own = [e for e in beside if e["peer"] == OWN]
        peers = [e for e in beside if e["name"] == strongest]
        ratios = _ratios(_fastest(own, name), peers[0], name) if own and peers else []
        if ratios:
            case = next(c for c in run["cases"] if c["name"] == name)
            return [
                Headline(
                    machine=machine,
                    what=what,
                    case=case_text(case),
                    ratio=statistics.median(ratios),
                    low=min(ratios),
                    high=max(ratios),
                    rounds=len(ratios),
                    ours=_fastest(own, name)["variant"],
                    peer=strongest,
                )
            ]
    return []


def _fastest(entries: Sequence[Record], case: str) -> Record:
    return max(entries, key=lambda entry: float(entry["figures"][case]["p50"]))


def case_text(case: Record) -> str:
    """A case in words."""
    return CASES[case["kind"]].format(**case)


def headline_parts(found: Sequence[Headline]) -> Iterator[str]:
    """Cards, a group for each machine and network."""
    groups = dict.fromkeys((h.machine, h.what) for h in found)
    for machine, what in groups:
        yield heading(3, machine, what)
        yield '<div class="cards">'
        for h in found:
            if (h.machine, h.what) == (machine, what):
                spread = f"{h.low:.2f} to {h.high:.2f}" if h.rounds > 1 else "one round"
                text = html.escape(f"{h.case}: {h.ours} against {h.peer}")
                yield (
                    f'<div class="card"><b>{h.ratio:.2f} times</b>{text}<small>{spread}'
                    f"{f', {h.rounds} rounds' if h.rounds > 1 else ''}</small></div>"
                )
        yield "</div>"


def peer_parts(machine: str, runs: Sequence[Record]) -> Iterator[str]:
    """The last comparisons of one machine, and how rates changed. `runs`: oldest first."""
    mine = [run for run in runs if machine_of(run) == machine]
    last = latest(mine)
    compared = {what for _, what, _ in last}
    alone = {network(run): run for run in mine if network(run) not in compared}
    shown = {id(run): run for run in (*last.values(), *alone.values())}
    for run in sorted(shown.values(), key=lambda r: str(r["time"]), reverse=True):
        yield heading(3, f"Peers: {network(run)}", _when(run))
        yield grid(_case_figures(run))
        if len(compare.ratio_table(run)) > 1:
            yield html_table(compare.ratio_table(run))
        yield _engines(run)
    history = list(_history(mine))
    if history:
        yield heading(3, "Rates over time")
        yield grid(history)


def rate_rows(run: Record) -> list[list[str]]:
    """Each entry's rates with ranges, then memory and load."""
    names = [case["name"] for case in run["cases"]]
    rows = [["median (range)", *names]]
    for entry in run["entries"]:
        cells = [_text(entry["figures"].get(c["name"]), c["kind"]) for c in run["cases"]]
        rows.append([entry["name"], *cells])
    return rows


def _when(run: Record) -> str:
    rounds = run["settings"]["repetitions"]
    return (
        f"{run['time'][:10]}, {rounds} round{'s' * (rounds != 1)}, commit "
        f"{run['commit'] or 'not known'}; host {run['machine']['name']}"
    )


def _case_figures(run: Record) -> Iterator[str]:
    for case in run["cases"]:
        name, kind = case["name"], case["kind"]
        entries = [e for e in run["entries"] if name in e["figures"]]
        entries.sort(key=lambda e: -e["figures"][name]["p50"])
        rows = []
        for entry in entries:
            f = entry["figures"][name]
            several = len(f["samples"]) > 1
            rows.append(
                Bar(
                    entry["name"],
                    f["p50"],
                    f["min"] if several else None,
                    f["max"] if several else None,
                    _text(f, kind),
                    entry["peer"] == OWN,
                )
            )
        if rows:
            title = case_text(case)
            yield figure(title[0].upper() + title[1:], "more is better", bars(rows, title))


def _text(f: Record | None, kind: str) -> str:
    if f is None:
        return "-"
    if len(f["samples"]) < 2:
        return rate(f["p50"], kind)
    low, high = (rate(f[end], kind).split()[0] for end in ("min", "max"))
    return f"{rate(f['p50'], kind)} ({low} to {high})"


def _ratios(ours: Record, peer: Record, case: str) -> list[float]:
    """Ours / peer, round by round."""
    pairs = [entry["figures"][case]["samples"] for entry in (ours, peer)]
    if len(pairs[0]) != len(pairs[1]):
        return []
    return [a / b for a, b in zip(*pairs, strict=True)]


def _engines(run: Record) -> str:
    versions = (
        f"<li>{html.escape(e['name'])}: {html.escape(_engine(e['engine']))}</li>"
        for e in run["entries"]
    )
    skipped = (
        f"<li>skipped {html.escape(name)}: {html.escape(why)}</li>"
        for name, why in run["skipped"].items()
    )
    return f'<ul class="soft">{"".join([*versions, *skipped])}</ul>'


def _engine(engine: Record) -> str:
    return ", ".join(f"{key} {value}" for key, value in engine.items() if value not in (None, ""))


def _history(runs: Sequence[Record]) -> Iterator[str]:
    """A chart for each network and case that entries ran at least twice."""
    keys = dict.fromkeys((network(r), c["name"], c["kind"]) for r in runs for c in r["cases"])
    for what, name, kind in keys:
        with_case = [
            run
            for run in runs
            if network(run) == what and any(name in e["figures"] for e in run["entries"])
        ]
        points: dict[str, list[tuple[int, Record]]] = {}
        for at, run in enumerate(with_case):
            for entry in run["entries"]:
                if name in entry["figures"]:
                    points.setdefault(entry["name"], []).append((at, entry["figures"][name]))
        curves = [
            Curve(
                entry,
                [(at, f["p50"]) for at, f in found],
                [(f["min"], f["max"]) for _, f in found],
            )
            for entry, found in points.items()
            if len(found) > 1
        ]
        if curves:
            dates = [run["time"][5:10] for run in with_case]
            unit = rate(1, kind).split()[1]
            yield figure(f"{name}, {unit}", what, lines(curves[:7], "date", unit, name, dates))
