"""Stage L: the decoder alone learns the questions and answers, with the findings told where the
image will be.

    python -m pulse_nano.language STATE_DIR

As LLaVA starts from a language model that knows its language: options and their letters, numbers
and the report's order need no page, and a text without one costs a tenth. Each finding is one
learned vector (`Told`), at a random place of the image's slot. Keeps language.pt and language.jsonl
in STATE_DIR; of them, stage B takes the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pulse_nano.loop import Loop, Loss, launch, prepare  # isort: skip (before torch)

import torch
from torch import Tensor, nn

from pulse_edge.simulation.ecg import AXES, CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES
from pulse_edge.simulation.questions import Findings
from pulse_nano.lessons import Talk, random_findings, training_talks
from pulse_nano.model import VIEWS, Decoder, Size
from pulse_nano.optim import make_optimizers
from pulse_nano.train import Packed, Prompts, make_tokenizer, pack, text_loss

EMPTY = 0.05  # share of texts about an image without an ECG
WAVES = 2.0 ** torch.arange(2, 9)  # bpm or ms: half the periods in which `Told` writes numbers


class Told(nn.Module):
    """Findings -> (9, width): a vector each for rhythm, conduction, ectopy, ST, axis, hypertrophy,
    rate, PR, QRS.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = [*RHYTHMS, *CONDUCTION, *ECTOPY, *ST_CHANGES, *AXES]
        self.embed = nn.Embedding(len(self.words) + 2, size.width)
        self.slot = nn.Parameter(torch.randn(9, size.width) * 0.5)
        self.number = nn.Linear(2 * len(WAVES), 3 * size.width)
        nn.init.normal_(self.embed.weight, std=0.5)

    def forward(self, findings: list[Findings | None]) -> Tensor:
        """(texts, 9, width); None stands for an image without an ECG."""
        return torch.stack([self._one(f) for f in findings])

    def _one(self, f: Findings | None) -> Tensor:
        if f is None:
            return self.embed.weight[-1].expand(9, -1)
        at = [0, *np.cumsum([len(RHYTHMS), len(CONDUCTION), len(ECTOPY), len(ST_CHANGES)]).tolist()]
        words = [
            self.embed.weight[at[0] + RHYTHMS.index(f.rhythm)],
            sum(
                (self.embed.weight[at[1] + CONDUCTION.index(c)] for c in f.conduction),
                torch.zeros(1),
            ),
            self.embed.weight[at[2] + ECTOPY.index(f.ectopy)],
            self.embed.weight[at[3] + ST_CHANGES.index(f.st)],
            self.embed.weight[at[4] + AXES.index(f.axis)],
            self.embed.weight[-2] * float(f.lvh),
        ]
        values = torch.tensor([float(f.rate), float(f.pr or 0), float(f.qrs)])
        angle = values[:, None] * torch.pi / WAVES
        numbers = self.number(torch.cat([angle.sin(), angle.cos()], 1)).view(3, 3, -1)[
            torch.arange(3), torch.arange(3)
        ]
        known = torch.tensor([1.0, float(f.pr is not None), 1.0])[:, None]
        return (
            torch.cat(
                [torch.stack([word.expand(self.slot.shape[1]) for word in words]), numbers * known]
            )
            + self.slot
        )


@dataclass
class Text:
    """What `Texts` makes: findings, where in the image's slot they are told (texts, 9), and the
    packed questions.
    """

    findings: list[Findings | None]
    places: Tensor
    packed: Packed


@dataclass
class Texts:
    """Endless batches; batch `i` depends on the seed and `i` alone."""

    prompts: Prompts
    batch: int
    image_tokens: int
    seed: int
    start: int = 0
    stride: int = 1

    def room(self) -> None:
        return None

    def make(self, number: int, _: None = None) -> Text:
        findings: list[Findings | None] = []
        talks: list[list[Talk]] = []
        places = []
        for slot in range(self.batch):
            rng = np.random.default_rng([self.seed, number, slot, 5])
            findings.append(None if rng.random() < EMPTY else random_findings(rng))
            talks.append(training_talks(findings[-1], rng))
            places.append(rng.permutation(self.image_tokens)[:9])
        return Text(
            findings, torch.tensor(np.stack(places)), pack(self.prompts, talks, self.image_tokens)
        )


class Speaking(nn.Module):
    """What this stage trains."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.decoder, self.told = Decoder(size), Told(size)


@click.command()
@click.argument("state", type=click.Path(path_type=Path))
@click.option(
    "--steps", default=1200, show_default=True, help="Of the whole stage, over all calls."
)
@click.option("--minutes", type=float, help="Stop this call then; the next one goes on.")
@click.option("--batch", default=16, show_default=True, help="Texts a step, of all workers.")
@click.option("--peak", default=3e-3, show_default=True, help="Learning rate.")
@click.option("--seed", default=20261125)
@click.option("--workers", default=2, show_default=True, help="Processes of one thread.")
def main(workers: int, **settings: Any) -> None:
    """Train the decoder in STATE, resuming what is there."""
    make_tokenizer(settings["state"] / "tokenizer.model", Size.vocab)
    launch(workers, train, settings)


def train(rank: int, workers: int, settings: dict[str, Any]) -> None:
    state = settings["state"]
    prepare(settings["seed"])
    size = Size()
    speaking = Speaking(size)
    prompts = Prompts(state / "tokenizer.model")
    optimizers = make_optimizers([(speaking.decoder, 1.0), (speaking.told, 1.0)], settings["peak"])
    header = {"size": size.asdict(), "workers": workers}
    loop = Loop(
        "language",
        state,
        speaking,
        optimizers,
        header,
        settings["steps"],
        settings["peak"],
        settings["minutes"],
        rank,
        workers,
    )
    loop.resume()

    def loss(data: Text) -> Loss:
        return text_loss(
            speaking.decoder, prompts, speaking.told(data.findings), data.packed, data.places
        )

    image_tokens = VIEWS * size.grid**2
    loop.run(
        Texts(prompts, settings["batch"] // workers, image_tokens, settings["seed"]),
        loss,
        lambda: None,
    )


if __name__ == "__main__":
    main()
