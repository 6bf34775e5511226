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
from pulse_edge.cli.ecgbench_runs import duration_text
from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import open_benchmark
from pulse_edge.evaluate.simulated import Reply, report_right, score_replies
from pulse_edge.rates import KIND
from pulse_edge.simulation.cases import heldout_case
from pulse_edge.state import remember

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


def test_scores_agree_with_eval_where_both_ask_the_same(tmp_path: Path) -> None:
    """A page of which pulse-nano reads one choice and the report wrongly."""
    seed = 42
    checked("mini", "--out", tmp_path / "mini", "--pages", 1, "--seed", seed)
    both = "csn-test-no-cot,g12-test-no-cot"
    shared = ("--configs", f"{both},ptb-test-report")
    checked("run", tmp_path / "mini" / "readme", "--out", tmp_path / "run", *shared)
    done = checked("score", tmp_path / "run", tmp_path / "mini" / "readme", "--json")
    scores = {name: row["scores"] for name, row in json.loads(done.stdout)["configs"].items()}

    case = heldout_case(0, seed)
    with pulse_edge.load() as model:
        texts = [model.ask(case.image, item.question).text for item in case.items]
    (by_eval,) = score_replies([Reply(case.truth, case.items, [texts])])
    assert (by_eval.choice, by_eval.report) == ([0.75], [False])
    for scorer in ("upstream", "gem", "strict"):
        accuracies = [scores[config][scorer]["accuracy"] for config in both.split(",")]
        assert accuracies == [1.0, 0.5]
        assert sum(accuracies) / 2 == by_eval.choice[0]
    (report,) = answers(tmp_path / "run", "ptb-test-report")
    assert case.truth is not None
    assert report_right(report["text"], case.truth) is by_eval.report[0]


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


def remembered_speeds(decode_s: float) -> None:
    """What earlier requests of the embedded bundle leave in the state: a token takes `decode_s`."""
    with pulse_edge.load() as model:
        facts = model.runner.rates.facts
    one = [1.0, 1.0, 1.0, 0.001, 0.001]
    value = {"vision": one, "prefill": one, "decode": [1.0, 1.0, 1.0, decode_s, decode_s]}
    remember(KIND, facts, value | {"lengths": {"q0": [1.0, 10.0]}})


@pytest.mark.parametrize("yes", [True, False])
def test_more_than_an_hour_by_this_machines_speeds_wants_yes(
    line: Path, tmp_path: Path, yes: bool
) -> None:
    """Before anything is asked."""
    remembered_speeds(decode_s=400.0)
    more = ("--yes",) if yes else ()
    configs = ("--configs", "ptb-test-report")
    result = ecgbench("run", line / "bench", "--out", tmp_path / "run", *configs, *more)
    assert "predicted time: 1 h 6 min (1 question at 4e+03 s, by the speeds" in result.output
    assert len(answers(tmp_path / "run", "ptb-test-report")) == (1 if yes else 0)
    if yes:
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, ParameterError)
        assert "is over an hour; run again with --yes" in str(result.exception)


def test_less_than_an_hour_is_said_and_not_asked_about(line: Path, tmp_path: Path) -> None:
    remembered_speeds(decode_s=300.0)
    result = checked(
        "run", line / "bench", "--out", tmp_path / "run", "--configs", "ptb-test-report"
    )
    assert result.stderr.startswith("predicted time: 50 min ")


def test_what_is_not_known_is_said_first(line: Path, tmp_path: Path) -> None:
    result = checked(
        "run", line / "bench", "--out", tmp_path / "run", "--configs", "csn-test-no-cot"
    )
    assert result.stderr.startswith("predicted time: known after 3 answers, as this machine has")


def test_a_table_is_all_that_stdout_gets(line: Path, tmp_path: Path) -> None:
    bundles = [tmp_path / name for name in ("one", "two")]
    for bundle in bundles:
        bundle.symlink_to(EMBEDDED)
    more = ("--configs", "csn-test-no-cot", "--limit", 1, "--table")
    compared = ("--against", bundles[1])
    result = checked(
        "run", line / "bench", "--model", bundles[0], *compared, "--out", tmp_path / "r", *more
    )
    rows = result.stdout.splitlines()
    assert rows[0].startswith("| configuration | figure | scorer | paper |")
    assert rows[0].count("|") == 7
    assert "asked" not in result.stdout
    assert "1 asked, 0 were answered before" in result.stderr


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
