"""The three layouts give the same items, with the pages' bytes as they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import CONFIGS, open_benchmark
from pulse_edge.evaluate.ecgbench.mini import write_mini
from pulse_edge.evaluate.ecgbench.prepare import prepare_benchmark

pytest.importorskip("pyarrow")
LAYOUTS = ("parquet", "readme", "gem")


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini") / "data"
    write_mini(folder, pages=1)
    return folder


def readme(folder: Path, rows: list[dict[str, Any]], config: str = "ptb-test") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{config}.json").write_text(json.dumps(rows), "utf-8")
    return folder


def record(number: str = "a", image: str = "p.png", gold: str = "NORM") -> dict[str, Any]:
    talk = [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": gold}]
    return {"id": number, "image": image, "conversations": talk}


def page(folder: Path, name: str, data: bytes) -> None:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_the_three_layouts_give_identical_items_and_pages(mini: Path, tmp_path: Path) -> None:
    contents = []
    for layout in LAYOUTS:
        index = prepare_benchmark(mini / layout, tmp_path / layout)
        assert index["layout"] == layout
        assert index["n"] == sum(row["n"] for row in index["configs"].values())
        files = sorted((tmp_path / layout / "images").rglob("*.png"))
        pages = [(f.relative_to(tmp_path / layout), f.read_bytes()) for f in files]
        contents.append(((tmp_path / layout / "items.jsonl").read_bytes(), pages))
    assert contents[0] == contents[1] == contents[2]
    assert contents[0][1]


def test_the_index_has_counts_and_hashes(mini: Path, tmp_path: Path) -> None:
    prepare_benchmark(mini / "gem", tmp_path / "b")
    index = json.loads((tmp_path / "b" / "index.json").read_text())
    lines = (tmp_path / "b" / "items.jsonl").read_bytes()
    assert index["items_sha256"] == hashlib.sha256(lines).hexdigest()
    assert list(index["configs"]) == [config for config in CONFIGS if config in index["configs"]]
    assert sum(row["published"] for row in index["configs"].values()) <= 11_247
    for item in (json.loads(line) for line in lines.splitlines()):
        data = (tmp_path / "b" / "images" / item["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == item["sha256"]


def test_a_readme_folder_is_a_bench_with_the_same_questions(mini: Path, tmp_path: Path) -> None:
    prepare_benchmark(mini / "parquet", tmp_path / "b")
    prepared = open_benchmark(tmp_path / "b").items
    plain = open_benchmark(mini / "readme").items
    assert prepared.keys() == plain.keys()
    for config, items in plain.items():
        assert [(i.id, i.prompt, i.gold, i.turns, i.image) for i in items] == [
            (i.id, i.prompt, i.gold, i.turns, i.image) for i in prepared[config]
        ]


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff not a picture", b"\x89PNG\r\n\x1a\n\x00\xff"])
def test_bytes_of_pages_stay_as_they_are(tmp_path: Path, data: bytes) -> None:
    source = readme(tmp_path / "d", [record()])
    page(source, "p.png", data)
    index = prepare_benchmark(source, tmp_path / "b")
    assert index["configs"]["ptb-test"]["missing_images"] == (not data)
    if data:
        assert (tmp_path / "b" / "images" / "p.png").read_bytes() == data


def test_a_missing_page_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = readme(tmp_path / "d", [record("a", "absent.png"), record("b")])
    page(source, "p.png", b"page")
    index = prepare_benchmark(source, tmp_path / "b")
    row = index["configs"]["ptb-test"]
    assert (row["n"], row["missing_images"], index["images"]) == (2, 1, 1)


def test_equal_records_are_dropped_and_others_of_an_id_renamed(tmp_path: Path) -> None:
    rows = [record(), record(), record(gold="MI"), record(gold="MI"), record(gold="CD")]
    row = prepare_benchmark(readme(tmp_path / "d", rows), tmp_path / "b")["configs"]["ptb-test"]
    assert (row["n"], row["duplicates"], row["renamed"]) == (3, 2, 2)
    items = open_benchmark(tmp_path / "b").items["ptb-test"]
    assert [(i.id, i.gold) for i in items] == [("a", "NORM"), ("a#2", "MI"), ("a#3", "CD")]


def test_two_pages_of_one_path_both_stay(tmp_path: Path) -> None:
    from pulse_edge.evaluate.ecgbench.parquet import import_pyarrow

    arrow, parquet = import_pyarrow()
    for config, data in (("ptb-test", b"one"), ("ptb-test-report", b"two")):
        rows = [record() | {"image_path": "p.png", "image": {"bytes": data, "path": "p.png"}}]
        (tmp_path / "d" / config).mkdir(parents=True)
        parquet.write_table(
            arrow.Table.from_pylist(rows), tmp_path / "d" / config / "test-00000-of-00001.parquet"
        )
    prepare_benchmark(tmp_path / "d", tmp_path / "b")
    bench = open_benchmark(tmp_path / "b")
    for config, data in (("ptb-test", b"one"), ("ptb-test-report", b"two")):
        assert (bench.images / bench.items[config][0].image).read_bytes() == data


def test_configs_are_chosen(mini: Path, tmp_path: Path) -> None:
    index = prepare_benchmark(mini / "parquet", tmp_path / "b", ["arena", "ptb-test-report"])
    assert list(index["configs"]) == ["ptb-test-report", "arena"]


def test_a_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = readme(tmp_path / "d", [record()])
    with pytest.raises(ParameterError, match="'arena' is not in the data, which has ptb-test"):
        prepare_benchmark(source, tmp_path / "b", ["arena"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"not json", "is not JSON"),
        (b"{}", "must be a JSON list"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b"[3]", "is not an object"),
    ],
)
def test_a_damaged_json_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "ptb-test.json").write_bytes(content)
    with pytest.raises(ParameterError, match=problem):
        prepare_benchmark(tmp_path, tmp_path / "b")
    with pytest.raises(ParameterError, match=problem):
        open_benchmark(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(64)])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "arena").mkdir()
    (tmp_path / "arena" / "test-00000-of-00001.parquet").write_bytes(content)
    with pytest.raises(ParameterError, match=r"\.parquet: cannot be read .*fetch it again"):
        prepare_benchmark(tmp_path, tmp_path / "b")


def test_a_folder_of_two_layouts_is_refused(mini: Path, tmp_path: Path) -> None:
    source = readme(tmp_path / "d", [record()])
    (source / "arena").symlink_to(mini / "parquet" / "arena")
    with pytest.raises(ParameterError, match="parquet files and JSON files"):
        prepare_benchmark(source, tmp_path / "b")


def test_the_folder_above_the_layouts_is_refused_with_their_names(
    mini: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="one of its folders parquet, readme, gem"):
        prepare_benchmark(mini, tmp_path / "b")


@pytest.mark.parametrize("inside", ["index.json", "items.jsonl", "notes.txt"])
def test_a_folder_in_use_is_refused(tmp_path: Path, inside: str) -> None:
    source = readme(tmp_path / "d", [record()])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / inside).touch()
    with pytest.raises(ParameterError, match=r"is in use|is a BENCH already"):
        prepare_benchmark(source, tmp_path / "b")


def test_an_interrupted_folder_is_written_again(tmp_path: Path) -> None:
    source = readme(tmp_path / "d", [record(), record("b") | {"id": None}])
    page(source, "p.png", b"page")
    with pytest.raises(ParameterError, match="id is None"):
        prepare_benchmark(source, tmp_path / "b")
    with pytest.raises(ParameterError, match="ecgbench prepare"):
        open_benchmark(tmp_path / "b")
    readme(source, [record()])
    assert prepare_benchmark(source, tmp_path / "b")["n"] == 1


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps([record()])
    (tmp_path / "ptb-test.json").write_text(text, "utf-8")
    assert len(open_benchmark(tmp_path).items["ptb-test"]) == 1


@pytest.mark.parametrize("line", ["{}", "[]", "3", "not json", '{"config": "other"}'])
def test_a_damaged_items_file_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "items.jsonl").write_text(line + "\n")
    with pytest.raises(ParameterError, match="line 1: is damaged"):
        open_benchmark(tmp_path)
