"""The three layouts in which ECGBench is published, recognised by looking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import CONFIGS, IMAGES, read_json_list
from pulse_edge.evaluate.ecgbench.parquet import parquet_rows
from pulse_edge.evaluate.ecgbench.records import EcgRecord, parse_record
from pulse_edge.guarded import open_regular

Layout = Literal["parquet", "readme", "gem"]
GEM_FOLDER = "ecg_bench"  # of the data set that GEM's authors publish
DESCRIPTIONS: Mapping[Layout, str] = {
    "parquet": "one parquet file a configuration, as on Hugging Face",
    "readme": "JSON and images, as upstream's README converts it",
    "gem": "JSON with the paths of the recordings, as GEM's authors publish it",
}
# A record, and how to read its page's bytes: None if the page is missing.
Rows = Iterator[tuple[EcgRecord, Callable[[], bytes | None]]]


@dataclass(frozen=True)
class FoundLayout:
    """Data of ECGBench that lies in a folder.

    Attributes:
        layout: how it lies there.
        files: of each configuration.
        images: folders in which pages of a JSON layout may lie.
    """

    layout: Layout
    files: Mapping[str, tuple[Path, ...]]
    images: tuple[Path, ...] = ()

    def rows(self, config: str) -> Rows:
        """The records of a configuration, in the order of the files.

        Args:
            config: one of `files`.

        Raises:
            ParameterError: a file or a record is not as its writer leaves it.
        """
        for path in self.files[config]:
            if self.layout == "parquet":
                for where, row, data in parquet_rows(path):
                    yield parse_record(row, where), data
                continue
            for number, row in enumerate(read_json_list(path)):
                record = parse_record(row, f"{path}[{number}]")
                yield record, partial(self._page, record.image)

    def _page(self, image: str) -> bytes | None:
        for folder in self.images:
            try:
                with open_regular(folder / image) as file:
                    return file.read()
            except (OSError, ValueError):
                continue
        return None


def find_layout(data: Path, images: Path | None = None) -> FoundLayout:
    """Recognise the layout of a folder.

    Args:
        data: the folder.
        images: where the pages of a JSON layout lie; None: beside the JSON.

    Raises:
        ParameterError: it holds no layout, or two.
    """
    tables = {config: tuple(sorted((data / config).glob("*.parquet"))) for config in CONFIGS}
    tables = {config: files for config, files in tables.items() if files}
    home = data
    if not (found := _json_files(data)):
        home = data / GEM_FOLDER
        found = _json_files(home)
    if tables and found:
        raise ParameterError(
            f"{data}: holds parquet files and JSON files of ECGBench; move one of the two away"
        )
    if tables:
        return FoundLayout("parquet", tables)
    if not found:
        raise ParameterError(f"{data}: {_nothing(data)}")
    folders = (images,) if images else (home / IMAGES, data / IMAGES, home, data)
    layout: Layout = "gem" if _is_gem(next(iter(found.values()))[0]) else "readme"
    return FoundLayout(layout, found, folders)


def _json_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    paths = {config: folder / f"{config}.json" for config in CONFIGS}
    return {config: (path,) for config, path in paths.items() if path.is_file()}


def _is_gem(path: Path) -> bool:
    """Whether records name recordings, which only GEM's do."""
    first: Any = next(iter(read_json_list(path)), None)
    return isinstance(first, dict) and "ecg" in first


def _nothing(data: Path) -> str:
    inside = [name for name in DESCRIPTIONS if (data / name).is_dir()]
    if inside:
        return f"holds no configuration itself; name one of its folders {', '.join(inside)}"
    problem = "holds no configuration of ECGBench" if data.is_dir() else "is no folder"
    return f"{problem}; it needs <config>/*.parquet or <config>.json, as docs/ecgbench.md says"
