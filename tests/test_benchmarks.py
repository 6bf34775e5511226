"""The scripts of benchmarks/: the synthetic checkpoint, the report, latency.py; each as it is run from a clone."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
import time
import tracemalloc
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Bundles

import pulse_edge
from benchmarks import report, synthetic
from benchmarks.svg import Axis, Curve, bars, lines, roofline
from pulse_edge.assets import RATE_QUESTION, SAMPLE_PAGE
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import CheckpointError
from pulse_edge.measure import bench, sweep

ROOT = Path(__file__).parents[1]
SMALL = {
    "layers": 2, "hidden": 64, "heads": 4, "ffn": 96, "vocab": 512, "context": 512,
    "vision_layers": 3, "vision_width": 32, "vision_heads": 2, "vision_mlp": 48, "image_size": 56,
}  # fmt: skip


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)


def size_arguments(**sizes: int) -> list[object]:
    return [a for name, value in sizes.items() for a in ("--" + name.replace("_", "-"), value)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "small"
    done = run("synthetic", out, *size_arguments(**SMALL), "--shard-size", 100_000)
    assert done.returncode == 0, done.stderr
    assert "RANDOM weights" in done.stdout
    return out


def test_sizes_of_pulse_7b() -> None:
    """14.13 GB in three shards, as published; a slice has the same width."""
    shapes = dict(synthetic.tensors(synthetic.Sizes()))
    assert 2 * sum(map(math.prod, shapes.values())) == 14_125_813_760
    assert len(list(synthetic._shards(synthetic.Sizes(), synthetic.SHARD))) == 3
    assert shapes["model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
    assert shapes["model.mm_projector.0.weight"] == (4096, 1024)
    tower = "model.vision_tower.vision_tower.vision_model"
    assert shapes[f"{tower}.embeddings.position_embedding.weight"] == (577, 1024)
    assert f"{tower}.encoder.layers.23.mlp.fc2.bias" in shapes
    part = dict(synthetic.tensors(synthetic.Sizes(layers=4)))
    assert {n: s for n, s in shapes.items() if n in part} == part
    assert shapes.keys() - part.keys() == {
        n for n in shapes if (m := re.match(r"model\.layers\.(\d+)", n)) and int(m[1]) > 3
    }


def test_the_export_knows_every_name_and_shape_of_the_full_size(tmp_path: Path) -> None:
    """Against the export's own list, from config.json alone."""
    from pulse_export import checkpoint, config

    sizes = synthetic.Sizes()
    spec = config.published_spec(synthetic.config(sizes, "bfloat16"), tmp_path)
    assert (spec.vision.layers, spec.vision.feature_layers, spec.image.merge) == (24, 23, "flat")
    written, layout = dict(synthetic.tensors(sizes)), checkpoint.LAYOUTS["LlavaLlamaForCausalLM"]
    for name, shape in checkpoint._expected(spec, tied=False):
        stored = next(c for c in checkpoint._candidates(name, layout) if c in written)
        assert written.pop(stored) == shape
    unused = {n for n in written if "encoder.layers.23." not in n}
    assert unused == {"model.image_newline"} | {n for n in written if "post_layernorm" in n}


def test_synthetic_weights_export_and_answer(small: Path, tmp_path: Path) -> None:
    from pulse_export.checkpoint import Checkpoint
    from pulse_export.pipeline import export

    assert len(list(small.glob("*.safetensors"))) > 2
    source = Checkpoint(small)
    assert source.info().dtype == "bfloat16"
    seen = set()
    for name in source.names:
        tensor = source.tensor(name)
        norm = tensor.ndim == 1 and name.endswith(".weight")
        assert abs(tensor.mean() - norm) < 0.02, name
        assert 0.01 < tensor.std() < 0.03, name
        seen.add(tensor.tobytes())
    assert len(seen) == len(source.names)
    export(small, tmp_path / "bundle", precision="int8")
    answer = pulse_edge.load(tmp_path / "bundle", threads=1).ask(
        SAMPLE_PAGE, RATE_QUESTION, max_new_tokens=4
    )
    assert answer.usage.image_tokens == 5 * 16
    # as many as with Llama's tokenizer, roughly: 57 for the template and this question
    assert 35 < answer.usage.prompt_tokens - answer.usage.image_tokens < 75


def test_synthetic_options(small: Path, tmp_path: Path) -> None:
    sizes = synthetic.Sizes(**SMALL)
    for name, options in (("again", {}), ("seed", {"seed": 1}), ("fp16", {"dtype": "float16"})):
        synthetic.write(tmp_path / name, sizes, shard=100_000, **options)
    first = sorted(small.glob("*.safetensors"))[0].name
    bytes_of = {name: (tmp_path / name / first).read_bytes() for name in ("again", "seed", "fp16")}
    assert bytes_of["again"] == (small / first).read_bytes()
    assert len(set(bytes_of.values())) == 3
    assert json.loads((tmp_path / "fp16/config.json").read_text())["torch_dtype"] == "float16"
    own = tmp_path / "tokenizer.model"
    own.write_bytes((small / "tokenizer.model").read_bytes())
    done = run(
        "synthetic",
        tmp_path / "own",
        *size_arguments(**SMALL),
        "--tokenizer",
        own,
        "--dtype",
        "float16",
    )
    assert done.returncode == 0, done.stderr
    done = run("synthetic", small, *size_arguments(**SMALL))
    assert done.returncode == 2
    assert "exists" in done.stderr


def test_an_interrupted_synthetic_checkpoint_does_not_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pulse_export.checkpoint import Checkpoint

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write(tmp_path, synthetic.Sizes(**SMALL), progress=stop)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint(tmp_path)


def test_synthetic_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors of 16 MB each, from a pool of 2 MB."""
    monkeypatch.setattr(synthetic, "POOL", synthetic.BLOCK)
    sizes = synthetic.Sizes(**SMALL | {"vocab": 125_000})
    written: list[int] = []
    tracemalloc.start()
    try:
        synthetic.write(tmp_path, sizes, tokenizer_model=b"-", progress=written.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(written) == 2 * sum(math.prod(s) for _, s in synthetic.tensors(sizes)) > 32e6
    assert peak < 4 * 4 * synthetic.BLOCK
    values = np.memmap(next(tmp_path.glob("*.safetensors")), np.uint8, "r")
    assert (
        len(np.unique(values[-2_000_000:].view(np.uint16))) > 1000
    )  # the last block is no copy of zeros


def test_a_synthetic_matrix_goes_round_its_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values repeat after the pool's length; no two rows are the same, and none begins where another tensor's does."""
    from pulse_export.checkpoint import Checkpoint

    monkeypatch.setattr(synthetic, "POOL", 1 << 12)
    synthetic.write(tmp_path, synthetic.Sizes(**SMALL))
    source, period = Checkpoint(tmp_path), (1 << 12) + synthetic.ODD
    table, head = (source.tensor(name) for name in ("embed_tokens.weight", "lm_head.weight"))
    np.testing.assert_array_equal(table.ravel()[period:], table.ravel()[:-period])
    assert len(np.unique(table, axis=0)) == len(table)
    assert (table[:, 0] != head[:, 0]).mean() > 0.9
    assert len(np.unique(table)) > 1000


def test_a_shard_that_fails_stops_the_others(tmp_path: Path) -> None:
    written: list[int] = []

    def stop(done: int) -> None:
        written.append(done)
        if len(written) == 3:
            raise OSError("no space")
        time.sleep(0.005)

    with pytest.raises(OSError, match="no space"):
        synthetic.write(tmp_path, synthetic.Sizes(**SMALL), shard=10_000, progress=stop)
    assert len(written) < 20 < len(list(synthetic.tensors(synthetic.Sizes(**SMALL))))
    assert not (tmp_path / "config.json").exists()


@pytest.fixture(scope="module")
def records(bundle: Path) -> list[dict[str, Any]]:
    """One real record; a later, slower one of the same series; one of another series on a device without peaks."""
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
        self.text, self.links = "", []
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
    done = run("report", out, "--results", results)
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
    done = run("report", tmp_path / "out.html", "--results", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "out.html").exists()


def test_charts_place_values_where_they_are() -> None:
    axis = Axis([3, 87], 0, 100)
    assert axis.ticks == [0, 20, 40, 60, 80, 100]
    assert (axis(0), axis(50)) == (0, 50)
    log = Axis([0.2, 50], 0, 300, log=True)
    assert log.ticks == pytest.approx([0.1, 1, 10, 100])
    assert log(1) == 100
    drawn = ElementTree.fromstring(
        bars({"a": [("x", 1.0), ("y", 3.0)], "b": [("x", 2.0), ("y", 0.0)]})
    )
    widths = [float(e.get("width", 0)) for e in drawn.iter("rect")][:4]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.2)
    dots = list(
        ElementTree.fromstring(lines([Curve("c", [(1, 5), (2, 10)])], "x", "y")).iter("circle")
    )
    assert float(dots[0].get("cy", 0)) > float(dots[1].get("cy", 0))
    roof = ElementTree.fromstring(roofline([("p", 0.5, 4e9)], gemm=1e11, read=1e10)).find(
        "polyline"
    )
    assert roof is not None
    (_, low), (ridge, top), (_, flat) = (
        map(float, p.split(",")) for p in roof.get("points", "").split()
    )
    assert low > top == flat
    assert 70 < ridge < 684


def test_latency_takes_the_options_of_bench(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "latency.jsonl"
    sweeps = ("--prompt-lengths", "16", "--depths", "")
    done = run("latency", bundle, "--quick", "--repetitions", 1, "-n", 2, "--append", out, *sweeps)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert report.name(record) in report.read_results(tmp_path)
    assert run("latency", "--help").stdout.startswith("Usage: pulse-edge bench")


def test_reports_replayed_with_drafts(bundle: Path, tmp_path: Path) -> None:
    """Tokens with and without drafts are the same, and so are those of another model's engine; then the report."""
    out = tmp_path / "speculation.jsonl"
    done = run(
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
    done = run("predictions", bundles("int8"), *few, "--append", out)
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
