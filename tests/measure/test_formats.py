"""Records as CSV and Markdown, read back."""

from __future__ import annotations

import copy
import csv
import io
import json
from typing import Any

import pytest

from pulse_edge.measure import formats


def test_csv_has_a_row_for_each_figure_of_each_record(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record) | {"interrupted": "sweeps"}
    rows = list(csv.DictReader(io.StringIO(formats.csv_text([record, other]))))
    assert tuple(rows[0]) == formats.COLUMNS
    count = len(record["figures"])
    assert [row["figure"] for row in rows] == [*record["figures"]] * 2
    for row, (name, f) in zip(rows, record["figures"].items(), strict=False):
        assert row["figure"] == name
        assert float(row["p50"]) == f["p50"]
        assert float(row["low"]) == f["low"]
        assert int(row["n"]) == len(f["samples"])
        assert float(row["max"]) == max(f["samples"])
        assert row["p99"] == ""  # too few samples
        assert row["threads"] == "1"
    assert {row["interrupted"] for row in rows[:count]} == {""}
    assert {row["interrupted"] for row in rows[count:]} == {"sweeps"}


def test_csv_quotes_names(record: dict[str, Any]) -> None:
    record["provenance"]["checkpoint"]["name"] = 'a, "b"\nc'
    (row, *_) = csv.DictReader(io.StringIO(formats.csv_text([record])))
    assert row["checkpoint"] == 'a, "b"\nc'


def test_markdown_has_a_column_for_each_record(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["provenance"]["engine"]["threads"] = 2
    other["provenance"]["checkpoint"]["name"] = "a|b"
    del other["figures"]["device_memory"]
    text = formats.markdown_text([record, other])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {4}
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[:4] == ["ttft_cold", "ttft_warm", "tpot", "itl"]
    assert names[-4:] == ["pp16", "pp64", "tg5 @ d0", "tg5 @ d40"]
    assert "threads 1" in lines[0]
    assert "threads 2" in lines[0]
    assert "a/b" in lines[0]
    memory = next(line for line in lines if line.startswith("| device_memory"))
    assert memory == "| device_memory | 3 MB | - |"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_json_lines_are_one_a_record(record: dict[str, Any], count: int) -> None:
    lines = formats.json_lines([record] * count).splitlines()
    assert [json.loads(line) for line in lines] == [record] * count
