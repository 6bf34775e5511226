"""`pulse-edge ecgbench score` and `judge` as commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pulse_edge.cli import cli

from support.ecgbench_texts import rows_of, shuffled_lines, write_bench, write_lines

CONFIGS = ("ptb-test", "ecgqa-test", "mmmu-ecg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {config: rows_of(config, 20) for config in CONFIGS}
    write_bench(tmp_path / "bench", rows)
    for config in CONFIGS:
        write_lines(tmp_path / "fp16", config, shuffled_lines(rows[config], 1))
        write_lines(tmp_path / "int4", config, shuffled_lines(rows[config][:15], 2))
    return tmp_path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["ecgbench", *map(str, arguments)])


def test_json_has_scores_by_configuration_and_scorer(folder: Path) -> None:
    done = command("score", folder / "fp16", folder / "bench", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert list(report["configs"]) == list(CONFIGS)
    for config, row in report["configs"].items():
        assert row["n"] == 20
        assert isinstance(row["unparsable"], int)
        assert list(row["scores"]) == ["upstream", "gem", "strict"]
        figures = {"auc", "f1", "hamming_loss"} if config == "ptb-test" else {"accuracy"}
        assert set(row["scores"]["upstream"]) == figures


@pytest.mark.parametrize("scorers", ["strict", "gem,upstream", " strict , upstream "])
def test_scorers_are_chosen_by_a_list(scorers: str, folder: Path) -> None:
    done = command("score", folder / "fp16", folder / "bench", "--scorer", scorers, "--json")
    names = [name.strip() for name in scorers.split(",")]
    assert list(json.loads(done.stdout)["configs"]["mmmu-ecg"]["scores"]) == names


def test_runs_stand_side_by_side_in_markdown(folder: Path) -> None:
    against = ("--against", folder / "int4", "--against", folder / "fp16")
    done = command("score", folder / "fp16", folder / "bench", *against)
    assert done.exit_code == 0, done.output
    head = done.stdout.splitlines()[0]
    assert head.count("|") == 8
    assert "paper" in head
    assert re.search(r"\| mmmu-ecg \| accuracy \| strict \| – \| [01]\.\d{3} \(", done.stdout)


def test_answered_only_scores_what_every_run_answered(folder: Path) -> None:
    pair = (folder / "fp16", folder / "bench", "--against", folder / "int4", "--json")
    whole = json.loads(command("score", *pair).stdout)
    assert whole["against"][0]["configs"]["ptb-test"]["missing"] == 5
    part = json.loads(command("score", *pair, "--answered-only").stdout)
    assert part["configs"]["ptb-test"]["n"] == 15
    assert part["against"][0]["configs"]["ptb-test"]["missing"] == 0


def test_html_writes_a_page_beside_the_table(folder: Path) -> None:
    page = folder / "report.html"
    done = command("score", folder / "fp16", folder / "bench", "--html", page)
    assert done.exit_code == 0, done.output
    assert page.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fp16", "bench", "--scorer", "sklearn"), "upstream,gem,strict"),
        (("fp16", "bench", "--scorer", ","), "upstream,gem,strict"),
        (("none", "bench"), "holds no answers"),
        (("fp16", "fp16"), "holds neither"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = command("score", *arguments)
    assert getattr(done.exception, "exit_code", done.exit_code) == 2
    assert message in done.output + str(done.exception)


def test_judge_asks_nobody_without_a_url(folder: Path) -> None:
    prompts = folder / "prompts.json"
    prompts.write_text('{"report": "x"}', encoding="utf-8")
    options = ("--model", "m", "--prompts", prompts)
    done = command("judge", folder / "fp16", folder / "bench", *options)
    assert done.exit_code == 2
    assert "--base-url" in done.output
