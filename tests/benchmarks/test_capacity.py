"""Carts per engine: rates of records, the formula, the simulation that checks it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.capacity.__main__ import BEGIN, END, RESULTS, main
from benchmarks.capacity.queueing import most_carts, waiting
from benchmarks.capacity.service import (
    Ecg,
    Rates,
    ServiceTime,
    measured_rates,
    service_time,
)
from benchmarks.capacity.simulation import HASH, PLACES, SHARED, SHORTEST, Scenario, simulate

GPU = Rates(views=500, prefill=30000, decode=200, source="a test")
EXPONENTIAL = ServiceTime(0.0, 1.0, 1.0, 1.0, 1, 1.0)  # a gamma of shape 1
CONSTANT = ServiceTime(1.0, 1.0, 0.0, 0.0, 1, 0.0)


def test_the_seconds_of_an_ecg() -> None:
    ecg = Ecg(
        views=5, page_tokens=3000, questions=2, question_tokens=30, answer_tokens=50, spread=1
    )
    service = service_time(GPU, ecg)
    assert service.fixed == pytest.approx(5 / 500 + 3030 / 30000)
    assert service.mean == pytest.approx(service.fixed + 100 / 200)
    assert service.deviation == pytest.approx(math.sqrt(2) * 50 / 200)


@pytest.mark.parametrize("spread", [0, 0.3, 1, 2])
def test_drawn_seconds_have_the_mean_and_the_deviation(spread: float) -> None:
    service = service_time(GPU, Ecg(spread=spread))
    drawn = service.draw(200_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(service.mean, rel=0.01)
    assert drawn.std() == pytest.approx(service.deviation, rel=0.02, abs=1e-9)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_waits_that_are_known(load: float) -> None:
    """M/M/1 waits load / (1 - load) services, M/D/1 half of it."""
    assert waiting(load, EXPONENTIAL, 9).wait == pytest.approx(load / (1 - load))
    assert waiting(load, CONSTANT, 9).wait == pytest.approx(load / (1 - load) / 2)


@pytest.mark.parametrize("load", [1.0, 1.5])
def test_a_queue_that_never_settles(load: float) -> None:
    assert waiting(load, EXPONENTIAL, 9).wait == math.inf
    assert waiting(load, EXPONENTIAL, 9).late == 1


def test_everybody_is_late_if_the_service_is_longer_than_the_deadline() -> None:
    assert waiting(0.01, CONSTANT, 0.9).late == 1
    assert most_carts(CONSTANT, 6, deadline=0.9, late=0.5) == 0


@pytest.mark.parametrize(("per_hour", "late"), [(1, 0.01), (6, 0.01), (6, 0.2), (600, 0.01)])
def test_one_more_cart_is_too_many(per_hour: float, late: float) -> None:
    carts = most_carts(EXPONENTIAL, per_hour, 8, late)
    assert carts > 0
    assert waiting(carts * per_hour / 3600, EXPONENTIAL, 8).late <= late
    assert waiting((carts + 1) * per_hour / 3600, EXPONENTIAL, 8).late > late


@pytest.mark.parametrize("service", [EXPONENTIAL, CONSTANT, service_time(GPU, Ecg())])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_the_simulation_agrees_with_the_formula(service: ServiceTime, load: float) -> None:
    carts = round(load * 3600 / service.mean / 6)
    told = waiting(carts * 6 / 3600, service, 4)
    seen = simulate(Scenario(carts, 6, hours=30), service, 4)
    assert seen.load == pytest.approx(told.load, rel=0.02)
    assert seen.wait == pytest.approx(told.wait, rel=0.08)
    assert seen.late == pytest.approx(told.late, abs=0.06)


def test_the_simulation_has_as_many_ecgs_as_the_carts_send() -> None:
    for rush in (1.0, 2.0, 4.0):
        seen = simulate(Scenario(100, 6, rush=rush, hours=20), CONSTANT, 9)
        assert seen.ecgs == pytest.approx(12_000, rel=0.05)


def test_a_rush_makes_more_ecgs_late() -> None:
    even, rush = (
        simulate(Scenario(300, 6, rush=rush, hours=20), CONSTANT, 4) for rush in (1.0, 2.0)
    )
    assert rush.late > even.late + 0.05


@pytest.mark.parametrize("rush", [0.5, 5, math.nan])
def test_a_rush_that_cannot_be(rush: float) -> None:
    with pytest.raises(ValueError, match="rush"):
        simulate(Scenario(1, 6, rush=rush), CONSTANT, 4)


def test_the_shortest_queue_is_better_than_a_hash_and_one_queue_is_best() -> None:
    waits = {
        place: simulate(Scenario(1700, 6, 4, place, hours=6), CONSTANT, 4).wait for place in PLACES
    }
    assert waits[SHARED] < waits[SHORTEST] < 0.5 * waits[HASH]


@pytest.mark.parametrize("place", PLACES)
def test_with_one_engine_the_place_does_not_matter(place: str) -> None:
    assert simulate(Scenario(300, 6, 1, place, hours=5), CONSTANT, 4) == simulate(
        Scenario(300, 6, hours=5), CONSTANT, 4
    )


def record(name: str, figures: dict[str, float], layers: int = 32, gpu: str = "A, 1") -> str:
    entry = {"name": name, "figures": {key: {"p50": value} for key, value in figures.items()}}
    machine = {"name": "cpu", "gpu": gpu}
    whole = {"sizes": {"layers": layers}, "machine": machine, "time": "t", "entries": [entry]}
    return json.dumps(whole)


ALL = {"pp512": 1.0, "pp2933": 2.0, "tg32 @ d0": 3.0, "tg16 @ d3000": 4.0, "vision5": 5.0}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (record("ours int4", ALL), ["A, int4"]),
        (record("ours int4", ALL, gpu=""), ["cpu, int4"]),
        (record("theirs", ALL), []),
        (record("ours int4", ALL, layers=2), []),
        (record("ours int4", {k: v for k, v in ALL.items() if k != "vision5"}), []),
        (record("ours int4", {k: v for k, v in ALL.items() if "d3000" not in k}), []),
    ],
)
def test_rates_are_of_whole_models_of_ours(tmp_path: Path, line: str, names: list[str]) -> None:
    file = tmp_path / "compare.jsonl"
    file.write_text(line + "\n")
    rates = measured_rates(file)
    assert [*rates] == names
    for of in rates.values():
        assert (of.views, of.prefill, of.decode) == (5, 2, 4)


def test_the_records_of_the_clone_have_rates() -> None:
    assert measured_rates(RESULTS)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_a_page_and_a_document(tmp_path: Path) -> None:
    document, page = tmp_path / "capacity.md", tmp_path / "capacity.html"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    done = run("--hours", 2, "--write", document, "--html", page)
    assert done.exit_code == 0, done.output
    text = document.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert done.output.strip() in text
    assert "<svg" in page.read_text("utf-8")
    assert "http" not in page.read_text("utf-8").replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--views", 3), "go together"),
        (("--per-hour", 0), "per-hour"),
        (("--late", 1), "late"),
    ],
)
def test_options_that_are_wrong(arguments: tuple[Any, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_rates_that_are_given() -> None:
    rates = ("--views", 400, "--prefill", 16000, "--decode", 290)
    done = run(*rates, "--hours", 1)
    assert done.exit_code == 0, done.output
    assert "as given" in done.output


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("text\n")
    assert "no lines" in run("--hours", 1, "--write", document).output
    assert document.read_text() == "text\n"
