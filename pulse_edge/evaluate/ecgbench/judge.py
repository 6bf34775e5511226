"""A model as judge of reports and arena answers, over an OpenAI-compatible URL that the user gives.

This is no part of `score`: it sends golds and answers to that URL, and to nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.items import BenchItem, open_benchmark
from pulse_edge.evaluate.ecgbench.judge_client import JudgeClient
from pulse_edge.evaluate.ecgbench.judge_prompts import read_prompts
from pulse_edge.evaluate.ecgbench.judgements import Judgement, JudgementFile, read_judgement
from pulse_edge.evaluate.ecgbench.reports import is_broken_gold
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine, read_run
from pulse_edge.evaluate.ecgbench.upstream import gold_text
from pulse_edge.progress import Progress

JUDGED = {"ptb-test-report": "report", "arena": "arena"}  # configuration -> key of the prompts
WHAT = (
    "scores of the judge and the prompts named here; they are comparable with the paper's only if "
    "both are the paper's"
)

Asker = Callable[[BenchItem, AnswerLine], str]


def judge_run(
    run: str | os.PathLike[str],
    bench: str | os.PathLike[str],
    *,
    base_url: str,
    model: str,
    prompts: str | os.PathLike[str],
    api_key: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Have reports and arena answers judged.

    Each judgement is kept at once in `RUN/<config>/judge-….judgements`. A later call with the same
    URL, model and prompts asks only for what is missing or was not readable.

    Args:
        run: folder of the answers.
        bench: folder of the benchmark.
        base_url: of an OpenAI-compatible server, up to and with `/v1`.
        model: that judges.
        prompts: file with the instructions, see `read_prompts`.
        api_key: sent as bearer token.
        progress: told after each answer.

    Returns:
        JSON-ready: by configuration the mean of all judged items and of each aspect, as fractions.

    Raises:
        ParameterError: a file or the URL is not as it must be, or the server refuses.
    """
    texts = read_prompts(Path(prompts))
    client = JudgeClient(base_url, model, api_key)
    benchmark = open_benchmark(bench)
    opened = read_run(run)
    report: dict[str, Any] = {"what": WHAT, "model": model, "base_url": base_url, "configs": {}}
    for config, key in JUDGED.items():
        items = {item.id: item for item in benchmark.items.get(config, ())}
        answers = opened.answers.get(config)
        lines = [line for line in answers.lines if line.question_id in items] if answers else []
        if lines and key in texts:
            store = JudgementFile(opened.folder, config, client.identity(texts[key]))
            failed = _judge_lines(lines, items, store, _asker(client, texts[key]), progress)
            kept = [each for line in lines if (each := store.judgements.get(line.question_id))]
            report["configs"][config] = _judged(kept, len(items), failed)
    if not report["configs"]:
        judged = ", ".join(f"{config} by {key!r}" for config, key in JUDGED.items())
        raise ParameterError(
            f"{run}: has no answers that the prompts of {prompts} are for; judged are {judged}"
        )
    return report


def _asker(client: JudgeClient, prompt: str) -> Asker:
    return lambda item, line: client.ask(judge_message(prompt, item, line))


def _judge_lines(
    lines: list[AnswerLine],
    items: dict[str, BenchItem],
    store: JudgementFile,
    ask: Asker,
    progress: Progress | None,
) -> int:
    """Judge what has no judgement yet. Returns how many replies were not readable."""
    failed = 0
    for line in lines:
        if line.question_id not in store.judgements:
            item = items[line.question_id]
            scores = read_judgement(ask(item, line))
            failed += not scores
            if scores:
                broken = not item.turns and is_broken_gold(gold_text(item.gold))
                store.add(Judgement(line.question_id, scores, broken))
        if progress:
            progress("judging", 1, len(lines))
    return failed


def judge_message(prompt: str, item: BenchItem, line: AnswerLine) -> str:
    """The one message that the judge gets.

    Args:
        prompt: the instructions.
        item: with the gold.
        line: with the answer.
    """
    if not item.turns:
        gold = gold_text(item.gold)
        return (
            f"{prompt} \n [The Start of Ground Truth Report]\n {gold}\n "
            "[The End of Ground Truth Report]\n [The Start of Generated Report]\n "
            f"{line.text or ''}\n [The End of Generated Report]"
        )
    answers = (*line.turns, *[""] * len(item.turns))
    golds = "\n\n".join(
        f"**Question:**\n{question}\n\n**Ground Truth Answer:** {gold}"
        for question, gold in item.turns
    )
    said = "\n\n".join(
        f"**Question:**\n{question}\n\n**Model's Response:** {answer}"
        for (question, _), answer in zip(item.turns, answers, strict=False)
    )
    return (
        f"{prompt} \n [The Start of Ground Truth Answer]\n {golds}\n [The End of Ground Truth "
        f"Answer]\n\n [The Start of Model's Response]\n {said}\n [The End of Model's Response]"
    )


def _judged(kept: list[Judgement], items: int, failed: int) -> dict[str, Any]:
    aspects: dict[str, list[float]] = {}
    for judgement in kept:
        for aspect, score in judgement.scores.items():
            aspects.setdefault(aspect, []).append(score / 10)
    sound = [each.mean for each in kept if not each.broken]
    return {
        "n": items,
        "judged": len(kept),
        "unreadable": failed,
        "score": _mean_of([each.mean for each in kept]),
        "score_without_broken_golds": _mean_of(sound),
        "aspects": {name: _mean_of(scores) for name, scores in aspects.items()},
    }


def _mean_of(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def judge_markdown(report: Mapping[str, Any]) -> str:
    """A judge's report for people.

    Args:
        report: as `judge_run` returns it.
    """
    lines = ["| configuration | figure | score | judged of n |", "| --- | --- | --- | --- |"]
    for config, row in report["configs"].items():
        figures = {
            "mean of all aspects": row["score"],
            "without broken golds": row["score_without_broken_golds"],
            **row["aspects"],
        }
        for name, value in figures.items():
            cell = "–" if value is None else f"{value:.3f}"
            shown = " ".join(name.split()).replace("|", "\\|")
            lines.append(f"| {config} | {shown} | {cell} | {row['judged']} of {row['n']} |")
    return "\n".join([*lines, "", f"Judge: {report['model']}. {report['what']}."])
