"""Stage B: tower, projector and decoder together, on the pages and the questions about them.

    python -m pulse_nano.train STATE_DIR OUT_DIR

Starts from STATE_DIR/tower.pt (stage A, pretrain.py) and STATE_DIR/language.pt (stage L,
language.py), or from start.safetensors for what is absent. Keeps joint.pt and joint.jsonl there,
continues what it finds, and writes the checkpoint to OUT_DIR. One page gives one sequence: the
image, then a report and nine questions, each of which attends to the image and itself only and has
the positions that single-turn inference gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pulse_nano.loop import Loop, Loss, launch, prepare, restart_option  # isort: skip (before torch)

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_edge.simulation.questions import Findings, Item
from pulse_nano.checkpoint import NUMBERS, SYSTEM, load_start, save, train_tokenizer
from pulse_nano.cpu import autocast
from pulse_nano.data import Batch, Pages
from pulse_nano.lessons import random_findings, training_items
from pulse_nano.model import Decoder, Nano, Size
from pulse_nano.optim import make_optimizers
from pulse_nano.targets import losses

BOS, EOS = 1, 2
IGNORE = -100
TEXT_TOKENS = 512  # of one page's packed questions; what does not fit is left out
# weight of the letter that answers a multiple choice, of one for all other tokens: its words only
# copy
LETTER = 8.0


class Prompts:
    """Ids around the image slot, as `pulse_edge.prompt.PromptBuilder` makes them."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self.sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.head = [BOS, *self.sp.encode(f"{SYSTEM} USER: ")]
        self.near = self._near()

    def question(self, item: Item) -> tuple[list[int], list[int]]:
        """Ids after the image up to "ASSISTANT:", and ids of the answer with its end."""
        return list(self.sp.encode(f"\n{item.question} ASSISTANT:")), [
            *self.sp.encode(item.answer),
            EOS,
        ]

    def _near(self) -> Tensor:
        """(vocab, vocab) target distributions: numbers spread over their neighbours, everything
        else is one-hot.
        """
        near = torch.eye(self.sp.get_piece_size())
        ids = torch.tensor([self.sp.piece_to_id(str(n)) for n in NUMBERS])
        values = torch.tensor(list(NUMBERS), dtype=torch.float32)
        spread = torch.exp(-0.5 * ((values[:, None] - values) / 2.0) ** 2)
        near[ids[:, None], ids] = spread / spread.sum(1, keepdim=True)
        return near


@dataclass
class Packed:
    """A batch of packed text: `ids` (b, n), `positions` (b, n), `block` (b, n), `labels` (b, n),
    IGNORE: no loss.

    block 0 is the template before the image, blocks 1.. the questions; -1 is padding. `letters` (b,
    n) bool: where the label is the letter of a multiple choice.
    """

    ids: Tensor
    positions: Tensor
    block: Tensor
    labels: Tensor
    letters: Tensor


def pack(prompts: Prompts, items: list[list[Item]], image_tokens: int) -> Packed:
    """Questions after the image slot; label i is the token that should follow position i."""
    start = len(prompts.head) + image_tokens
    rows: list[tuple[list[int], list[int], list[int], list[int], list[bool]]] = []
    for page in items:
        ids: list[int] = []
        positions: list[int] = []
        block: list[int] = []
        labels: list[int] = []
        letters: list[bool] = []
        for number, item in enumerate(page, 1):
            question, answer = prompts.question(item)
            whole = question + answer[:-1]
            if ids and len(ids) + len(whole) > TEXT_TOKENS:
                continue
            ids += whole
            positions += range(start, start + len(whole))
            block += [number] * len(whole)
            labels += [IGNORE] * (len(question) - 1) + answer
            letters += [False] * (len(question) - 1) + [item.answer.startswith(f"{item.key}. ")]
            letters += [False] * (len(answer) - 1)
        rows.append((ids, positions, block, labels, letters))
    n = max(len(row[0]) for row in rows)
    fills = (0, 0, -1, IGNORE, False)
    padded = [
        [[*row[k], *[fill] * (n - len(row[0]))] for row in rows] for k, fill in enumerate(fills)
    ]
    return Packed(*(torch.tensor(value) for value in padded))


def packed_mask(block: Tensor, prefix: int) -> Tensor:
    """(b, n) blocks after a shared prefix -> (b, 1, prefix + n, prefix + n) added mask: 0 or
    -inf-like.
    """
    b, n = block.shape
    whole = torch.cat([torch.zeros(b, prefix, dtype=block.dtype), block], dim=1)
    causal = torch.ones(prefix + n, prefix + n, dtype=torch.bool).tril()
    same = (whole[:, :, None] == whole[:, None, :]) | (whole[:, None, :] == 0)
    return torch.where(causal & same, 0.0, -1e9)[:, None]


def text_loss(
    decoder: Decoder, prompts: Prompts, image: Tensor, packed: Packed, places: Tensor | None = None
) -> Loss:
    """Soft cross-entropy over the answers, letters weighted by LETTER. To log: the same without
    weights, and the share of answer tokens, and of letters alone, whose greedy choice is right (of
    all tokens, in a batch without letters).

    `image` (b, n, width) is what the projector gives; `places` (b, n) int64, in the image's slot:
    0, 1, .. by default.
    """
    b, n, _ = image.shape
    head = torch.tensor(prompts.head).expand(b, -1)
    embed = decoder.embed_tokens
    x = torch.cat([embed(head), image, embed(packed.ids)], dim=1)
    prefix = head.shape[1]
    slot = prefix + (torch.arange(n).expand(b, -1) if places is None else places)
    positions = torch.cat([torch.arange(prefix).expand(b, -1), slot, packed.positions], dim=1)
    with autocast():
        hidden = decoder(
            x, positions, packed_mask(packed.block, prefix + n), first=prefix + n
        ).float()
    known = packed.labels != IGNORE
    logits, target = decoder.lm_head(hidden[known]), packed.labels[known]
    each = F.cross_entropy(logits, prompts.near[target], reduction="none")
    letters = packed.letters[known]
    weights = torch.where(letters, LETTER, 1.0)
    right = (logits.argmax(-1) == target).float()
    chosen = right[letters] if letters.any() else right
    shown = {"text": each.mean(), "tokens right": right.mean(), "letters right": chosen.mean()}
    return (each * weights).sum() / weights.sum(), shown


def items_of(batch: Batch, seed: int) -> list[list[Item]]:
    """The questions of a batch; they depend on the seed, the batch's number and the slot."""
    return [
        training_items(
            None if labels is None else Findings.of(labels),
            np.random.default_rng([seed, batch.number, slot, 3]),
        )
        for slot, labels in enumerate(batch.labels)
    ]


def make_tokenizer(path: Path, vocab: int) -> None:
    if path.exists():
        return
    rng = np.random.default_rng(
        [20261124, 4]
    )  # one for every training: the seed is of the weights and pages
    texts = [f"{SYSTEM} USER:"] * 1500  # often enough that its words become pieces
    for number in range(1500):
        findings = random_findings(rng) if number % 20 else None
        texts += [
            f"{item.question} ASSISTANT: {item.answer}" for item in training_items(findings, rng)
        ]
    train_tokenizer(path, texts, vocab)


@click.command()
@click.argument("state", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--steps", default=2600, show_default=True, help="Of the whole stage, over all calls."
)
@restart_option()
@click.option("--minutes", type=float, help="Stop this call then; the next one goes on.")
@click.option("--shards", default=300, show_default=True, help="Shards of 200 pages to train on.")
@click.option("--batch", default=8, show_default=True, help="Pages a step, of all workers.")
@click.option(
    "--peak",
    default=3e-3,
    show_default=True,
    help="Learning rate; tower 0.3 of it, heads and decoder half.",
)
@click.option("--seed", default=20261124)
@click.option("--workers", default=2, show_default=True, help="Processes of one thread.")
def main(workers: int, **settings: Any) -> None:
    """Train everything in STATE, resuming what is there; write the checkpoint to OUT."""
    make_tokenizer(settings["state"] / "tokenizer.model", Size.vocab)
    launch(workers, train, settings)


def train(rank: int, workers: int, settings: dict[str, Any]) -> None:
    state, seed = settings["state"], settings["seed"]
    prepare(seed)
    size = Size()
    nano = Nano(size)
    nano.load_state_dict(load_start(state, size), strict=False)  # all but the projector
    tokenizer = state / "tokenizer.model"
    prompts = Prompts(tokenizer)
    optimizers = make_optimizers(
        [(nano.tower, 0.3), (nano.heads, 0.5), (nano.projector, 1.0), (nano.decoder, 0.5)],
        settings["peak"],
    )
    header = {"size": size.asdict(), "workers": workers}
    loop = Loop(
        "joint",
        state,
        nano,
        optimizers,
        header,
        settings["steps"],
        settings["peak"],
        settings["minutes"],
        rank,
        workers,
        settings["restarts"],
        kept=lambda: save(nano, settings["out"], tokenizer),
    )
    loop.resume()

    def loss(data: Batch) -> Loss:
        with autocast():
            features = nano.see(data.views).float()
        packed = pack(prompts, items_of(data, seed), features.shape[1])
        text, shown = text_loss(nano.decoder, prompts, nano.projector(features), packed)
        terms = losses(nano.heads(features), data.dense, data.heads)
        aside = torch.stack(list(terms.values())).sum()
        return 3 * text + 0.25 * aside, {**shown, "aside": aside}

    # From the last shard on: the tower knows those best that it began with.
    pages = Pages(
        state / "pages",
        settings["shards"],
        settings["batch"] // workers,
        size.patch,
        seed,
        backwards=True,
    )
    loop.run(pages, loss, lambda: None)


if __name__ == "__main__":
    main()
