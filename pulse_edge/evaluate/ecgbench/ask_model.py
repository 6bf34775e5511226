"""Asks a loaded model, on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulse_edge.answer import Answer
from pulse_edge.evaluate.ecgbench.ask import MAX_NEW_TOKENS, ItemReply, Mode
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.conversation import shifted_prompt
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.prediction import RunPredictor
from pulse_edge.evaluate.ecgbench.strict_choices import lettered_options
from pulse_edge.evaluate.ecgbench.upstream import prompt_candidates
from pulse_edge.model import Model

_DIGITS = 4  # of a log-probability; further ones depend on what the cache held


class ModelAsker:
    """A loaded model.

    Args:
        model: loaded with `alpha_of(mode)`.
        name: of its bundle.
        mode: of the prompts.
        scores: whether options get log-probabilities, too.
    """

    def __init__(self, model: Model, name: str, mode: Mode, scores: bool = False) -> None:
        self.name = name
        self.identity = model.bundle.digest
        self.mode: Mode = mode
        self._model = model
        self._scores = scores

    def ask(self, item: BenchItem, page: bytes) -> ItemReply:
        """See `Asker.ask`."""
        if item.turns:
            answers = self._converse([question for question, _ in item.turns], page)
        else:
            answers = [self._model.ask(page, item.prompt, max_new_tokens=MAX_NEW_TOKENS)]
        precision = self._model.bundle.manifest.precision.name
        metadata = reply_metadata(answers) | {"precision": precision}
        options = scored_options(item) if self._scores else ()
        if options:
            scores = self._model.score(page, item.prompt, options)
            # A letter or a code begins an answer; an option of ECG-QA is a whole one.
            whole = CONFIGURATIONS[item.config].kind == "qa"
            metadata["scores"] = {
                score.option: round(score.logprob if whole else score.text_logprob, _DIGITS)
                for score in scores
            }
        return ItemReply(tuple(answer.text for answer in answers), metadata)

    def predict(self, items: Sequence[BenchItem], images: Path) -> float | None:
        """See `Asker.predict`. What log-probabilities of options add is not known before."""
        if self._scores:
            return None
        return RunPredictor(self._model).seconds(items, images)

    def _converse(self, questions: Sequence[str], page: bytes) -> list[Answer]:
        chat = self._model.chat(page)
        answers = [chat.ask(questions[0], max_new_tokens=MAX_NEW_TOKENS)]
        for number, question in enumerate(questions[1:], 1):
            if self.mode == "clean":
                answers.append(chat.ask(question, max_new_tokens=MAX_NEW_TOKENS))
                continue
            turns = list(zip(questions[:number], (a.text for a in answers), strict=True))
            spec = self._model.bundle.manifest.model
            ids, text = shifted_prompt(spec, self._model.tokenizer, turns, question)
            answers.append(chat.ask_ids(ids, text, max_new_tokens=MAX_NEW_TOKENS))
        return answers


def reply_metadata(answers: Sequence[Answer]) -> dict[str, Any]:
    """Of the answers to an item: the last one's reason, and sums of tokens and seconds.

    Tokens that were cached are left out: how many there are depends on where a run was interrupted.

    Args:
        answers: at least one.
    """
    usages = [answer.usage for answer in answers]
    return {
        "finish_reason": answers[-1].finish_reason,
        "usage": {
            "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
            "image_tokens": sum(usage.image_tokens for usage in usages),
            "new_tokens": sum(usage.new_tokens for usage in usages),
        },
        "timings": {
            "total": sum(answer.timings.total for answer in answers),
            "ttft": answers[0].timings.ttft,
        },
    }


def scored_options(item: BenchItem) -> tuple[str, ...]:
    """The options of an item whose log-probabilities make a real AUC.

    Args:
        item: any; a report and an arena conversation have no options.
    """
    configuration = CONFIGURATIONS[item.config]
    match configuration.kind:
        case "labels":
            return configuration.space
        case "choice":
            return tuple(lettered_options(item.prompt)) or tuple(configuration.letters)
        case "qa":
            return tuple(dict.fromkeys(filter(None, prompt_candidates(item.prompt))))
    return ()
