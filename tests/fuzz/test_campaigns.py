"""Some cases of every campaign, and that campaigns, watchdog and counts find what is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.errors import ImageError, ParameterError
from pulse_edge.page.source import read_page

pytest.importorskip("onnx", reason="campaigns export with pulse-edge[export]")
pytest.importorskip("pydicom", reason="campaigns write recordings with pulse-edge[ecg]")
pytest.importorskip("ecgdatakit", reason="campaigns read carts' files with pulse-edge[formats]")
pytest.importorskip("starlette", reason="a campaign serves with pulse-edge[server]")
from fuzz import images, json_, recordings
from fuzz.__main__ import table, write_page
from fuzz.campaign import ESCAPE, HANG, MEMORY, SILENT, Campaign, Entry, Finding, attempt
from fuzz.odd import Odd
from fuzz.runner import Run, Tally
from fuzz.table import CAMPAIGNS
from fuzz.worker import run_case

# Campaign -> cases of the suite: about a second each.
SHORT = {
    "images": 300,
    "recordings": 40,
    "carts": 100,
    "pdfs": 4,
    "bundles": 40,
    "checkpoints": 60,
    "cli": 25,
    "exports": 4,
    "operations": 10,
    "server": 150,
}


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    campaign = CAMPAIGNS[name].open(tmp_path)
    tally = Tally(name, 0)
    for number in range(SHORT[name]):
        tally.add(run_case(campaign, name, 0, number))
    assert tally.findings == []
    assert tally.counts.total() >= SHORT[name]
    assert len(tally.counts) > 1, "all cases end alike"


@pytest.mark.parametrize("name", ["images", "recordings", "carts", "bundles", "checkpoints"])
def test_a_case_is_the_same_again(name: str, tmp_path: Path) -> None:
    replies = []
    for attempt_ in ("one", "two"):
        (tmp_path / attempt_).mkdir()
        campaign = CAMPAIGNS[name].open(tmp_path / attempt_)
        replies.append([run_case(campaign, name, 3, number) for number in (5, 1)])
    assert replies[0] == replies[1]


# -- what a campaign must notice


def findings(campaign: Campaign, name: str, count: int) -> set[str]:
    replies = [run_case(campaign, name, 0, number) for number in range(count)]
    return {reply["kind"] for reply in replies if "kind" in reply}


def test_another_picture_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = images.Images(tmp_path)
    other = read_page(images.picture(9, 9, 0))
    monkeypatch.setattr(images, "read_page", lambda _: other)
    assert findings(campaign, "images", 60) == {SILENT}


@pytest.mark.parametrize("error", [ValueError("two\nlines"), ImageError("two\nlines"), OSError(5)])
def test_an_escape_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: bytes) -> None:
        raise error

    campaign = images.Images(tmp_path)
    monkeypatch.setattr(images, "read_page", fail)
    assert findings(campaign, "images", 5) == {ESCAPE}


def test_another_signal_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = recordings.Recordings(tmp_path)
    read = read_recording

    def louder(path: Path) -> Any:
        recording = read(path)
        return type(recording)(recording.signals * np.float32(2), recording.rate, recording.leads)

    monkeypatch.setattr(recordings, "read_recording", louder)
    assert SILENT in findings(campaign, "recordings", 60)


def test_an_ignored_scale_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = recordings.Recordings(tmp_path)
    recording = read_recording(tmp_path / "recording.dcm")
    monkeypatch.setattr(recordings, "read_recording", lambda _: recording)
    assert SILENT in findings(sound, "recordings", 60)


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\x0bb", "x" * 9999])
def test_a_message_is_one_line(text: str) -> None:
    def fail() -> None:
        raise ParameterError(text)

    with pytest.raises(Finding, match="no single line"):
        attempt(fail)


# -- the runner


def test_the_runner_finds_and_goes_on(tmp_path: Path) -> None:
    entry = Entry("odd cases", Odd, 10, seconds=0.5, memory=50_000_000)
    replies = tmp_path / "replies" / "odd.jsonl"
    first = Run("odd", entry, 7, 0, replies).run(2)
    kinds = {finding["number"]: finding["kind"] for finding in first.findings}
    assert kinds == {1: ESCAPE, 2: HANG, 3: ESCAPE, 4: SILENT, 5: MEMORY}
    assert (first.cases, first.counts) == (7, {"fine": 4})
    assert "ended with 9" in next(f["text"] for f in first.findings if f["number"] == 3)
    before = replies.read_text()
    second = Run("odd", entry, 9, 0, replies).run(2)
    assert replies.read_text().startswith(before), "what has run does not run again"
    assert len(replies.read_text().splitlines()) == 9
    assert (second.cases, second.counts) == (9, {"fine": 8})
    assert {finding["number"] for finding in second.findings} == {1, 2, 3, 4, 5}


def test_the_table_counts_each_kind(tmp_path: Path) -> None:
    tally = Tally("images", 1)
    tally.add({"number": 0, "counts": {"refused": 1200}})
    for number, kind in enumerate((ESCAPE, SILENT, SILENT, HANG, MEMORY), 1):
        tally.add({"number": number, "kind": kind, "text": ""})
    row = table([tally]).splitlines()[-1]
    assert row == "| damaged image files | 6 | 1,200 | 1 | 2 | 1 | 1 |"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- counts -->\nold\n<!-- /counts -->\nafter\n")
    write_page([tally], page)
    assert page.read_text().splitlines()[0] == "before"
    assert row in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("<!-- /counts -->\nafter\n")


# -- changed JSON


def test_one_place_changes() -> None:
    data = {"a": [1, 2.5, {"b": "text", "c": True}], "d": None}
    assert list(json_.places(data)) == [
        ("a",), ("a", 0), ("a", 1), ("a", 2), ("a", 2, "b"), ("a", 2, "c"), ("d",),
    ]  # fmt: skip
    before = json.dumps(data)
    rng = random.Random(0)
    changes = [json_.change(data, rng) for _ in range(200)]
    assert json.dumps(data) == before
    assert {place for _, place in changes} == set(json_.places(data))
    assert len({repr(changed) for changed, _ in changes}) > 60


def test_every_campaign_has_a_row_and_a_short_run() -> None:
    assert SHORT.keys() == CAMPAIGNS.keys()
    assert all(isinstance(entry, Entry) and entry.cases > 0 for entry in CAMPAIGNS.values())
