"""How a bundle reads the pages of `support.foreign_pages`.

    cd tests && python -m support.foreign_scores BUNDLE [PAGES [SEED]]

`-` is the embedded bundle.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from pulse_edge.assets import RATE_QUESTION
from pulse_edge.simulation.questions import find, number_before

from support.foreign_pages import RHYTHMS, foreign_page

RHYTHM_QUESTION = "What is the rhythm?"
RATE_BPM = 5


@dataclass
class ForeignScores:
    """Whether rhythm and rate of each page were read, and what was said where one was not."""

    rhythm: list[bool] = field(default_factory=list)
    rate: list[bool] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def shares(self) -> tuple[float, float]:
        """Of pages with the right rhythm, and with a rate within 5 bpm."""
        return sum(self.rhythm) / len(self.rhythm), sum(self.rate) / len(self.rate)


def foreign_scores(model: Any, pages: int, seed: int = 7001) -> ForeignScores:
    """Ask a loaded model for rhythm and rate of each page.

    Args:
        model: what `pulse_edge.load` returns.
        pages: how many.
        seed: of the set.
    """
    out = ForeignScores()
    for number in range(pages):
        page = foreign_page(number, seed)
        rhythm, rate = (
            str(model.ask(page.image, question, max_new_tokens=40).text)
            for question in (RHYTHM_QUESTION, RATE_QUESTION)
        )
        bpm = number_before(rate, "bpm")
        out.rhythm.append(find(rhythm, RHYTHMS) == page.rhythm)
        out.rate.append(bpm is not None and abs(bpm - page.rate) <= RATE_BPM)
        if not (out.rhythm[-1] and out.rate[-1]):
            out.wrong.append(f"{number}: {page.rhythm} {page.rate:.0f}; said {rhythm} {rate}")
    return out


def main() -> None:
    import pulse_edge

    bundle, *numbers = sys.argv[1:]
    pages, seed = (*map(int, numbers), *(200, 7001)[len(numbers) :])
    model = pulse_edge.load() if bundle == "-" else pulse_edge.load(bundle)
    scores = foreign_scores(model, pages, seed)
    rhythm, rate = scores.shares
    print(f"{pages} pages: rhythm {rhythm:.3f}, rate within {RATE_BPM} bpm {rate:.3f}")
    print("\n".join(scores.wrong))


if __name__ == "__main__":
    main()
