"""The questions of a benchmark folder, opened for asking and for scoring."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.records import EcgRecord, Text, parse_record
from pulse_edge.guarded import open_regular, reason

CONFIGS = tuple(CONFIGURATIONS)
ITEMS = "items.jsonl"
INDEX = "index.json"
IMAGES = "images"


@dataclass(frozen=True)
class BenchItem:
    """A question.

    Attributes:
        config: of ECGBench.
        id: no two items of a configuration have the same.
        image: path of the page below the folder of images.
        prompt: the first question.
        gold: the answer as the file has it; "" for an arena conversation.
        turns: of an arena conversation: its questions and answers.
        sha256: of the page's file; "" if nobody has hashed it.
    """

    config: str
    id: str
    image: str
    prompt: str
    gold: Text
    turns: tuple[tuple[str, str], ...] = ()
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As a line of `items.jsonl`."""
        return {
            "config": self.config,
            "id": self.id,
            "image": self.image,
            "sha256": self.sha256,
            "prompt": self.prompt,
            "gold": self.gold,
            "turns": self.turns,
        }

    @classmethod
    def of(cls, config: str, record: EcgRecord, image: str = "", sha256: str = "") -> BenchItem:
        """From a record of a configuration.

        Args:
            config: of the record.
            record: as read.
            image: where the page lies now; "": where the record says.
            sha256: of the page's file.
        """
        path = image or record.image
        return cls(config, record.id, path, record.prompt, record.gold, record.turns, sha256)


@dataclass(frozen=True)
class Benchmark:
    """An opened BENCH.

    Attributes:
        folder: where it lies.
        items: by configuration, in the order of the files; only configurations that are there.
    """

    folder: Path
    items: Mapping[str, tuple[BenchItem, ...]]

    @property
    def images(self) -> Path:
        """The folder that the items' image paths start from."""
        return self.folder / IMAGES


class UniqueIds:
    """Makes the ids of a configuration's items unique.

    Attributes:
        dropped: items that were equal to an earlier one.
        renamed: items that had the id of another one, and got a number after it.
    """

    def __init__(self) -> None:
        self._seen: dict[str, BenchItem] = {}
        self.dropped = 0
        self.renamed = 0

    def add(self, item: BenchItem) -> BenchItem | None:
        """The item with an id of its own; None if it was there already.

        Args:
            item: the next one of the file.
        """
        name = item.id
        number = 1
        while name in self._seen:
            if replace(self._seen[name], id=item.id) == item:
                self.dropped += 1
                return None
            number += 1
            name = f"{item.id}#{number}"
        self.renamed += name != item.id
        unique = replace(item, id=name)
        self._seen[name] = unique
        return unique


def open_benchmark(path: str | os.PathLike[str]) -> Benchmark:
    """Open a BENCH. Its images may be missing: scoring needs none.

    Args:
        path: what `prepare` wrote, or a folder of `<config>.json` files as upstream's README has
            them.

    Raises:
        ParameterError: it is neither, or a file is damaged.
    """
    folder = Path(path)
    if (folder / ITEMS).is_file():
        return Benchmark(folder, _grouped(_prepared_items(folder / ITEMS)))
    files = [config for config in CONFIGS if (folder / f"{config}.json").is_file()]
    if not files:
        raise ParameterError(
            f"{folder}: holds neither {ITEMS} nor a <config>.json; make it with "
            "`pulse-edge ecgbench prepare DATA --out BENCH`"
        )
    return Benchmark(folder, {config: _from_json(folder, config) for config in files})


def _from_json(folder: Path, config: str) -> tuple[BenchItem, ...]:
    path = folder / f"{config}.json"
    unique = UniqueIds()
    rows = read_json_list(path)
    items = (
        BenchItem.of(config, parse_record(row, f"{path}[{number}]"))
        for number, row in enumerate(rows)
    )
    return tuple(item for item in map(unique.add, items) if item is not None)


def read_json_list(path: Path) -> list[Any]:
    """The records of a JSON file that is one list.

    Args:
        path: of the file; a byte order mark is no matter.

    Raises:
        ParameterError: it cannot be read, or is no list.
    """
    try:
        rows = json.loads(_json_text(path))
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{path}: is not JSON ({error}); fetch it again") from None
    if not isinstance(rows, list):
        raise ParameterError(f"{path}: must be a JSON list of records")
    return rows


def _json_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path}: is not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: cannot be read ({reason(error)})") from None


def _prepared_items(path: Path) -> Iterator[BenchItem]:
    for number, line in enumerate(_json_text(path).split("\n"), 1):
        if line.strip():
            yield _item(line, f"{path}, line {number}")


def _item(line: str, where: str) -> BenchItem:
    try:
        fields = json.loads(line)
        gold = fields["gold"]
        texts = [fields[name] for name in ("config", "id", "image", "prompt", "sha256")]
        turns = tuple((question, answer) for question, answer in fields["turns"])
        if fields["config"] not in CONFIGURATIONS or not all(isinstance(t, str) for t in texts):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ParameterError(f"{where}: is damaged; run ecgbench prepare again") from None
    config, name, image, prompt, sha256 = texts
    raw = gold if isinstance(gold, str) else tuple(gold)
    return BenchItem(config, name, image, prompt, raw, turns, sha256)


def _grouped(items: Iterable[BenchItem]) -> dict[str, tuple[BenchItem, ...]]:
    groups: dict[str, list[BenchItem]] = {}
    for item in items:
        groups.setdefault(item.config, []).append(item)
    return {config: tuple(groups[config]) for config in CONFIGS if config in groups}


def checked_configs(names: str | None) -> tuple[str, ...] | None:
    """Configurations from a list with commas.

    Args:
        names: such as "ptb-test,arena"; None for all that are there.

    Raises:
        ParameterError: there is no such configuration.
    """
    if names is None:
        return None
    parts = [part.strip() for part in names.split(",") if part.strip()]
    wrong = [part for part in parts if part not in CONFIGURATIONS]
    if wrong or not parts:
        shown = wrong[0] if wrong else names
        raise ParameterError(f"configuration {shown!r:.60} is not one of {', '.join(CONFIGS)}")
    return tuple(config for config in CONFIGS if config in parts)
