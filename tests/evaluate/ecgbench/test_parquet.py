"""Parquet as different writers leave it: the streamed column equals what pyarrow reads."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench import parquet as parquet_module
from pulse_edge.evaluate.ecgbench.parquet import PAGES, parquet_rows
from pulse_edge.evaluate.ecgbench.parquet_encoding import read_hybrid
from pulse_edge.evaluate.ecgbench.parquet_values import can_stream, column_values

arrow: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")
IMAGE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])


def pages(kind: str) -> list[bytes | None]:
    draw = random.Random(kind)
    match kind:
        case "random":
            return [draw.randbytes(draw.randrange(5000)) for _ in range(40)]
        case "repetitive":
            return [bytes([n % 5]) * 3000 + b"ab" * draw.randrange(2000) for n in range(40)]
        case "mixed":
            words = [draw.randbytes(7) for _ in range(30)]
            return [b"".join(draw.choices(words, k=draw.randrange(900))) for _ in range(40)]
        case "same":
            return [draw.choice((b"one", b"two" * 500, b"")) for _ in range(300)]
        case "nulls":
            return [draw.choice((None, None, b"", draw.randbytes(50))) for _ in range(300)]
        case _:
            return [None] * 20


def write(path: Path, data: list[bytes | None], **settings: Any) -> Path:
    rows = [
        {
            "id": str(number),
            "image_path": f"{number}.png",
            "image": {"bytes": each, "path": f"{number}.png"},
            "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A"}],
        }
        for number, each in enumerate(data)
    ]
    table = arrow.Table.from_pylist(rows)
    table = table.set_column(2, "image", arrow.array([row["image"] for row in rows], IMAGE))
    parquet.write_table(table, path, **settings)
    return path


@pytest.mark.parametrize("kind", ["random", "repetitive", "mixed", "same", "nulls", "only nulls"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "brotli"])
def test_streamed_values_are_pyarrows(tmp_path: Path, kind: str, codec: str) -> None:
    data = pages(kind)
    for dictionary, version in product((True, False), ("1.0", "2.0")):
        for rows, size in ((1000, 1 << 20), (17, 700)):
            path = write(
                tmp_path / "f.parquet",
                data,
                compression=codec,
                use_dictionary=dictionary,
                data_page_version=version,
                row_group_size=rows,
                data_page_size=size,
            )
            assert streamed(path) == data


def streamed(path: Path) -> list[bytes | None]:
    values: list[bytes | None] = []
    file = parquet.ParquetFile(path)
    names = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
    place = names.index(PAGES)
    schema = file.metadata.schema.column(place)
    with path.open("rb") as raw:
        for group in range(file.num_row_groups):
            column = file.metadata.row_group(group).column(place)
            assert can_stream(column, schema.max_repetition_level)
            values += column_values(arrow, raw, column, schema.max_definition_level)
    return values


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_rows_are_the_same_streamed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(parquet_module, "LARGE", large)
    data = pages("nulls")
    rows = list(parquet_rows(write(tmp_path / "f.parquet", data, row_group_size=70)))
    assert [page() for _, _, page in rows] == data
    assert [row["id"] for _, row, _ in rows] == [str(n) for n in range(len(data))]
    assert rows[71][0].endswith("row 71")
    assert rows[0][1]["conversations"][1] == {"from": "gpt", "value": "A"}
    assert rows[0][1]["image"] == {"path": "0.png"}


def test_a_damaged_streamed_page_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "LARGE", 0)
    path = write(tmp_path / "f.parquet", pages("mixed"), use_dictionary=False)
    whole = path.read_bytes()
    place = parquet.ParquetFile(path).metadata.row_group(0).column(2).data_page_offset
    draw = random.Random(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[place + draw.randrange(3000)] = draw.randrange(256)
        path.write_bytes(bytes(damaged))
        with suppress(ParameterError):  # what damages a picture alone is not noticed here
            list(parquet_rows(path))
    path.write_bytes(whole[:place] + bytes(40) + whole[place + 40 :])
    with pytest.raises(ParameterError, match=r"cannot be read .*; fetch it again"):
        list(parquet_rows(path))


@pytest.mark.parametrize(
    ("data", "width", "values"),
    [
        (bytes([6, 1]), 1, [1, 1, 1]),
        (bytes([3, 0b10001000, 0b11000110, 0b11111010]), 3, list(range(8))),
        (bytes([4, 2, 3, 0b00000101]), 2, [2, 2, 1, 1, 0, 0]),
        (bytes([2, 0x34, 0x12]), 16, [0x1234]),
    ],
)
def test_runs_and_packed_bits(data: bytes, width: int, values: list[int]) -> None:
    assert read_hybrid(data, width, len(values)) == values


def test_too_few_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="fewer numbers"):
        read_hybrid(bytes([4, 1]), 1, 3)
