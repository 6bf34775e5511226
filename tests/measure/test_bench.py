"""Benchmarks: statistics on known numbers, costs by hand, and whole runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ContextError, ParameterError
from pulse_edge.measure import bench, figures, requests, sweep, tables
from pulse_edge.measure import peaks as machine

from support.paths import DOCS, PROGRAM
from support.spy import Measured

SCHEMA = json.loads((DOCS / "bench.schema.json").read_text())
ANSWER_SCHEMA = json.loads((DOCS / "answer.schema.json").read_text())
PROVENANCE = ANSWER_SCHEMA | {
    "properties": {"provenance": ANSWER_SCHEMA["properties"]["provenance"]}
}


def test_percentiles_look_to_the_bad_side() -> None:
    times = figures.figure("", "s", "lower", True, range(1, 102))
    assert (times.p50, times.p90, times.p99) == (51, 91, 100)
    assert times.low < 51 < times.high
    rates = figures.figure("", "tokens/s", "higher", True, range(1, 102))
    assert (rates.p50, rates.p90, rates.p99) == (51, 11, 2)
    single = figures.figure("", "s", "lower", True, [0.12345678])
    assert single.samples == (0.123457,)
    assert single.p50 == single.low == single.high == single.samples[0]


@pytest.mark.parametrize(("count", "given"), [(1, False), (99, False), (100, True), (500, True)])
def test_a_p99_needs_a_hundred_samples(count: int, given: bool) -> None:
    assert (figures.figure("", "s", "lower", True, range(count)).p99 is not None) is given


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "s", "12.3 s"),
        (1.5, "s", "1.5 s"),
        (0.1234, "s", "123 ms"),
        (4.56e-6, "s", "4.56 us"),
        (2e-9, "s", "0.002 us"),
        (-1.5e-3, "s", "-1.5 ms"),
        (3.59e9, "bytes", "3.59 GB"),
        (1.4e8, "bytes", "140 MB"),
        (864.0, "bytes", "0.864 kB"),
        (3.456, "tokens/s", "3.46/s"),
        (77794.0, "tokens/s", "77,794/s"),
    ],
)
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
    found = dict(requests.cold_samples(dataclasses.replace(answer, timings=timings, usage=usage)))
    assert found["tpot"] == [1.0]
    assert found["outside_engine"] == [0.25]
    assert found["decode_step"] == (0.5, 0.75, 1.0)
    assert (found["sample"], found["detokenise"]) == ([0.1], [0.05])
    assert found["vision_per_view"] == [1.5 / answer.provenance["image"]["views"]]
    assert found.keys() <= bench.FIGURES.keys()


def test_costs_of_pulse_7b(bundle: Path) -> None:
    """Against figures from the model's sizes alone: 6.48 G linear weights, 0.5 MiB of fp16 cache a
    token.
    """
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
    prefill = sweep.Run("pp", 2880, 0)
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
    flop, read = whole(sweep.Run("tg", 2, 3000))
    assert read == 2 * weights + (3000 + 3001 << 19)
    assert flop == 2 * (2 * layers + 2 * 4096 * 32000) + 32 * 4 * 4096 * (3001 + 3002)


def test_shares_of_the_peaks(bundle: Path) -> None:
    """A run of 2 s against known peaks; none of a read peak where the caches could hold the
    weights.
    """
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
    assert counts["decode_step"] == 3 * 4
    assert 3 <= counts["itl"] <= 3 * 4  # tokens that are parts of a character come together
    assert all(counts[n] == 3 for n in ("ttft_cold", "ttft_warm", "tpot", "vision", *sweeps))
    assert all(counts[n] == 1 for n in ("load_check", "load_engine", "ttft_first", "peak_memory"))
    assert record["peaks"]["threads"] == 1
    assert counts["projector"] == 3
    assert 0 < record["figures"]["projector"]["p50"] < record["figures"]["vision"]["p50"]
    assert 20e6 < record["figures"]["peak_memory"]["p50"] < 4e9
    assert record["figures"]["device_memory"]["p50"] == 3e6
    assert all(
        p["read_share"] is None for p in record["sweeps"]
    )  # the tiny weights lie in the cache
    assert record["interrupted"] is None
    assert record["warmup"].keys() == {"requests", *sweeps}
    assert {w["repetitions"] for w in record["warmup"].values()} == {1}
    assert len(record["contention"]["pace"]) == 3
    total = sum(record["figures"]["e2e"]["samples"])
    assert total > 0
    assert record["goodput"] == {
        "objectives_ms": {"ttft": 60_000.0, "tpot": 1e-9},
        "requests": 3,
        "good": 0,
        "requests_per_s": 0,
    }


def test_the_engine_ran_exactly_what_the_figures_say(measured: Measured) -> None:
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
        *(3 * repetition),
    ]
    requests[2:2] = [image]  # the first request's page is forgotten too
    assert calls[: len(requests)] == requests
    swept: list[tuple[str, int, int]] = []
    swept += 4 * [("prefill", 0, 16)] + 4 * [("prefill", 0, 64)]
    swept += 4 * [("choose", i, 1) for i in range(5)]
    swept += [("prefill", 0, 40), *(4 * [("choose", 40 + i, 1) for i in range(5)])]
    assert calls[len(requests) :] == swept


def test_an_end_token_does_not_end_a_measured_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every token made an end token, a plain model stops at once and a measured one takes all
    its steps.
    """
    opened = open_bundle(bundle)
    text = dataclasses.replace(opened.manifest.model.text, eos=tuple(range(512)))
    spec = dataclasses.replace(opened.manifest.model, text=text)
    ending = Bundle(opened.path, dataclasses.replace(opened.manifest, model=spec))
    plain = pulse_edge.Model(ending, open_engine(ending, EngineOptions(threads=1)))
    assert plain.ask(None, "What is the rate?").finish_reason == "eos"
    monkeypatch.setattr(bench, "open_bundle", lambda *_, **__: ending)
    settings = sweep.Settings(1, 0, 0, 5, (), (0,), quick=True)
    assert bench.run(bundle, EngineOptions(threads=1), settings)["tokens"]["new"] == 5


def test_the_context_limits_new_tokens_and_must_hold_two(bundle: Path) -> None:
    settings = sweep.Settings(1, 0, 0, 400, (), (), quick=True)
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
        ("warmup_limit", -1),
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
