"""The report and the scripts that add to it, run as from a clone."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.__main__ import other_tables
from benchmarks.report.records import machine_of, read_results, series_name
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure import bench, sweep

from support.fixture_types import Bundles
from support.scripts import run_script

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def records(bundle: Path) -> list[dict[str, Any]]:
    """One real record; a later, slower one of the same series; one of another series on a device
    without peaks.
    """
    settings = sweep.Settings(1, 0, 0, 4, (16, 64), (0, 32), quick=True)
    first = json.loads(json.dumps(bench.run(bundle, EngineOptions(threads=1), settings)))
    first["contention"]["others"] = 0.4
    later, other = copy.deepcopy(first), copy.deepcopy(first)
    later |= {"time": "2031-01-01T00:00:00Z", "commit": "abcdef012345"}
    later["figures"]["ttft_cold"]["p50"] = 0.4567
    other["machine"]["name"] = '<b>"board" & co</b> | http'
    other["peaks"] = None
    for point in other["sweeps"]:
        point["gemm_share"] = point["read_share"] = None
    return [later, other, first]


@pytest.fixture
def results(records: list[dict[str, Any]], tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for number, record in enumerate(records):
        with (folder / f"{number % 2}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    return folder


class Page(HTMLParser):
    """Checks that tags nest, collects text and whatever points out of the page."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str | None] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [
            value
            for name, value in attrs
            if name in ("href", "src", "xlink:href", "srcset", "data")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report(results: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = run_script("report", out, "--results", results)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    page = Page(text)
    assert [link for link in page.links if not str(link).startswith("#")] == []
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    assert page.count.keys() & {"script", "link", "img", "iframe"} == set()
    assert 'name="viewport"' in text
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    # Of each of two machines: stages, 3 latencies, itl, e2e, pp, tg; history and roofline of one.
    assert page.count["svg"] == 2 * 8 + 4 + 1
    assert NOTICE in page.text
    assert "457 ms" in page.text  # the series' last record, whatever the order of the files
    assert "abcdef01" in page.text
    assert "on a busy machine: other processes took 40%" in page.text
    assert not re.search(r"\de[+-]\d\d", page.text)
    tables = [block.splitlines() for block in done.stdout.strip().split("\n\n")]
    assert [len(t) for t in tables] == [3] * 4
    assert all(len({line.count("|") for line in t}) == 1 for t in tables)
    assert "457 ms" in done.stdout


def comparison(time: str, gpu: str | None = None, **changes: Any) -> dict[str, Any]:
    """A comparison of ours with a peer, four rounds of each."""
    device = "cuda" if gpu else "cpu"

    def entry(name: str, peer: str, samples: dict[str, list[float]]) -> dict[str, Any]:
        figures = {
            case: {
                "samples": values,
                "p50": sorted(values)[len(values) // 2],
                "min": min(values),
                "max": max(values),
            }
            for case, values in samples.items()
        }
        return {
            "name": name,
            "peer": peer,
            "variant": name.split()[1],
            "figures": figures,
            "engine": {"device": device if peer == "ours" else None},
            "load": [1.0],
            "peak_memory": 10**9,
            "device_memory": None,
        }

    machine = {
        "name": "Intel(R) Xeon(R) Processor",
        "architecture": "x86_64",
        "system": "Linux 6",
        "usable_cores": 2,
        "simd": ["avx2"],
        "memory": 10**9,
        "gpu": gpu,
    }
    run: dict[str, Any] = {
        "kind": "compare",
        "schema": 1,
        "time": time,
        "commit": None,
        "machine": machine,
        "sizes": {"layers": 32, "hidden": 4096},
        "settings": {"threads": 2, "repetitions": 4, "cpu_time": False},
        "cases": [
            {"kind": "tg", "tokens": 32, "depth": 3000, "name": "tg32 @ d3000"},
            {"kind": "vision", "tokens": 5, "depth": 0, "name": "vision5"},
        ],
        "entries": [
            entry(
                "ours int4", "ours", {"tg32 @ d3000": [20.0, 22, 24, 30], "vision5": [15760.0] * 4}
            ),
            entry("ours fp16", "ours", {"tg32 @ d3000": [9.0] * 4, "vision5": [1.0] * 4}),
            entry("peer q4", "peer", {"tg32 @ d3000": [10.0] * 4, "vision5": [7880.0] * 4}),
            entry("slow q8", "slow", {"tg32 @ d3000": [5.0] * 4, "vision5": [1.0] * 4}),
        ],
        "skipped": {"genai int4": "<not> installed"},
    }
    return run | changes


def report_of(folder: Path, *runs: dict[str, Any]) -> Page:
    folder.mkdir(exist_ok=True)
    (folder / "compare.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    done = run_script("report", folder / "out.html", "--results", folder)
    assert done.returncode == 0, done.stderr
    return Page((folder / "out.html").read_text())


def test_headlines_come_first(tmp_path: Path) -> None:
    """The best of ours against the best peer, with the range over the rounds."""
    page = report_of(tmp_path, comparison("2031-01-01T00:00:00Z"))
    text = page.text
    first = text.index("Against the best peer")
    assert first < text.index("What ran on what") < text.index("Peers: 32 layers")
    assert "2.30 timesdecode after 3000 tokens: int4 against peer q4" in text
    assert "2.00 to 3.00, 4 rounds" in text
    assert "2.00 times5 views: int4 against peer q4" in text
    assert "24 tokens/s (20 to 30)" in text
    assert "15,760 views/s (15,760 to 15,760)" in text
    assert "<not> installed" in text
    assert page.count["svg"] == 2


def test_a_weaker_peer_of_a_later_run_makes_no_headline(tmp_path: Path) -> None:
    """The fastest peer of any run is what ours are measured against, in the last run with it."""
    early, last = comparison("2031-01-01T00:00:00Z"), comparison("2031-01-02T00:00:00Z")
    last["entries"] = [e for e in last["entries"] if e["name"] != "peer q4"]
    text = report_of(tmp_path, early, last).text
    assert "2.30 timesdecode after 3000 tokens: int4 against peer q4" in text
    assert "against slow q8" not in text


def test_seconds_of_the_processor_are_no_headline(tmp_path: Path) -> None:
    run = comparison("2031-01-01T00:00:00Z")
    run["settings"]["cpu_time"] = True
    text = report_of(tmp_path, run).text
    assert "Against the best peer" not in text
    assert "seconds of the processor" in text


def test_a_gpu_heads_what_ran_there(tmp_path: Path) -> None:
    gpu = "NVIDIA H100 80GB HBM3, 1980 MHz, 2619 MHz, 700.00 W"
    slower = gpu.replace("1980", "1965")
    runs = [
        comparison("2031-01-01T00:00:00Z", gpu),
        comparison("2031-01-02T00:00:00Z", slower),
        comparison("2031-01-03T00:00:00Z"),
    ]
    assert machine_of(runs[0]) == machine_of(runs[1]) == "NVIDIA H100 80GB HBM3"
    page = report_of(tmp_path, *runs)
    assert "NVIDIA H100 80GB HBM332 layers of width 4096" in page.text
    assert page.count["h2"] == 2 + 2  # headlines, what ran; two machines
    # The comparison of each machine, and the history of the GPU's two cases.
    assert page.count["svg"] == 2 + 2 + 2


def test_two_generations_of_one_name_are_two_machines(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    older, newer = copy.deepcopy(records[-1]), copy.deepcopy(records[-1])
    for record, simd in ((older, ["avx2"]), (newer, ["avx2", "avx512_vnni", "avx512f"])):
        record["machine"] |= {"name": "AMD EPYC", "cpu": None, "simd": simd}
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, (older, newer))))
    machines = read_results(tmp_path)
    assert [name.split(" (")[0] for name in machines] == ["AMD EPYC"] * 2
    assert len(machines) == 2


def test_old_records_are_read(records: list[dict[str, Any]], tmp_path: Path) -> None:
    old = copy.deepcopy(records[-1]) | {"schema": 2}
    for name in ("interrupted", "warmup", "contention", "goodput", "energy"):
        del old[name]
    del old["machine"]["cpu"]
    del old["figures"]["itl"]
    for f in old["figures"].values():
        del f["low"], f["high"]
    (tmp_path / "old.jsonl").write_text(json.dumps(old))
    done = run_script("report", tmp_path / "out.html", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    assert Page((tmp_path / "out.html").read_text()).count["svg"] == 5 + 2 + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("{}", "not a record"),
        ('{"kind": "other"}', "not a record"),
        (None, "no results"),
    ],
)
def test_results_that_are_none(tmp_path: Path, line: str | None, message: str) -> None:
    if line is not None:
        (tmp_path / "bad.jsonl").write_text(line)
    done = run_script("report", tmp_path / "out.html", "--results", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out.html").exists()


def test_latency_takes_the_options_of_bench(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "latency.jsonl"
    sweeps = ("--prompt-lengths", "16", "--depths", "")
    done = run_script(
        "latency", bundle, "--quick", "--repetitions", 1, "-n", 2, "--append", out, *sweeps
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert series_name(record) in read_results(tmp_path)[machine_of(record)]
    assert run_script("latency", "--help").stdout.startswith("Usage: pulse-edge bench")


def test_reports_replayed_with_drafts(bundle: Path, tmp_path: Path) -> None:
    """Tokens with and without drafts are the same, and so are those of another model's engine; then
    the report.
    """
    out = tmp_path / "speculation.jsonl"
    done = run_script(
        "speculation",
        "--model",
        bundle,
        "--replay",
        bundle,
        "--reports",
        2,
        "-r",
        1,
        "--append",
        out,
    )
    assert done.returncode == 0, done.stderr
    own, replayed = (json.loads(line) for line in out.read_text().splitlines())
    assert own["identical"]
    assert own["accepted"] > 10  # a tiny model repeats itself
    assert len(replayed["speedups"]) == own["reports"] == 2
    assert replayed["tokens"] == own["tokens"]
    (rows,) = other_tables(tmp_path)
    assert [row[0] for row in rows[1:]] == [own["name"], replayed["name"]]


def test_predictions_are_compared_with_measurements(bundles: Bundles, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    few = ("--prompt-lengths", 16, "--depths", 8, "-n", 2, "-r", 1, "--views", 2, "--threads", 1)
    done = run_script("predictions", bundles("int8"), *few, "--append", out)
    assert done.returncode in (0, 1), (
        done.stderr
    )  # a tiny model is not what the roofline was calibrated on
    record = json.loads(out.read_text())
    assert list(record["points"]) == ["pp16", "tg2 @ d8", "vision2"]
    assert all(
        p["off"] == pytest.approx(p["predicted"] / p["measured"] - 1)
        for p in record["points"].values()
    )
    assert done.returncode == any(abs(p["off"]) > 0.25 for p in record["points"].values())
    (rows,) = other_tables(tmp_path)
    assert [row[1] for row in rows[1:]] == list(record["points"])
