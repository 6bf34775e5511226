"""Which items a report shows: those in which runs differ, then those that are most wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pulse_edge.evaluate.ecgbench.disagreements import MOST, Disagreement, worst_disagreements
from pulse_edge.evaluate.ecgbench.items import open_benchmark
from pulse_edge.evaluate.ecgbench.score import open_runs, score_configs

from support.ecgbench_texts import upstream_line, write_bench, write_lines

Texts = dict[str, list[str]]


def worst(folder: Path, config: str, golds: list[str], texts: Texts) -> list[Disagreement]:
    """Of runs by name, each with a text for each gold."""
    rows: list[dict[str, Any]] = [
        {"id": f"q{number}", "prompt": "Which?\nA. x\nB. y", "gold": gold, "text": ""}
        for number, gold in enumerate(golds)
    ]
    bench = open_benchmark(write_bench(folder / "bench", {config: rows}))
    runs = []
    for name, said in texts.items():
        pairs = zip(rows, said, strict=True)
        lines = [upstream_line({**row, "text": text}) | {"model_id": name} for row, text in pairs]
        runs.append(write_lines(folder / name, config, lines))
    opened = open_runs(runs)
    scored = score_configs(bench, opened, ("strict",), False)
    return worst_disagreements(config, [run.name for run in opened], scored)


def ids(found: list[Disagreement]) -> list[str]:
    return [each.item.id for each in found]


def test_items_that_one_run_alone_had_wrong_come_first(tmp_path: Path) -> None:
    texts = {"a": ["B", "B", "A", "A"], "b": ["B", "B", "A", "B"]}
    found = worst(tmp_path, "mmmu-ecg", ["A", "B", "A", "A"], texts)
    assert ids(found) == ["q3", "q0"]
    assert found[0].gold == "A"
    assert found[0].answers == {"a": ("A", "A"), "b": ("B", "B")}


def test_more_wrong_labels_come_before_fewer(tmp_path: Path) -> None:
    texts = {"a": ["MI", "NORM; HYP", "", "MI"]}
    found = worst(tmp_path, "ptb-test", ["MI", "MI", "CD", "STTC; MI"], texts)
    assert ids(found) == ["q1", "q2", "q3"]


def test_reports_count_by_statements_that_differ(tmp_path: Path) -> None:
    golds = ["Sinus rhythm.", "Atrial fibrillation.", "Sinus rhythm. No ST elevation."]
    texts = {"a": ["Sinus rhythm.", "Sinus rhythm.", "Sinus rhythm. ST elevation."]}
    found = worst(tmp_path, "ptb-test-report", golds, texts)
    assert ids(found) == ["q2", "q1"]  # ST elevation is an ST change, too
    assert "ST elevation: negated" in found[0].gold
    assert found[1].gold == "atrial fibrillation"
    assert found[1].answers["a"] == ("sinus rhythm", "Sinus rhythm.")


def test_a_gold_that_is_no_report_makes_no_answer_wrong(tmp_path: Path) -> None:
    golds = ["Sure, please provide the ECG report that you would like translated.", "Asystole"]
    assert worst(tmp_path, "ptb-test-report", golds, {"a": ["Sinus rhythm.", ""]}) == []


def test_a_report_shows_no_more_than_a_few(tmp_path: Path) -> None:
    assert len(worst(tmp_path, "mmmu-ecg", ["A"] * 20, {"a": ["B"] * 20})) == MOST


def test_the_arena_has_no_truth_to_disagree_with(tmp_path: Path) -> None:
    turns = [{"question": "Q", "answer": "G"}]
    bench = tmp_path / "bench"
    bench.mkdir()
    row = {"id": "a", "image": "a.png", "conversations": turns}
    (bench / "arena.json").write_text(json.dumps([row]), encoding="utf-8")
    run = write_lines(tmp_path / "r", "arena", [{"question_id": "a", "predict_convs": turns}])
    opened = open_runs([run])
    scored = score_configs(open_benchmark(bench), opened, ("strict",), False)
    assert worst_disagreements("arena", ["r"], scored) == []
