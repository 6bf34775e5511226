"""Scores of runs against a second implementation, and what counts how often."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.reports import statement_pairs
from pulse_edge.evaluate.ecgbench.score import open_runs, run_names, score_runs
from pulse_edge.evaluate.ecgbench.score_table import score_markdown
from pulse_edge.evaluate.ecgbench.summary import runs_of
from pulse_edge.panels.statements import Statement, parse_statements

from support.ecgbench_oracle import authors_scores, strict_scores
from support.ecgbench_texts import (
    CODES,
    rows_of,
    shuffled_lines,
    upstream_line,
    write_bench,
    write_lines,
)

SCORED = (*CODES, "ecgqa-test", "csn-test-no-cot", "g12-test-no-cot", "mmmu-ecg")


def scores_of(folder: Path, config: str, rows: Any, lines: Any, **options: Any) -> dict[str, Any]:
    bench = write_bench(folder / "bench", {config: rows})
    run = write_lines(folder / "run", config, lines)
    report: dict[str, Any] = score_runs([run], bench, **options)["configs"][config]
    return report


@pytest.mark.parametrize("config", SCORED)
def test_2000_adversarial_texts_score_as_a_second_implementation_scores_them(
    config: str, tmp_path: Path
) -> None:
    rows = rows_of(config, 2000, seed=5)
    lines = shuffled_lines(rows, seed=5)
    report = scores_of(tmp_path, config, rows, lines)
    for scorer in ("upstream", "gem"):
        expected = authors_scores(config, rows, lines, scorer == "gem")
        figures = {name: float(value) for name, value in expected.items()}
        assert report["scores"][scorer] == pytest.approx(figures, abs=1e-12), scorer
    expected, unparsable = strict_scores(config, rows)
    figures = {name: float(value) for name, value in expected.items()}
    assert report["scores"]["strict"] == pytest.approx(figures, abs=1e-12)
    assert (report["n"], report["unparsable"]) == (2000, unparsable)


@pytest.mark.parametrize("config", SCORED)
def test_strict_draws_no_random_number(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(config, 30)
    lines = shuffled_lines(rows, 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a random number was drawn")

    for name in ("seed", "random", "choice", "randint", "randrange", "shuffle", "Random"):
        monkeypatch.setattr(random, name, refuse)
    for name in ("seed", "random", "choice", "randint", "default_rng", "RandomState"):
        monkeypatch.setattr(np.random, name, refuse)
    report = scores_of(tmp_path, config, rows, lines, scorers=["strict"])
    assert list(report["scores"]) == ["strict"]
    assert report["intervals"]["strict"]["accuracy"] is not None


def test_the_report_has_the_fields_of_the_issue(tmp_path: Path) -> None:
    rows = rows_of("ptb-test", 40)
    report = scores_of(tmp_path, "ptb-test", rows, shuffled_lines(rows, 1))
    assert {"n", "unparsable", "scores"} <= set(report)
    assert set(report["scores"]) == {"upstream", "gem", "strict"}
    assert set(report["scores"]["upstream"]) == {"auc", "f1", "hamming_loss"}
    assert {"f1", "hamming_loss", "accuracy"} <= set(report["scores"]["strict"])
    assert report["paper"] == {"auc": 0.824, "f1": 0.748, "hamming_loss": 0.110}
    json.dumps(report, allow_nan=False)


def test_the_same_answers_score_the_same_every_time(tmp_path: Path) -> None:
    rows = rows_of("csn-test-no-cot", 60)
    lines = shuffled_lines(rows, 1)
    first = scores_of(tmp_path / "a", "csn-test-no-cot", rows, lines)
    assert scores_of(tmp_path / "b", "csn-test-no-cot", rows, lines) == first


def test_each_configuration_starts_a_stream_of_its_own(tmp_path: Path) -> None:
    alone = {}
    rows = {config: rows_of(config, 50) for config in SCORED}
    bench = write_bench(tmp_path / "bench", rows)
    for config in SCORED:
        lines = [upstream_line(row) for row in rows[config]]
        write_lines(tmp_path / "all", config, lines)
        run = write_lines(tmp_path / config, config, lines)
        alone[config] = score_runs([run], bench)["configs"][config]
    assert score_runs([tmp_path / "all"], bench)["configs"] == alone


CHOICE_PROMPT = "Which?\nA. x\nB. y\nC. z\nD. w"


def choice_bench(folder: Path, texts: Sequence[str | None], gold: str = "B") -> dict[str, Any]:
    """mmmu-ecg with one item for each text; None is an item without an answer."""
    rows = [
        {"id": f"q{number}", "prompt": CHOICE_PROMPT, "gold": gold, "text": text}
        for number, text in enumerate(texts)
    ]
    lines = [upstream_line(row) for row in rows if row["text"] is not None]
    return scores_of(folder, "mmmu-ecg", rows, lines)


def test_missing_answers_are_wrong_and_figures_are_of_all_items(tmp_path: Path) -> None:
    report = choice_bench(tmp_path, ["B", None, "B", "A", None])
    assert (report["n"], report["missing"], report["unparsable"]) == (5, 2, 0)
    assert {scorer: each["accuracy"] for scorer, each in report["scores"].items()} == {
        "upstream": 0.4,
        "gem": 0.4,
        "strict": 0.4,
    }


def test_answered_only_leaves_out_items_without_an_answer(tmp_path: Path) -> None:
    choice_bench(tmp_path, ["B", None, "B", "A", None])
    report = score_runs([tmp_path / "run"], tmp_path / "bench", answered_only=True)
    assert report["configs"]["mmmu-ecg"]["n"] == 3
    assert report["configs"]["mmmu-ecg"]["scores"]["strict"]["accuracy"] == pytest.approx(2 / 3)


def test_unparsable_answers_are_counted_and_wrong_for_strict(tmp_path: Path) -> None:
    report = choice_bench(tmp_path, ["", "nothing", "B", "E"])
    assert report["unparsable"] == 3
    assert report["scores"]["strict"]["accuracy"] == 0.25
    assert report["strict"]["accuracy_with_guesses"] == pytest.approx((1 + 3 / 4) / 4)


def test_guesses_of_upstream_are_counted(tmp_path: Path) -> None:
    report = choice_bench(tmp_path, ["", "nothing", "B", "E", "(C)"])
    assert report["guessed"] == {"upstream": 3, "gem": 3, "strict": 0}


def test_the_last_line_of_a_question_counts(tmp_path: Path) -> None:
    rows = [{"id": "q", "prompt": CHOICE_PROMPT, "gold": "B", "text": text} for text in "AB"]
    report = scores_of(tmp_path, "mmmu-ecg", rows[:1], [upstream_line(row) for row in rows])
    assert (report["n"], report["duplicates"]) == (1, 1)
    assert report["scores"]["upstream"]["accuracy"] == 1


def test_answers_to_other_questions_are_counted_apart(tmp_path: Path) -> None:
    rows = [{"id": name, "prompt": CHOICE_PROMPT, "gold": "B", "text": "B"} for name in "xyz"]
    report = scores_of(tmp_path, "mmmu-ecg", rows[:1], [upstream_line(row) for row in rows])
    assert (report["n"], report["foreign"]) == (1, 2)


def test_a_run_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    rows = rows_of("mmmu-ecg", 3)
    bench = write_bench(tmp_path / "bench", {"mmmu-ecg": rows})
    strange = [{**upstream_line(row), "question_id": "other"} for row in rows]
    with pytest.raises(ParameterError, match="answers no question of"):
        score_runs([write_lines(tmp_path / "run", "mmmu-ecg", strange)], bench)


@pytest.mark.parametrize("scorers", [[], ["sklearn"], ["strict", "Upstream"]])
def test_unknown_scorers_are_refused_with_those_there_are(
    scorers: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="upstream,gem,strict"):
        score_runs([tmp_path], tmp_path, scorers)


def labels_report(folder: Path, golds: list[str], texts: list[str]) -> dict[str, Any]:
    rows = [
        {"id": str(number), "prompt": "?", "gold": gold, "text": text}
        for number, (gold, text) in enumerate(zip(golds, texts, strict=True))
    ]
    return scores_of(folder, "ptb-test", rows, [upstream_line(row) for row in rows])


def test_a_class_that_every_item_has_makes_the_authors_auc_null(tmp_path: Path) -> None:
    report = labels_report(tmp_path, ["MI", "MI; CD"], ["MI", "CD"])
    upstream = report["scores"]["upstream"]
    assert upstream["auc"] is None
    assert upstream["f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert upstream["hamming_loss"] == 0.25
    assert report["intervals"]["upstream"]["auc"] is None


def test_one_class_in_the_golds_gives_the_f1_of_its_absence(tmp_path: Path) -> None:
    golds = ["MI", "MI", "", ""]
    report = labels_report(tmp_path, golds, ["MI", "", "", "MI CD"])
    assert report["scores"]["upstream"]["f1"] == 0.5
    report = labels_report(tmp_path, golds, ["MI", "MI", "MI", ""])
    assert report["scores"]["upstream"]["f1"] == pytest.approx(2 / 3)


def test_no_label_in_the_golds_makes_the_authors_figures_null(tmp_path: Path) -> None:
    report = labels_report(tmp_path, ["none", "none"], ["MI", "none"])
    assert report["scores"]["upstream"] == {"f1": None, "auc": None, "hamming_loss": None}
    assert report["scores"]["strict"]["accuracy"] == 0.5


def test_contradictions_and_golds_outside_the_space_are_counted(tmp_path: Path) -> None:
    report = labels_report(tmp_path, ["NORM", "MI; XYZ"], ["NORM; MI", "MI"])
    assert report["strict"]["contradictions"] == 1
    assert report["strict"]["golds_outside"] == 1


def test_upstream_takes_the_answer_of_the_line_before_for_a_line_without_one(
    tmp_path: Path,
) -> None:
    rows = [{"id": name, "prompt": CHOICE_PROMPT, "gold": "B", "text": "B"} for name in "xy"]
    lines = [upstream_line(rows[0]), {"question_id": "y"}]
    report = scores_of(tmp_path, "mmmu-ecg", rows, lines)
    assert report["scores"]["upstream"]["accuracy"] == 1
    assert report["scores"]["strict"]["accuracy"] == 0.5


def with_scores(row: Any, scores: dict[str, float]) -> dict[str, Any]:
    return {**upstream_line(row), "metadata": {"scores": scores}}


def test_a_real_auc_comes_from_option_scores_in_a_field_of_its_own(tmp_path: Path) -> None:
    golds = ["MI", "CD", "MI", "CD"]
    rows = [
        {"id": str(number), "prompt": "?", "gold": gold, "text": gold}
        for number, gold in enumerate(golds)
    ]
    scores = [(-1.0, -3.0), (-2.0, -1.0), (-3.0, -2.0), (-2.5, -0.5)]
    lines = [
        with_scores(row, {"MI": mi, "CD": cd}) for row, (mi, cd) in zip(rows, scores, strict=True)
    ]
    report = scores_of(tmp_path, "ptb-test", rows, lines)
    assert report["auc (scores)"] == {"value": 0.75, "classes": {"MI": 0.5, "CD": 1.0}, "n": 4}
    assert report["scores"]["upstream"]["auc"] == 1
    choice = [with_scores(row, {"A": -1.0, "B": -2.0}) for row in rows_of("mmmu-ecg", 8)]
    report = scores_of(tmp_path / "c", "mmmu-ecg", rows_of("mmmu-ecg", 8), choice)
    assert report["auc (scores)"]["classes"] == {"A": 0.5, "B": 0.5}
    qa = [with_scores(row, {"yes": -1.0, "no": -2.0}) for row in rows_of("ecgqa-test", 8)]
    report = scores_of(tmp_path / "d", "ecgqa-test", rows_of("ecgqa-test", 8), qa)
    assert "auc (scores)" not in report
    plain = scores_of(tmp_path / "b", "ptb-test", rows, [upstream_line(row) for row in rows])
    assert "auc (scores)" not in plain


def test_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    choice_bench(tmp_path, ["B"] * 10 + ["A"] * 2)
    rows = [
        {"id": f"q{number}", "prompt": CHOICE_PROMPT, "gold": "B", "text": "C"}
        for number in range(12)
    ]
    write_lines(tmp_path / "int4", "mmmu-ecg", [upstream_line(row) for row in rows])
    report = score_runs([tmp_path / "run", tmp_path / "int4"], tmp_path / "bench")
    compared = report["against"][0]["comparison"]["mmmu-ecg"]
    assert compared["identical"] == 0
    strict = compared["scores"]["strict"]
    assert strict["mcnemar"] == {"only_first": 10, "only_second": 0, "p": 2 / 2**10}
    assert strict["difference"]["accuracy"]["value"] == pytest.approx(-10 / 12)
    low, high = strict["difference"]["accuracy"]["interval"]
    assert -1 <= low < -10 / 12 < high < -0.5


def test_the_table_has_a_column_for_the_paper_and_one_for_each_run(tmp_path: Path) -> None:
    choice_bench(tmp_path, ["B", "A"])
    run = tmp_path / "run"
    table = score_markdown(score_runs([run, run, run], tmp_path / "bench"))
    head, _, first, *_ = table.splitlines()
    assert head == f"| configuration | figure | scorer | paper | {run} | {run} | {run} |"
    assert first.startswith("| mmmu-ecg | accuracy | upstream, gem | 0.580 | 0.500 (")
    assert "+0.000 (+0.000 to +0.000), p = 1 |" in first
    assert "| 100.0 % |" in table
    guesses = "| mmmu-ecg | accuracy with random guesses, expected | strict | – |"
    assert f"{guesses} 0.500 | 0.500 | 0.500 |" in table


def test_the_table_says_what_was_left_out(tmp_path: Path) -> None:
    rows = [{"id": name, "prompt": CHOICE_PROMPT, "gold": "B", "text": "B"} for name in "xyz"]
    bench = write_bench(tmp_path / "bench", {"mmmu-ecg": [*rows[:2], {**rows[0], "id": "w"}]})
    lines = [upstream_line(row) for row in [*rows, rows[0]]]
    run = write_lines(tmp_path / "run", "mmmu-ecg", lines)
    with open(run / "mmmu-ecg" / "step-final.jsonl", "a", encoding="utf-8") as file:
        file.write('{"question_id": "y", "te')
    table = score_markdown(score_runs([run], bench))
    assert "mmmu-ecg of m: 1 of 3 items have no answer and count as wrong" in table
    assert "mmmu-ecg of m: 1 line replaced by a later one of its question" in table
    assert "mmmu-ecg of m: 1 answer to a question that the benchmark does not have" in table
    assert "mmmu-ecg of m: the last line is cut off and was left out" in table


def run_of(folder: Path, name: str, model: str, **metadata: object) -> Path:
    rows = rows_of("mmmu-ecg", 3)
    lines = [{**upstream_line(row), "model_id": model, "metadata": metadata} for row in rows]
    write_bench(folder / "bench", {"mmmu-ecg": rows})
    return write_lines(folder / name, "mmmu-ecg", lines)


def test_runs_are_named_by_their_models_where_these_differ(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "RUN", "fp16"), run_of(tmp_path, "RUN/against", "int4")]
    assert [run.name for run in open_runs(runs)] == ["fp16", "int4"]
    again = [run_of(tmp_path, "clean", "fp16"), runs[0]]
    assert [run.name for run in open_runs(again)] == ["clean", "RUN"]
    unnamed = run_of(tmp_path, "unnamed", "")
    assert [run.name for run in open_runs([unnamed])] == ["unnamed"]


def test_a_run_says_its_model_its_precision_and_its_latency(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, "a", "A", precision="fp16", timings={"total": 3.0}),
        run_of(tmp_path, "b", "B", precision="int4", timings={"total": 1.0}),
        run_of(tmp_path, "c", "C", precision=["int4"]),
    ]
    report = score_runs(runs, tmp_path / "bench")
    found = [(run["model"], run["precision"]) for run in runs_of(report)]
    assert found == [("A", "fp16"), ("B", "int4"), ("C", None)]
    latencies = [run["latency_s"] for run in runs_of(report)]
    assert latencies == [
        {"median": 3.0, "p95": 3.0, "n": 3},
        {"median": 1.0, "p95": 1.0, "n": 3},
        None,
    ]


def test_right_options_are_counted_by_their_text(tmp_path: Path) -> None:
    report = choice_bench(tmp_path, ["B", "B", "A", ""])
    assert report["strict"]["by_option"] == {"y": {"n": 4, "accuracy": 0.5}}
    rows = [{"id": "q", "prompt": "Which?", "gold": "C", "text": "C"}]
    report = scores_of(tmp_path / "b", "mmmu-ecg", rows, [upstream_line(rows[0])])
    assert report["strict"]["by_option"] == {"C": {"n": 1, "accuracy": 1.0}}


def test_runs_of_equal_names_are_named_by_their_paths() -> None:
    assert run_names(["a/run", "b/run"]) == ["a/run", "b/run"]
    assert run_names(["a/fp16", "b/int4/"]) == ["fp16", "int4"]


@pytest.mark.parametrize("config", [config for config in SCORED if config != "ecgqa-test"])
def test_random_answers_score_as_the_papers_random_row(config: str, tmp_path: Path) -> None:
    """Accuracy and balanced accuracy, which do not depend on the golds. ECG-QA's row does."""
    rows = rows_of(config, 2000)
    draw = random.Random(3)
    row = CONFIGURATIONS[config]
    for each in rows:
        if row.kind == "labels":
            each["text"] = "; ".join(code for code in row.space if draw.random() < 0.5)
        else:
            each["text"] = draw.choice(row.letters)
    lines = [upstream_line(each) for each in rows]
    figures = scores_of(tmp_path, config, rows, lines)["scores"]["upstream"]
    name = "auc" if row.kind == "labels" else "accuracy"
    assert figures[name] == pytest.approx(row.random[name], abs=0.04)


def test_scoring_imports_no_model_library(tmp_path: Path) -> None:
    rows = rows_of("mmmu-ecg", 4)
    scores_of(tmp_path, "mmmu-ecg", rows, [upstream_line(row) for row in rows])
    program = (
        "import sys; from pulse_edge.evaluate.ecgbench.score import score_runs; "
        f"score_runs([{str(tmp_path / 'run')!r}], {str(tmp_path / 'bench')!r}); "
        "heavy = {'torch', 'transformers', 'onnxruntime', 'sklearn', 'pyarrow', 'sentencepiece'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def report_runs(folder: Path) -> tuple[list[Path], Path]:
    """Two runs of reports and the arena; the second has no arena. Latencies are 1 and 3 s."""
    rows = [
        {"id": f"r{number}-0", "prompt": "Report.", "gold": "Sinus rhythm.", "text": text}
        for number, text in enumerate(["Sinus rhythm.", ""])
    ]
    bench = write_bench(folder / "bench", {"ptb-test-report": rows})
    turns = [{"question": "Q", "answer": "G"}]
    arena = [{"id": "a", "image": "a.png", "conversations": turns}]
    (bench / "arena.json").write_text(json.dumps(arena), encoding="utf-8")
    lines = [
        {**upstream_line(row), "metadata": {"timings": {"total": total}}}
        for row, total in zip(rows, (1.0, 3.0), strict=True)
    ]
    runs = [write_lines(folder / name, "ptb-test-report", lines) for name in ("fp16", "int4")]
    write_lines(runs[0], "arena", [{"question_id": "a", "predict_convs": turns}])
    return runs, bench


def test_reports_and_the_arena_have_counts_and_no_scores(tmp_path: Path) -> None:
    runs, bench = report_runs(tmp_path)
    report = score_runs(runs, bench)
    reports = report["configs"]["ptb-test-report"]
    assert (reports["n"], reports["unparsable"], reports["scores"]) == (2, 1, {})
    assert reports["statements"]["recall"] == 0.5
    assert reports["latency_s"]["median"] == 2
    assert report["configs"]["arena"]["scores"] == {}
    assert "arena" not in report["against"][0]["configs"]
    table = score_markdown(report)
    assert "| ptb-test-report | f1 of statements | offline, not the judge |" in table
    assert "| ptb-test-report | int4 | 2 | 0 | 1 | – | 100.0 % | 2.00 |" in table


def test_a_run_without_a_configuration_has_empty_cells(tmp_path: Path) -> None:
    rows = rows_of("mmmu-ecg", 3)
    bench = write_bench(tmp_path / "bench", {"mmmu-ecg": rows, "g12-test-no-cot": rows})
    lines = [upstream_line(row) for row in rows]
    runs = [write_lines(tmp_path / "a", "mmmu-ecg", lines)]
    runs.append(write_lines(tmp_path / "b", "g12-test-no-cot", lines))
    table = score_markdown(score_runs(runs, bench))
    assert any(
        line.startswith("| g12-test-no-cot | accuracy | strict | – | – |")
        for line in table.splitlines()
    )


# What the data set's card says there is: 11,247 questions.
PUBLISHED = {
    "ptb-test": 2082,
    "ptb-test-report": 500,
    "code15-test": 1400,
    "ecgqa-test": 1317,
    "cpsc-test": 2061,
    "csn-test-no-cot": 1611,
    "g12-test-no-cot": 2026,
    "mmmu-ecg": 200,
    "arena": 50,
}
STATEMENTS = (
    "Sinus rhythm",
    "no acute ST elevation",
    "left bundle branch block",
    "possible left ventricular hypertrophy",
    "The PR interval is 160 ms",
)


def long_text(draw: random.Random) -> str:
    return " ".join(f"{draw.choice(STATEMENTS)}." for _ in range(70))


def full_size(folder: Path) -> None:
    """A run file of the benchmark's size, with reports and conversations of some 2 kB."""
    draw = random.Random(1)
    rows = {config: rows_of(config, PUBLISHED[config]) for config in SCORED}
    rows["ptb-test-report"] = [
        {"id": f"r{n}", "prompt": "Report.", "gold": STATEMENTS[n % 5], "text": long_text(draw)}
        for n in range(PUBLISHED["ptb-test-report"])
    ]
    bench = write_bench(folder / "bench", rows)
    for config, each in rows.items():
        write_lines(folder / "run", config, [upstream_line(row) for row in each])
    turns = [{"question": "Q", "answer": "G"}, {"question": "R", "answer": "G"}]
    names = [f"a{number}" for number in range(PUBLISHED["arena"])]
    arena = [{"id": name, "image": "a.png", "conversations": turns} for name in names]
    (bench / "arena.json").write_text(json.dumps(arena), encoding="utf-8")
    said = [{"question": turn["question"], "answer": long_text(draw)} for turn in turns]
    lines = [{"question_id": name, "predict_convs": said} for name in names]
    write_lines(folder / "run", "arena", lines)


def test_a_full_size_run_is_scored_in_little_memory(tmp_path: Path) -> None:
    full_size(tmp_path)
    program = (
        "import json; from pulse_edge.evaluate.ecgbench.score import score_runs; "
        "from pulse_edge.system import peak_memory; "
        f"report = score_runs([{str(tmp_path / 'run')!r}], {str(tmp_path / 'bench')!r}); "
        "counts = {name: row['n'] - row['missing'] for name, row in report['configs'].items()}; "
        "print(json.dumps([counts, peak_memory()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    counts, peak = json.loads(done.stdout)
    assert counts == PUBLISHED
    assert sum(counts.values()) == 11_247
    assert peak < 500e6


def test_each_text_is_searched_for_statements_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What scoring a long report costs: runs that are compared share the golds' statements."""
    searched: list[str] = []

    def parse(text: str) -> tuple[Statement, ...]:
        searched.append(text)
        return parse_statements(text)

    statement_pairs.cache_clear()
    monkeypatch.setattr("pulse_edge.evaluate.ecgbench.reports.parse_statements", parse)
    rows = [
        {"id": f"r{n}", "prompt": "Report.", "gold": f"Gold {n % 3}.", "text": f"Answer {n % 4}."}
        for n in range(12)
    ]
    bench = write_bench(tmp_path / "bench", {"ptb-test-report": rows})
    lines = [upstream_line(row) for row in rows]
    runs = [write_lines(tmp_path / name, "ptb-test-report", lines) for name in "ab"]
    score_runs(runs, bench)
    assert sorted(searched) == [
        *(f"Answer {n}." for n in range(4)),
        *(f"Gold {n}." for n in range(3)),
    ]
