"""Which items are asked, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import BenchItem, Benchmark, checked_configs
from pulse_edge.evaluate.ecgbench.selection import Selection, parse_shard

PAGES = ("p0", "p1", "p0", "p2", "p1", "p3", "p4", "p4", "p5", "p0")
ITEMS = tuple(BenchItem("ecgqa-test", f"q{n}", page, "Which?", "a") for n, page in enumerate(PAGES))
BENCH = Benchmark(Path("bench"), {"ecgqa-test": ITEMS, "arena": ITEMS[:2]})


def ids(selection: Selection, config: str = "ecgqa-test") -> list[str]:
    return [item.id for item in selection.of(BENCH)[config]]


def test_items_of_a_page_are_together_at_its_first_place() -> None:
    assert ids(Selection()) == ["q0", "q2", "q9", "q1", "q4", "q3", "q5", "q6", "q7", "q8"]


def test_a_limit_takes_the_first_of_the_file_of_each_configuration() -> None:
    assert sorted(ids(Selection(limit=3))) == ["q0", "q1", "q2"]
    assert ids(Selection(limit=3), "arena") == ["q0", "q1"]


def test_a_sample_is_fixed_by_its_seed() -> None:
    samples = [ids(Selection(sample=4, seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert samples[0] == samples[1]
    assert len({tuple(sample) for sample in samples}) > 1
    assert all(len(sample) == 4 for sample in samples)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 9])
def test_shards_are_disjoint_and_whole_and_keep_pages_together(parts: int) -> None:
    shards = [Selection(shard=(i, parts)).of(BENCH)["ecgqa-test"] for i in range(1, parts + 1)]
    assert sorted(item.id for shard in shards for item in shard) == sorted(i.id for i in ITEMS)
    pages = [{item.image for item in shard} for shard in shards]
    assert sum(map(len, pages)) == len(set(PAGES))


def test_limit_and_sample_exclude_each_other() -> None:
    with pytest.raises(ParameterError, match="exclude each other"):
        Selection(limit=1, sample=1)


@pytest.mark.parametrize("text", ["1/1", "1/8", "8/8", " 2/3 "])
def test_a_shard_is_read(text: str) -> None:
    index, parts = parse_shard(text)
    assert text.strip() == f"{index}/{parts}"


@pytest.mark.parametrize("text", ["0/2", "3/2", "0/0", "1", "/2", "1/", "a/b", "-1/2", "1/2/3", ""])
def test_another_shard_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="must be i/n"):
        parse_shard(text)


@pytest.mark.parametrize("names", ["ptb", "ptb-test,,x", "", ",", "PTB-TEST"])
def test_another_configuration_is_refused(names: str) -> None:
    with pytest.raises(ParameterError, match="is not one of ptb-test, "):
        checked_configs(names)


def test_a_configuration_that_is_not_in_the_bench_is_refused() -> None:
    with pytest.raises(ParameterError, match="ptb-test is not in bench"):
        Selection(("ptb-test",)).of(BENCH)
