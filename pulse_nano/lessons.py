"""What training asks about a page, and truths for text without pages."""

from __future__ import annotations

import numpy as np

from pulse_edge.simulation.questions import Findings, Item, ask
from pulse_edge.simulation.simulator import sample_spec


def training_items(findings: Findings | None, rng: np.random.Generator) -> list[Item]:
    """A report and nine random questions: reading the page costs more than all of them."""
    tasks = rng.choice(
        ["question", "choice", "detection", "refusal"], 9, p=[0.55, 0.27, 0.13, 0.05]
    )
    return [ask(findings, "report", rng), *(ask(findings, str(task), rng) for task in tasks)]


def random_findings(rng: np.random.Generator) -> Findings:
    """Findings without a page, for the tokenizer's text."""
    spec = sample_spec(rng)
    return Findings.of({**spec.__dict__, "axis": spec.axis})
