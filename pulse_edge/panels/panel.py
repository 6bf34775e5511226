"""A panel: its questions, how they are put, and the hash that names its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, get_args

# PULSE was trained and evaluated on this sentence after a list of options (ECG-QA in ECGBench).
INSTRUCTION = "Only answer based on the given Options without any explanation."
Form = Literal["options", "plain"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class PanelQuestion:
    """A question of a panel.

    Attributes:
        id: names it in results.
        ask: the question.
        options: the answers that it may have, which exclude each other; none for free text.
        form: `options` lists them in the prompt, as PULSE was trained; `plain` puts the question
            alone.
        replies: how a model words each option, in their order; none if it answers the options
            themselves.
        scored: whether every option gets its log-probability.
        max_new_tokens: longest answer.
    """

    id: str
    ask: str
    options: tuple[str, ...] = ()
    form: Form = "options"
    replies: tuple[str, ...] = ()
    scored: bool = False
    max_new_tokens: int = 64

    @property
    def prompt(self) -> str:
        """The question as the model gets it."""
        if not self.options or self.form == "plain":
            return self.ask
        return f"{self.ask}\nOptions: {', '.join(self.options)}\n{INSTRUCTION}"

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to score: an option's reply, or the option itself."""
        return self.replies or self.options


@dataclass(frozen=True)
class Panel:
    """Fixed questions about a page.

    Attributes:
        name: of the panel.
        title: what it asks, for people.
        questions: in the order in which they are asked.
        checkpoint: of the model that the panel is for; None: any.
        refusals: answers by which a model says that the image shows no ECG.
    """

    name: str
    title: str
    questions: tuple[PanelQuestion, ...]
    checkpoint: str | None = None
    refusals: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, whatever the file's spaces, comments and order of keys."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()
