"""One row a run: its mean over what all runs answer, beside its latency."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.evaluate.ecgbench.summary import main_figure, main_scorer, summary_rows


def config(scores: dict[str, float | None], seconds: float | None = None) -> dict[str, Any]:
    whole = dict.fromkeys(scores, (0.0, 1.0))
    latency = None if seconds is None else {"median": seconds, "p95": 2 * seconds, "n": 1}
    return {
        "scores": {"strict": scores, "upstream": dict.fromkeys(scores, 0.25)},
        "intervals": {"strict": whole, "upstream": whole},
        "latency_s": latency,
    }


def reports(f1: float | None) -> dict[str, Any]:
    return config({}) | {"statements": {"f1": f1}}


def run(name: str, configs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"run": name, "precision": None, "latency_s": None, "configs": configs, **more}


def report_of(first: dict[str, Any], *others: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**first, "scorers": ["upstream", "strict"], "against": list(others), **more}


def identical(**shares: tuple[float, int]) -> dict[str, Any]:
    return {
        name: {"identical": share, "answered_by_both": count}
        for name, (share, count) in shares.items()
    }


@pytest.mark.parametrize(
    ("scorers", "expected"),
    [
        (["upstream", "gem", "strict"], "strict"),
        (["gem"], "gem"),
        (["upstream", "gem"], "upstream"),
        (["strict", "upstream"], "strict"),
    ],
)
def test_strict_counts_where_it_was_asked_for(scorers: list[str], expected: str) -> None:
    assert main_scorer({"scorers": scorers}) == expected


def test_the_mean_is_over_configurations_that_all_runs_answer() -> None:
    first = {
        "ptb-test": config({"f1": 0.5, "accuracy": 0.1}),
        "mmmu-ecg": config({"accuracy": 0.9}),
        "ptb-test-report": reports(0.4),
        "csn-test-no-cot": config({"accuracy": 0.0}),
        "arena": config({}),
    }
    second = {
        "ptb-test": config({"f1": 0.6, "accuracy": 0.1}),
        "mmmu-ecg": config({"accuracy": 0.8}),
        "ptb-test-report": reports(0.7),
    }
    rows = list(summary_rows(report_of(run("a", first), run("b", second))))
    assert [row[:4] for row in rows] == [["a", "–", "0.600", "–"], ["b", "–", "0.700", "+10.0"]]


def test_a_figure_that_cannot_be_computed_leaves_its_configuration_out() -> None:
    first = {"ptb-test": config({"f1": None}), "mmmu-ecg": config({"accuracy": 0.5})}
    second = {"ptb-test": config({"f1": 0.9}), "mmmu-ecg": config({"accuracy": 0.25})}
    rows = list(summary_rows(report_of(run("a", first), run("b", second))))
    assert [row[2] for row in rows] == ["0.500", "0.250"]
    rows = list(summary_rows(report_of(run("a", {"ptb-test": config({"f1": None})}))))
    assert [row[2] for row in rows] == ["–"]


def test_latency_precision_and_identical_answers_stand_beside() -> None:
    configs = {"mmmu-ecg": config({"accuracy": 0.5}, 1.5)}
    latency = {"median": 1.5, "p95": 3.0, "n": 1}
    compared = identical(**{"mmmu-ecg": (0.5, 10), "ptb-test": (1.0, 30), "arena": (0.0, 0)})
    second = run("b", configs, comparison=compared) | {"latency_s": latency, "precision": "int4"}
    rows = list(summary_rows(report_of(run("a", configs), second)))
    assert rows[0][4:] == ["–", "–", "–"]
    assert rows[1] == ["b", "int4", "0.500", "+0.0", "87.5 %", "1.50", "3.00"]


def test_the_figure_of_a_configuration_is_of_its_kind() -> None:
    configs = {
        "cpsc-test": config({"f1": 0.5, "accuracy": 0.1}),
        "ecgqa-test": config({"accuracy": 0.75}),
        "ptb-test-report": reports(0.4),
        "arena": config({}),
    }
    one = run("a", configs)
    found = {name: main_figure(one, name, "strict") for name in (*configs, "mmmu-ecg")}
    named = {name: each and (each.name, each.value, each.interval) for name, each in found.items()}
    assert named == {
        "cpsc-test": ("f1", 0.5, (0.0, 1.0)),
        "ecgqa-test": ("accuracy", 0.75, (0.0, 1.0)),
        "ptb-test-report": ("f1 of statements", 0.4, None),
        "arena": None,
        "mmmu-ecg": None,
    }
    upstream = main_figure(one, "cpsc-test", "upstream")
    assert upstream is not None
    assert upstream.value == 0.25
