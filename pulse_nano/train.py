"""Stage B: tower, projector and decoder together, on the pages and the questions about them.

    python -m pulse_nano.train STATE_DIR OUT_DIR

Starts from STATE_DIR/tower.pt (stage A, pretrain.py) and STATE_DIR/language.pt (stage L,
language.py), and from start.safetensors for what they do not have. Keeps joint.pt and joint.jsonl
there, continues what it finds, and writes the checkpoint to OUT_DIR. One page gives one sequence:
the image, then questions and conversations, each of which attends to the image and itself only and
has the positions that inference gives it.
"""

from __future__ import annotations

import shutil
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
from pulse_nano.lessons import Talk, random_findings, training_items, training_talks
from pulse_nano.model import Decoder, Nano, Size
from pulse_nano.optim import make_optimizers
from pulse_nano.targets import losses

TOKENIZER = Path(__file__).parent / "pulse-nano" / "tokenizer.model"
BOS, EOS = 1, 2
IGNORE = -100
TEXT_TOKENS = 704  # of one page's packed questions; what does not fit is left out
# Weights of single tokens that decide an answer, of one for all others: the letter of a multiple
# choice, whose words only copy, and "Yes" or "No".
LETTER = 8.0
VERDICT = 4.0


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

    def later(self, item: Item) -> tuple[list[int], list[int]]:
        """Ids of a later turn, which follow the end of an answer, and of its answer with its
        end."""
        turn = self.sp.encode(f"USER: {item.question} ASSISTANT:")
        return list(turn), [*self.sp.encode(item.answer), EOS]

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

    block 0 is the template before the image, blocks 1.. the conversations; -1 is padding. `letters`
    and `verdicts` (b, n) bool: where the label is the letter of a multiple choice, or Yes or No.
    """

    ids: Tensor
    positions: Tensor
    block: Tensor
    labels: Tensor
    letters: Tensor
    verdicts: Tensor


FILLS = (0, 0, -1, IGNORE, False, False)  # what pads each tensor of `Packed`


def pack(prompts: Prompts, pages: list[list[Talk]], image_tokens: int) -> Packed:
    """Conversations after the image slot; label i is the token that should follow position i.

    Args:
        prompts: makes the ids.
        pages: the conversations about each page.
        image_tokens: length of the slot.
    """
    start = len(prompts.head) + image_tokens
    rows: list[list[list[Any]]] = []
    for talks in pages:
        row: list[list[Any]] = [[] for _ in FILLS]
        for number, talk in enumerate(talks, 1):
            ids, labels, letters, verdicts = _talk_columns(prompts, talk)
            if row[0] and len(row[0]) + len(ids) > TEXT_TOKENS:
                continue
            positions = list(range(start, start + len(ids)))
            block = [number] * len(ids)
            columns: tuple[list[Any], ...] = (ids, positions, block, labels, letters, verdicts)
            for column, values in zip(row, columns, strict=True):
                column += values
        rows.append(row)
    n = max(len(row[0]) for row in rows)
    padded = [
        [[*row[k], *[fill] * (n - len(row[k]))] for row in rows] for k, fill in enumerate(FILLS)
    ]
    return Packed(*(torch.tensor(value) for value in padded))


def _talk_columns(
    prompts: Prompts, talk: Talk
) -> tuple[list[int], list[int], list[bool], list[bool]]:
    """Ids of a conversation without its last token, and for each the label, whether that is a
    letter, and whether it is a verdict."""
    tokens: list[int] = []
    labels: list[int] = []  # of the token itself: shifted below
    letters: list[bool] = []
    verdicts: list[bool] = []
    for turn, item in enumerate(talk):
        question, answer = prompts.later(item) if turn else prompts.question(item)
        tokens += question + answer
        labels += [IGNORE] * len(question) + answer
        is_letter = item.task == "choice" and item.answer.startswith(f"{item.key}. ")
        is_verdict = item.answer.startswith(("Yes,", "No,", "No "))
        rest = len(answer) - 1
        letters += [False] * len(question) + [is_letter] + [False] * rest
        verdicts += [False] * len(question) + [is_verdict] + [False] * rest
    return tokens[:-1], labels[1:], letters[1:], verdicts[1:]


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
    decoder: Decoder,
    prompts: Prompts,
    image: Tensor,
    packed: Packed,
    places: Tensor | None = None,
    prefix_learns: bool = True,
) -> Loss:
    """Soft cross-entropy over the answers, weighted by LETTER and VERDICT. To log: the same
    without weights, and the share of answer tokens, of letters and of verdicts alone, whose greedy
    choice is right (of all tokens, in a batch without such).

    `image` (b, n, width) is what the projector gives; `places` (b, n) int64, in the image's slot:
    0, 1, .. by default. Without `prefix_learns` no gradient passes the template and the image,
    which takes a third of the time.
    """
    b, n, _ = image.shape
    head = torch.tensor(prompts.head).expand(b, -1)
    embed = decoder.embed_tokens
    x = torch.cat([embed(head), image, embed(packed.ids)], dim=1)
    prefix = head.shape[1]
    slot = prefix + (torch.arange(n).expand(b, -1) if places is None else places)
    positions = torch.cat([torch.arange(prefix).expand(b, -1), slot, packed.positions], dim=1)
    mask = packed_mask(packed.block, prefix + n)
    with autocast():
        if prefix_learns:
            hidden = decoder(x, positions, mask, first=prefix + n).float()
        else:
            hidden = _after_prefix(decoder, x, positions, mask, prefix + n).float()
    known = packed.labels != IGNORE
    logits, target = decoder.lm_head(hidden[known]), packed.labels[known]
    each = F.cross_entropy(logits, prompts.near[target], reduction="none")
    letters, verdicts = packed.letters[known], packed.verdicts[known]
    weights = torch.where(letters, LETTER, torch.where(verdicts, VERDICT, 1.0))
    right = (logits.argmax(-1) == target).float()
    shown = {"text": each.mean(), "tokens right": right.mean()}
    for name, which in (("letters right", letters), ("verdicts right", verdicts)):
        shown[name] = right[which].mean() if which.any() else right.mean()
    return (each * weights).sum() / weights.sum(), shown


def _after_prefix(
    decoder: Decoder, x: Tensor, positions: Tensor, mask: Tensor, prefix: int
) -> Tensor:
    """Hidden states after the prefix, whose keys and values are constants."""
    caches: list[list[Tensor]] = [[] for _ in decoder.layers]
    with torch.no_grad():
        decoder(x[:, :prefix], positions[:, :prefix], None, caches)
    hidden: Tensor = decoder(x[:, prefix:], positions[:, prefix:], mask[..., prefix:, :], caches)
    return hidden


def talks_of(batch: Batch, seed: int) -> list[list[Talk]]:
    """The questions of a batch; they depend on the seed, the batch's number and the slot."""
    return [
        training_talks(
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
@click.option("--photos", default=0.0, show_default=True, help="Share of distorted pages.")
@click.option("--decoder-only", is_flag=True, help="Teach words; what reads the page stays.")
def main(workers: int, **settings: Any) -> None:
    """Train everything in STATE, resuming what is there; write the checkpoint to OUT."""
    tokenizer = settings["state"] / "tokenizer.model"
    if not tokenizer.exists():  # the one of the checkpoint that start.safetensors comes from
        shutil.copyfile(TOKENIZER, tokenizer)
    launch(workers, train, settings)


def train(rank: int, workers: int, settings: dict[str, Any]) -> None:
    state, seed = settings["state"], settings["seed"]
    prepare(seed)
    size = Size()
    nano = Nano(size)
    nano.load_state_dict(load_start(state, size))
    tokenizer = state / "tokenizer.model"
    prompts = Prompts(tokenizer)
    decoder_only = bool(settings["decoder_only"])
    parts = [(nano.tower, 0.3), (nano.heads, 0.5), (nano.projector, 1.0), (nano.decoder, 0.5)]
    for module in (nano.tower, nano.heads, nano.projector):
        module.requires_grad_(not decoder_only)
    optimizers = make_optimizers(parts[-1:] if decoder_only else parts, settings["peak"])
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

    def words(data: Batch) -> Loss:
        with torch.no_grad(), autocast():
            image = nano.projector(nano.see(data.views).float())
        packed = pack(prompts, talks_of(data, seed), image.shape[1])
        return text_loss(nano.decoder, prompts, image.float(), packed, prefix_learns=False)

    def loss(data: Batch) -> Loss:
        if decoder_only:
            return words(data)
        with autocast():
            features = nano.see(data.views).float()
        packed = pack(prompts, talks_of(data, seed), features.shape[1])
        text, shown = text_loss(nano.decoder, prompts, nano.projector(features), packed)
        terms = losses(nano.heads(features), data.dense, data.heads)
        aside = torch.stack(list(terms.values())).sum()
        return 3 * text + 0.25 * aside, {**shown, "aside": aside}

    # From the last shard on, if the tower learns: it knows those best that it began with.
    pages = Pages(
        state / "pages",
        settings["shards"],
        settings["batch"] // workers,
        size.patch,
        seed,
        backwards=not decoder_only,
        photos=settings["photos"],
    )
    loop.run(pages, loss, lambda: None)


if __name__ == "__main__":
    main()
