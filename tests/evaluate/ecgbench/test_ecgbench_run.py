"""A run with a model that answers at once: killed, resumed, failing, announced."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pulse_edge.errors import EngineError, ImageError, ParameterError
from pulse_edge.evaluate.ecgbench.answers_file import answer_id
from pulse_edge.evaluate.ecgbench.ask import ItemReply, Mode
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.run import (
    BY_FIRST,
    BY_RATES,
    BY_RUN,
    UNKNOWN,
    RunCounts,
    RunPrediction,
    run_items,
)

from support.paths import ROOT


class Echo:
    """Answers each item with its id.

    Args:
        broken: ids of items whose page cannot be read.
        dies: id at which the engine fails.
        each_s: seconds of an item that are known before; None for none.
    """

    def __init__(
        self,
        identity: str = "seal",
        mode: Mode = "upstream",
        broken: str = "",
        dies: str = "",
        each_s: float | None = None,
    ) -> None:
        self.name = "echo"
        self.identity = identity
        self.mode: Mode = mode
        self.asked: list[str] = []
        self._broken = broken
        self._dies = dies
        self._each_s = each_s

    def ask(self, item: BenchItem, page: bytes) -> ItemReply:
        """See `Asker.ask`."""
        self.asked.append(item.id)
        if item.id == self._dies:
            raise EngineError("the engine failed")
        if item.id in self._broken.split(","):
            raise ImageError("no picture")
        return ItemReply(tuple(f"{item.id} {n}" for n in range(max(1, len(item.turns)))))

    def predict(self, items: Sequence[BenchItem], images: Path) -> float | None:
        """See `Asker.predict`."""
        return None if self._each_s is None else self._each_s * len(items)


def silent(_prediction: RunPrediction) -> None:
    """Nothing."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "p.png").write_bytes(b"page")
    return folder


def items(count: int, config: str = "ptb-test") -> dict[str, tuple[BenchItem, ...]]:
    rows = (BenchItem(config, f"q{number}", "p.png", "Which?", "NORM") for number in range(count))
    return {config: tuple(rows)}


def run(
    asker: Echo, images: Path, plan: dict[str, tuple[BenchItem, ...]], out: str = "run"
) -> RunCounts:
    return run_items(asker, plan, images, images.parent / out, silent)


def lines(images: Path, config: str = "ptb-test") -> list[dict[str, object]]:
    path = images.parent / "run" / config / "step-final.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_upstreams_fields_and_ours_below_metadata(images: Path) -> None:
    run(Echo(), images, items(1))
    (line,) = lines(images)
    metadata = line.pop("metadata")
    assert line == {
        "question_id": "q0",
        "prompt": "Which?",
        "text": "q0 0",
        "answer_id": answer_id("seal", "q0"),
        "model_id": "echo",
    }
    assert isinstance(metadata, dict)
    assert metadata["mode"] == "upstream"
    assert len(metadata["image_sha256"]) == 64
    assert metadata["timings"]["total"] >= 0


def test_an_arena_line_has_both_conversations(images: Path) -> None:
    item = BenchItem("arena", "a", "p.png", "A?", "", (("A?", "a"), ("B?", "b")))
    run(Echo(), images, {"arena": (item,)})
    (line,) = lines(images, "arena")
    assert line["golden_convs"] == [
        {"question": "A?", "answer": "a"},
        {"question": "B?", "answer": "b"},
    ]
    assert line["predict_convs"] == [
        {"question": "A?", "answer": "a 0"},
        {"question": "B?", "answer": "a 1"},
    ]


@pytest.mark.parametrize("answered", [0, 1, 3, 6, 7])
def test_a_run_goes_on_where_the_engine_failed(images: Path, answered: int) -> None:
    dying = Echo(dies=f"q{answered}")
    if answered < 7:
        with pytest.raises(EngineError):
            run(dying, images, items(7))
    else:
        run(dying, images, items(7))
    resumed = Echo()
    counts = run(resumed, images, items(7))
    assert resumed.asked == [f"q{n}" for n in range(answered, 7)]
    assert (counts.before, counts.asked) == (answered, 7 - answered)
    assert [line["question_id"] for line in lines(images)] == [f"q{n}" for n in range(7)]


def test_an_item_without_a_page_is_counted_and_the_run_goes_on(images: Path) -> None:
    plan = items(3)
    plan["ptb-test"] += (BenchItem("ptb-test", "lost", "absent.png", "Which?", "NORM"),)
    plan["ptb-test"] += (BenchItem("ptb-test", "other", "p.png", "Which?", "NORM", (), "0" * 64),)
    counts = run(Echo(broken="q1"), images, plan)
    assert (counts.asked, counts.failed) == (5, 3)
    errors = {
        str(line["question_id"]): line["metadata"]["error"]  # type: ignore[index]
        for line in lines(images)
        if line["text"] == ""
    }
    assert list(errors) == ["q1", "lost", "other"]
    assert "absent.png: cannot be read" in errors["lost"]
    assert "is not the page that was unpacked" in errors["other"]
    assert run(Echo(), images, plan).failed == 3


@pytest.mark.parametrize(
    ("other", "problem"),
    [(Echo("another"), "answers of another model"), (Echo(mode="clean"), "in mode 'upstream'")],
)
def test_answers_of_another_model_or_mode_are_not_mixed(
    images: Path, other: Echo, problem: str
) -> None:
    run(Echo(), images, items(1))
    with pytest.raises(ParameterError, match=problem):
        run(other, images, items(2))
    assert len(lines(images)) == 1


def announced_by(asker: Echo, images: Path, count: int, out: str = "run") -> list[RunPrediction]:
    announced: list[RunPrediction] = []
    run_items(asker, items(count), images, images.parent / out, announced.append)
    return announced


def test_speeds_of_this_machine_predict_before_anything_is_asked(images: Path) -> None:
    asker = Echo(each_s=2.5)

    def refuse(prediction: RunPrediction) -> None:
        assert prediction == RunPrediction(5, 2.5, BY_RATES)
        assert prediction.seconds == 12.5
        raise ParameterError("too long")

    with pytest.raises(ParameterError, match="too long"):
        run_items(asker, items(5), images, images.parent / "run", refuse)
    assert asker.asked == []
    assert announced_by(asker, images, 5) == [RunPrediction(5, 2.5, BY_RATES)]


def test_without_speeds_that_is_said_first_and_three_answers_tell(images: Path) -> None:
    first, then = announced_by(Echo(), images, 5)
    assert (first, first.seconds) == (RunPrediction(5, None, UNKNOWN), None)
    assert (then.items, then.source) == (2, BY_FIRST)


def test_answers_without_a_page_tell_nothing_of_the_time(images: Path) -> None:
    assert len(announced_by(Echo(broken="q0,q1,q2"), images, 6)) == 1
    assert [each.items for each in announced_by(Echo(broken="q1"), images, 6, "b")] == [6, 2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_is_announced_once_all_is_answered(images: Path, count: int) -> None:
    assert len(announced_by(Echo(), images, count)) == 1
    assert announced_by(Echo(), images, count) == []
    assert announced_by(Echo(each_s=1.0), images, count) == []


def test_without_speeds_an_earlier_part_of_the_run_predicts(images: Path) -> None:
    path = images.parent / "run" / "ptb-test" / "step-final.jsonl"
    run(Echo(), images, items(3))
    rows = lines(images)
    for seconds, row in zip((1.0, 2.0, 6.0), rows, strict=True):
        row["metadata"]["timings"]["total"] = seconds  # type: ignore[index]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert announced_by(Echo(), images, 13) == [RunPrediction(10, 3.0, BY_RUN)]


def test_speeds_of_this_machine_come_before_those_of_the_run(images: Path) -> None:
    run(Echo(), images, items(3))
    assert announced_by(Echo(each_s=9.0), images, 4) == [RunPrediction(1, 9.0, BY_RATES)]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from evaluate_echo import Echo, silent
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.run import run_items

folder = Path(sys.argv[1])
plan = {c: tuple(BenchItem(c, f"{c}{n}", "p.png", "Q?", "NORM") for n in range(60)) for c in
        ("ptb-test", "arena")}
draw = random.Random(7)
kills = 0
while True:
    child = os.fork()
    if not child:
        run_items(Echo(), plan, folder, folder / sys.argv[2], silent)
        os._exit(0)
    if sys.argv[2] == "killed" and kills < 20:
        time.sleep(draw.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        kills += 1
    else:
        break
print(kills)
"""
ECHO = """
import time
from pulse_edge.evaluate.ecgbench.ask import ItemReply

class Echo:
    name, identity, mode = "echo", "seal", "upstream"
    def ask(self, item, page):
        time.sleep(0.0003)
        return ItemReply((item.id + " x" * 2000,))

    def predict(self, items, images):
        return None

def silent(prediction):
    pass
"""


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="fork")
def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """The finished file equals the one of an uninterrupted run but for seconds."""
    (tmp_path / "p.png").write_bytes(b"page")
    (tmp_path / "evaluate_echo.py").write_text(ECHO)
    kills = {}
    for out in ("whole", "killed"):
        words = [sys.executable, "-c", KILLED, str(tmp_path), out]
        path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, env=path)
        assert done.returncode == 0, done.stderr
        kills[out] = int(done.stdout)
    assert kills["whole"] == 0
    assert kills["killed"] >= 1
    for config in ("ptb-test", "arena"):
        runs = []
        for out in kills:
            text = (tmp_path / out / config / "step-final.jsonl").read_text()
            rows = [json.loads(line) for line in text.splitlines()]
            for row in rows:
                del row["metadata"]["timings"]
            runs.append(rows)
        assert runs[0] == runs[1]
        assert len(runs[0]) == 60
