"""The whole line of `pulse-edge ecgbench` with pulse-nano, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pulse_edge
from pulse_edge.assets import EMBEDDED
from pulse_edge.cli import cli
from pulse_edge.cli.ecgbench import duration_text
from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import open_benchmark
from pulse_edge.simulation.cases import heldout_case

pytest.importorskip("pyarrow")
CONFIGS = "csn-test-no-cot,g12-test-no-cot,ptb-test-report,ecgqa-test,arena"


def ecgbench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["ecgbench", *map(str, arguments)])


def checked(*arguments: object) -> Result:
    done = ecgbench(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def answers(run: Path, config: str) -> list[dict[str, Any]]:
    text = (run / config / "step-final.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    copies: list[dict[str, Any]] = json.loads(json.dumps(rows))
    for row in copies:
        del row["metadata"]["timings"]
    return copies


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mini, prepare and run, in one folder."""
    folder = tmp_path_factory.mktemp("ecgbench")
    checked("mini", "--out", folder / "mini", "--pages", 1)
    checked("prepare", folder / "mini" / "parquet", "--out", folder / "bench")
    checked("run", folder / "bench", "--out", folder / "run", "--configs", CONFIGS, "--scores")
    return folder


def test_every_item_is_answered_in_order(line: Path) -> None:
    bench = open_benchmark(line / "bench")
    for config in CONFIGS.split(","):
        asked = [row["question_id"] for row in answers(line / "run", config)]
        assert asked == [item.id for item in bench.items[config]]


def test_answers_are_those_of_the_model(line: Path) -> None:
    case = heldout_case(0)
    with pulse_edge.load(alpha="drop") as model:
        expected = [
            model.ask(case.image, item.question).text
            for item in case.items
            if item.task in ("choice", "report")
        ]
    configs = ("ptb-test-report", "csn-test-no-cot", "g12-test-no-cot")
    assert [r["text"] for config in configs for r in answers(line / "run", config)] == expected


def test_scores_are_of_the_options_of_each_kind(line: Path) -> None:
    (first, _) = answers(line / "run", "csn-test-no-cot")
    assert list(first["metadata"]["scores"]) == list("ABCD")
    assert all(score <= 0 for score in first["metadata"]["scores"].values())
    yes_or_no = answers(line / "run", "ecgqa-test")[1]
    assert list(yes_or_no["metadata"]["scores"]) == ["yes", "no"]
    assert "scores" not in answers(line / "run", "arena")[0]["metadata"]


@pytest.mark.parametrize("cut", [1, 40, 700, 1900])
def test_a_cut_run_is_finished_with_the_same_answers(line: Path, tmp_path: Path, cut: int) -> None:
    config = "ecgqa-test"
    path = tmp_path / "run" / config / "step-final.jsonl"
    path.parent.mkdir(parents=True)
    data = (line / "run" / config / "step-final.jsonl").read_bytes()
    path.write_bytes(data[:-cut])
    checked("run", line / "bench", "--out", tmp_path / "run", "--configs", config, "--scores")
    whole = answers(line / "run", config)
    assert without_times(answers(tmp_path / "run", config)) == without_times(whole)


def test_a_finished_run_asks_nothing(line: Path) -> None:
    arguments = ("run", line / "bench", "--out", line / "run", "--configs", CONFIGS, "--scores")
    assert " 0 asked, " in checked(*arguments).output


def test_another_bundle_goes_into_a_run_of_its_own(line: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(EMBEDDED)
    more = ("--configs", "csn-test-no-cot", "--limit", 1)
    checked("run", line / "bench", "--out", tmp_path / "r", "--against", copy, *more)
    first = answers(tmp_path / "r", "csn-test-no-cot")
    second = answers(tmp_path / "r" / "against", "csn-test-no-cot")
    assert [row["answer_id"] for row in first] == [row["answer_id"] for row in second]
    assert len(first) == 1


def test_the_modes_differ_in_the_arenas_later_turns_alone(line: Path, tmp_path: Path) -> None:
    more = ("--configs", "arena,ptb-test-report", "--mode", "clean")
    checked("run", line / "bench", "--out", tmp_path / "r", *more)
    reports = [answers(run, "ptb-test-report") for run in (line / "run", tmp_path / "r")]
    assert reports[0][0]["text"] == reports[1][0]["text"]
    talks = [answers(run, "arena")[0] for run in (line / "run", tmp_path / "r")]
    assert talks[0]["predict_convs"][0] == talks[1]["predict_convs"][0]
    assert talks[0]["metadata"]["usage"] != talks[1]["metadata"]["usage"]


@pytest.mark.parametrize("yes", [True, False])
def test_more_than_an_hour_wants_yes(line: Path, tmp_path: Path, yes: bool) -> None:
    """Three slow items of an earlier run decide, before anything is asked."""
    rows = {config: answers(line / "run", config) for config in CONFIGS.split(",")}
    done = 0
    for config in list(rows)[:2]:
        (tmp_path / config).mkdir()
        kept = rows[config][: 2 - done // 2]
        done += len(kept)
        for row in kept:
            row["metadata"]["timings"]["total"] = 3700.0
        text = "".join(json.dumps(row) + "\n" for row in kept)
        (tmp_path / config / "step-final.jsonl").write_text(text)
    assert done == 3
    configs = ("--configs", ",".join(list(rows)[:2]))
    more = ("--yes",) if yes else ()
    result = ecgbench("run", line / "bench", "--out", tmp_path, *configs, *more)
    assert "predicted time: 1 h 1 min (1 questions at 3.7e+03 s)" in result.output
    if yes:
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, ParameterError)
        assert "is over an hour; run again with --yes" in str(result.exception)
    assert len(answers(tmp_path, list(rows)[1])) == (2 if yes else 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (33 * 86_400, "33 d 0 h"),
    ],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--limit", 1, "--sample", 1), "exclude each other"),
        (("--shard", "3/2"), "must be i/n"),
        (("--configs", "other"), "is not one of"),
        (("--configs", "mmmu-ecg"), "is not in"),
    ],
)
def test_wrong_selections_are_refused_before_a_model_is_loaded(
    tmp_path: Path, arguments: tuple[object, ...], problem: str
) -> None:
    (tmp_path / "arena.json").write_text("[]")
    done = ecgbench("run", tmp_path, "--out", tmp_path / "r", *arguments)
    assert isinstance(done.exception, ParameterError)
    assert problem in str(done.exception)


@pytest.mark.parametrize("arguments", [("--against", "b"), ("--mode", "upstream"), ("--scores",)])
def test_what_needs_a_loaded_bundle_is_refused_for_a_server(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "arena.json").write_text("[]")
    url = "http://127.0.0.1:1/v1"
    done = ecgbench("run", tmp_path, "--out", tmp_path / "r", "--base-url", url, *arguments)
    assert done.exit_code == 2
    assert "needs a bundle that is loaded here" in done.output
