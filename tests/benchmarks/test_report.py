"""The report and the scripts that add to it, run as from a clone."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure import bench, sweep

from support.fixture_types import Bundles
from support.scripts import run_script


@pytest.fixture(scope="module")
def records(bundle: Path) -> list[dict[str, Any]]:
    """One real record; a later, slower one of the same series; one of another series on a device
    without peaks.
    """
    settings = sweep.Settings(1, 0, 4, (16, 64), (0, 32), quick=True)
    first = json.loads(json.dumps(bench.run(bundle, EngineOptions(threads=1), settings)))
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
    assert page.links == []
    assert not re.search(r"url\(|@import|https?:", text)
    assert page.count.keys() & {"script", "link", "img", "iframe", "b"} == set()
    assert (
        page.count["svg"] == 4 + 2 + 4 + 1
    )  # stages and latencies, pp and tg, history, one roofline
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        numbers = [
            float(n)
            for e in ElementTree.fromstring(svg).iter()
            for n in (e.get("x"), e.get("cx"))
            if n
        ]
        assert all(0 <= n <= 720 for n in numbers)
    assert NOTICE in page.text
    assert "457 ms" in page.text  # the series' last record, whatever the order of the files
    assert "abcdef01" in page.text
    tables = [block.splitlines() for block in done.stdout.strip().split("\n\n")]
    assert [len(t) for t in tables] == [4, 4]
    assert all(len({line.count("|") for line in t}) == 1 for t in tables)
    assert "457 ms" in done.stdout
    rate = records[0]["figures"]["pp64"]["p50"]
    assert f"| {rate:.4g} (" in done.stdout


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
    assert report.name(record) in report.read_results(tmp_path)
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
    (rows,) = report.other_tables(tmp_path)
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
    (rows,) = report.other_tables(tmp_path)
    assert [row[1] for row in rows[1:]] == list(record["points"])
