"""Benchmarks: statistics and comparisons on known numbers, costs against a page of arithmetic, and whole runs."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pulse_edge
from pulse_edge.arrays import Floats, Numbers
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.engine import Engine, Features, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ContextError, ParameterError, RegressionError
from pulse_edge.measure import baseline as baselines
from pulse_edge.measure import bench, figures, sweep, tables
from pulse_edge.measure import peaks as machine
from pulse_edge.progress import Progress

PROGRAM = Path(sys.executable).parent / "pulse-edge"
DOCS = Path(__file__).parents[1] / "docs"
SCHEMA = json.loads((DOCS / "bench.schema.json").read_text())
ANSWER_SCHEMA = json.loads((DOCS / "answer.schema.json").read_text())
PROVENANCE = ANSWER_SCHEMA | {
    "properties": {"provenance": ANSWER_SCHEMA["properties"]["provenance"]}
}
TINY = sweep.Settings(
    2, 1, 5, (16, 64, 4000, 16), (0, 40, 4000), quick=True
)  # what is named twice runs once


class Spy:
    """An engine that counts: (what, positions before, rows) of each call that reaches it."""

    calls: list[tuple[str, int, int]]

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self.engine: Engine = open_engine(bundle, options)
        self.calls = []

    def prefill(self, rows: Rows, progress: Progress | None = None) -> Floats:
        self.calls.append(("prefill", self.engine.length, len(rows)))
        return self.engine.prefill(rows, progress)

    def choose(self, rows: Rows) -> Numbers:
        self.calls.append(("choose", self.engine.length, len(rows)))
        return self.engine.choose(rows)

    def encode(self, pixels: Floats) -> Features:
        self.calls.append(("encode", 0, len(pixels)))
        return self.engine.encode(pixels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@pytest.fixture(scope="module")
def measured(bundle: Path) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """One run of `TINY`: its record and what the engine was asked to do."""
    spies: list[Spy] = []

    def spy(bundle: Bundle, options: EngineOptions) -> Spy:
        spies.append(Spy(bundle, options))
        return spies[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bench.system, "device_memory", lambda pid: 3_000_000 if pid == os.getpid() else None
        )
        patch.setattr(bench, "open_engine", spy)
        record = bench.run(bundle, EngineOptions(threads=1, context=400), TINY)
    return record, spies[0].calls


@pytest.fixture
def record(measured: tuple[dict[str, Any], list[tuple[str, int, int]]]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(measured[0], allow_nan=False))
    return made


def test_percentiles_look_to_the_bad_side() -> None:
    times = figures.figure("", "s", "lower", True, range(1, 102))
    assert (times.p50, times.p90, times.p99) == (51, 91, 100)
    rates = figures.figure("", "tokens/s", "higher", True, range(1, 102))
    assert (rates.p50, rates.p90, rates.p99) == (51, 11, 2)
    single = figures.figure("", "s", "lower", True, [0.12345678])
    assert single.samples == (0.123457,)
    assert single.p50 == single.p99 == single.samples[0]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "s", "12.3 s"), (1.5, "s", "1.5 s"), (0.1234, "s", "123 ms"), (4.56e-6, "s", "4.56 us"),
        (2e-9, "s", "0.002 us"), (-1.5e-3, "s", "-1.5 ms"), (3.59e9, "bytes", "3.59 GB"), (1.4e8, "bytes", "140 MB"),
        (864.0, "bytes", "0.864 kB"), (3.456, "tokens/s", "3.46/s"), (77794.0, "tokens/s", "77,794/s"),
    ],
)  # fmt: skip
def test_numbers_have_units(value: float, unit: str, text: str) -> None:
    assert tables.number(value, unit) == text


def test_tpot_is_what_the_contract_says(model: pulse_edge.Model) -> None:
    """(E2E - TTFT) / (N - 1), on an answer with known times."""
    answer = model.ask(SAMPLE_PAGE, "What is the rate?", max_new_tokens=4)
    timings = dataclasses.replace(
        answer.timings,
        ttft=2.0,
        total=5.0,
        decode_steps=(0.5, 0.75, 1.0),
        sample=0.4,
        detokenise=0.2,
        vision=1.5,
    )
    usage = dataclasses.replace(answer.usage, new_tokens=4)
    found = dict(bench.cold_samples(dataclasses.replace(answer, timings=timings, usage=usage)))
    assert found["tpot"] == [1.0]
    assert found["outside_engine"] == [0.25]
    assert found["decode_step"] == (0.5, 0.75, 1.0)
    assert (found["sample"], found["detokenise"]) == ([0.1], [0.05])
    assert found["vision_per_view"] == [1.5 / answer.provenance["image"]["views"]]
    assert found.keys() <= bench.FIGURES.keys()


def test_costs_of_pulse_7b(bundle: Path) -> None:
    """Against figures from the model's sizes alone: 6.48 G linear weights, 0.5 MiB of fp16 cache a token."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    text = dataclasses.replace(
        manifest.model.text,
        hidden=4096,
        layers=32,
        heads=32,
        kv_heads=32,
        head_size=128,
        ffn=11008,
        vocab=32000,
    )
    manifest = dataclasses.replace(
        manifest,
        model=dataclasses.replace(manifest.model, text=text),
        precision=dataclasses.replace(manifest.precision, kv_cache="fp16"),
    )
    whole, chunked = (sweep.RunCost(Bundle(opened.path, manifest), chunk) for chunk in (0, 512))
    weights = sum((bundle / f).stat().st_size for f in ("decoder.onnx", "decoder.onnx.data"))
    prefill = sweep.Run("pp", 2880, 0, [])
    flop, read = whole(prefill)
    assert read == weights
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    scores = 32 * 4 * 4096 * 2880 * 2881 // 2
    pruned = (
        4096 * 4096 + 3 * 4096 * 11008
    )  # of the last layer: one row goes on after its attention
    one_row = 2 * 4096 * 32000 + 2 * pruned
    assert flop == 2 * 2880 * (layers - pruned) + scores + one_row
    assert flop == pytest.approx(39e12, rel=0.03)
    more, chunks = chunked(prefill)
    assert more == flop + 5 * one_row  # the head runs once a chunk
    assert chunks == 6 * weights + (512 << 19) * (1 + 2 + 3 + 4 + 5)
    flop, read = whole(sweep.Run("tg", 2, 3000, []))
    assert read == 2 * weights + (3000 + 3001 << 19)
    assert flop == 2 * (2 * layers + 2 * 4096 * 32000) + 32 * 4 * 4096 * (3001 + 3002)


def test_shares_of_the_peaks(bundle: Path) -> None:
    """A run of 2 s against known peaks; none of a read peak where the caches could hold the weights."""
    cost = sweep.RunCost(open_bundle(bundle), 0)
    run = sweep.Run("tg", 4, 10, [1.0, 2.0, 9.0])
    flop, read = cost(run)
    gemm = {"fp32": 10 * flop, "int8": 1.0}
    peaks = machine.Peaks(
        threads=1, read=4 * read, read_buffer=1, gemm=gemm, gemm_size=1, gemm_library={}
    )
    point = sweep.point_of_run(run, cost, peaks, cost.weights // 2 - 1)
    assert (point.name, point.flop_per_s, point.read_per_s) == ("tg4 @ d10", flop / 2, read / 2)
    assert point.gemm_share == pytest.approx(0.05)
    assert point.read_share == pytest.approx(0.125)
    assert sweep.point_of_run(run, cost, peaks, cost.weights // 2 + 1).read_share is None
    bare = sweep.point_of_run(run, cost, None, None)
    assert (bare.flop_per_s, bare.gemm_share, bare.read_share) == (flop / 2, None, None)


def test_the_record_has_the_schema(record: dict[str, Any]) -> None:
    jsonschema.validate(record, SCHEMA)
    jsonschema.validate(
        {"provenance": record["provenance"]}, PROVENANCE | {"required": ["provenance"]}
    )
    sweeps = ["pp16", "pp64", "tg5 @ d0", "tg5 @ d40"]
    assert list(record["figures"]) == [*bench.FIGURES, *sweeps]
    assert record["skipped"] == ["pp4000: context 400", "tg5 @ d4000: context 400"]
    counts = {name: len(f["samples"]) for name, f in record["figures"].items()}
    assert counts["decode_step"] == 2 * 4
    assert all(counts[n] == 2 for n in ("ttft_cold", "ttft_warm", "tpot", "vision", *sweeps))
    assert all(counts[n] == 1 for n in ("load_check", "load_engine", "ttft_first", "peak_memory"))
    assert record["peaks"]["threads"] == 1
    assert counts["projector"] == 2
    assert 0 < record["figures"]["projector"]["p50"] < record["figures"]["vision"]["p50"]
    assert 20e6 < record["figures"]["peak_memory"]["p50"] < 4e9
    assert record["figures"]["device_memory"]["p50"] == 3e6
    assert all(
        p["read_share"] is None for p in record["sweeps"]
    )  # the tiny weights lie in the cache


def test_the_engine_ran_exactly_what_the_figures_say(
    measured: tuple[dict[str, Any], list[tuple[str, int, int]]],
) -> None:
    record, calls = measured
    prompt, reused = record["tokens"]["prompt"], record["tokens"]["reused"]
    assert record["tokens"]["image"] < reused < prompt
    views = record["provenance"]["image"]["views"]
    image = ("encode", 0, views)
    steps = [("choose", prompt + i, 1) for i in range(4)]
    warm = next(c for c in calls if c[0] == "prefill" and c[1] > 0)
    assert warm[1] == reused
    assert 1 < warm[2] < record["tokens"]["image"]  # another question, but not the page again
    repetition = [image, ("prefill", 0, prompt), *steps, warm]
    requests = [
        image,
        ("prefill", 0, prompt),
        *([("prefill", 0, prompt), *steps, warm]),
        *(2 * repetition),
    ]
    requests[2:2] = [image]  # the first request's page is forgotten too
    assert calls[: len(requests)] == requests
    swept: list[tuple[str, int, int]] = []
    swept += 3 * [("prefill", 0, 16)] + 3 * [("prefill", 0, 64)]
    swept += 3 * [("choose", i, 1) for i in range(5)]
    swept += [("prefill", 0, 40), *(3 * [("choose", 40 + i, 1) for i in range(5)])]
    assert calls[len(requests) :] == swept


def test_an_end_token_does_not_end_a_measured_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every token made an end token, a plain model stops at once and a measured one takes all its steps."""
    opened = open_bundle(bundle)
    text = dataclasses.replace(opened.manifest.model.text, eos=tuple(range(512)))
    spec = dataclasses.replace(opened.manifest.model, text=text)
    ending = Bundle(opened.path, dataclasses.replace(opened.manifest, model=spec))
    plain = pulse_edge.Model(ending, open_engine(ending, EngineOptions(threads=1)))
    assert plain.ask(None, "What is the rate?").finish_reason == "eos"
    monkeypatch.setattr(bench, "open_bundle", lambda *_, **__: ending)
    settings = sweep.Settings(1, 0, 5, (), (0,), quick=True)
    assert bench.run(bundle, EngineOptions(threads=1), settings)["tokens"]["new"] == 5


def test_the_context_limits_new_tokens_and_must_hold_two(bundle: Path) -> None:
    settings = sweep.Settings(1, 0, 400, (), (), quick=True)
    record = bench.run(bundle, EngineOptions(threads=1, context=200), settings)
    assert record["tokens"]["prompt"] + record["tokens"]["new"] == 201
    assert record["sweeps"] == []
    prompt = record["tokens"]["prompt"]
    with pytest.raises(ContextError, match="must hold"):
        bench.run(bundle, EngineOptions(threads=1, context=prompt), settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetitions", 0),
        ("warmup", -1),
        ("new_tokens", 1),
        ("prompt_lengths", (16, 0)),
        ("depths", (-1,)),
    ],
)
def test_settings_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=field):
        sweep.Settings(**{field: value})


def test_forget_makes_the_next_request_cold(model: pulse_edge.Model) -> None:
    def ask() -> pulse_edge.Answer:
        return model.ask(SAMPLE_PAGE, "What is the rate?", max_new_tokens=3)

    cold, warm = ask(), ask()
    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens == warm.usage.prompt_tokens - 1
    assert warm.timings.vision == warm.timings.decode_image == 0
    model.forget()
    again = ask()
    assert again.usage.cached_tokens == 0
    assert again.timings.vision > 0
    assert again.timings.decode_image > 0
    assert cold.token_ids == warm.token_ids == again.token_ids
    stream = model.stream(None, "What is the rate?", max_new_tokens=8)
    next(stream)
    model.forget()  # waits for the request under way
    assert len(stream.answer.token_ids) == 8
    assert ask().usage.cached_tokens == 0


def worse(record: dict[str, Any], **factors: float) -> dict[str, Any]:
    """A copy with medians multiplied."""
    changed = copy.deepcopy(record)
    for name, factor in factors.items():
        changed["figures"][name]["p50"] *= factor
    return changed


@pytest.fixture
def baseline(record: dict[str, Any], tmp_path: Path) -> Callable[..., baselines.Baseline]:
    def make(fail_over: str = "10%") -> baselines.Baseline:
        path = tmp_path / "baselines.json"
        path.write_text(json.dumps(record))
        return baselines.Baseline(path, fail_over)

    return make


def test_comparison(record: dict[str, Any], baseline: Callable[..., baselines.Baseline]) -> None:
    base = baseline()
    base.check(record)
    base.check(worse(record, ttft_cold=1.09, pp16=0.91, tpot=0.1))
    base.check(
        worse(record, vision=9, ttft_first=9, load_engine=9, e2e=9)
    )  # shown, never a reason to fail
    with pytest.raises(
        RegressionError, match=r"2 of 9 medians .* by over 10 %: pp16, ttft_cold$"
    ) as raised:
        base.check(worse(record, ttft_cold=1.12, pp16=0.8, tpot=0.5))
    assert raised.value.exit_code == 9
    changes = {
        c.name: c.worse for c in base.changes(worse(record, pp16=0.8, tpot=0.5, peak_memory=3))
    }
    assert list(changes)[:2] == ["peak_memory", "pp16"]
    assert changes["peak_memory"] == pytest.approx(2)
    assert changes["pp16"] == pytest.approx(0.2)
    assert changes["tpot"] == pytest.approx(-0.5)
    baseline("25").check(worse(record, pp16=0.8))
    with pytest.raises(RegressionError):
        baseline("0%").check(worse(record, pp16=0.999))


def test_comparison_says_what_is_not_the_same(
    record: dict[str, Any], baseline: Callable[..., baselines.Baseline]
) -> None:
    base = baseline()
    assert "not the same" not in base.table(record)
    record["machine"]["name"] = "another"
    record["provenance"]["engine"]["threads"] = 2
    table = base.table(worse(record, pp16=0.5))
    assert "not the same machine name" in table
    assert "not the same provenance engine threads: the baseline has 1, this run 2" in table
    assert [line.split()[0] for line in table.splitlines() if "REGRESSED" in line] == ["pp16"]
    with pytest.raises(ParameterError, match="no figure in common"):
        base.check(record | {"figures": {}})


def test_baselines_that_are_none(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    baselines.append(path, record | {"time": "first"})
    baselines.append(path, record | {"time": "second"})
    assert baselines.read_record(path)["time"] == "second"
    for text in ("", "{", "[]", '{"schema": 0}', json.dumps(record)[:-9]):
        path.write_text(text)
        with pytest.raises(ParameterError, match="not a result"):
            baselines.read_record(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        baselines.read_record(tmp_path)
    path.write_text(json.dumps(record))
    for bad in ("ten", "-1%", "", "nan"):
        with pytest.raises(ParameterError, match="percentage"):
            baselines.Baseline(path, bad)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in (PROGRAM, "bench", *arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    quick = (
        bundle,
        "--quick",
        "--threads",
        1,
        "--repetitions",
        1,
        "--warmup",
        0,
        "--new-tokens",
        4,
    )
    done = run(*quick, "--prompt-lengths", "32,4096", "--depths", "", "--append", results)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(results.read_text())
    jsonschema.validate(record, SCHEMA)
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("pp")] == [
        "pp32",
        "pp:",
    ]
    assert all(
        f"\n{name} " in done.stdout and f["what"] in done.stdout
        for name, f in list(record["figures"].items())[:-1]
    )
    assert "skipped pp4096" in done.stdout

    record["figures"]["tpot"]["p50"] = 1e-9
    (tmp_path / "unreachable.json").write_text(json.dumps(record, indent=1))
    done = run(
        *quick,
        "--depths",
        "0",
        "--json",
        "--compare",
        tmp_path / "unreachable.json",
        "--fail-over",
        "9000%",
    )
    assert done.returncode == 9
    assert "tg4 @ d0" in json.loads(done.stdout)["figures"]
    assert "REGRESSED" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 1 of ")
    assert "worse than in" in done.stderr

    assert "not a list of whole numbers" in run(bundle, "--depths", "a").stderr
    for code, arguments in (
        (1, ("--append", tmp_path / "none" / "results.jsonl")),
        (2, ("--compare", tmp_path / "none")),
        (2, ("--new-tokens", 1)),
        (3, ("--image", results)),
    ):
        done = run(*quick, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert run(tmp_path / "none").returncode == 4
