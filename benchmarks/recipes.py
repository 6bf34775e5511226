"""Four-bit recipes and llama.cpp's formats, compared by what they do to a model's answers.

    python -m benchmarks.recipes                      # pulse-nano, all rows
    python -m benchmarks.recipes CHECKPOINT --rows gptq-32,q4_0 --pages 4 --append
    python -m benchmarks.recipes --ggml PATH/libggml-base.so    # with K-quants and importances
    python -m benchmarks.recipes --language-model FILE.gguf    # somebody else's trained weights

Every row is the decoder's matrices through one format and back, run by the same numpy reference in
float32; head, tower and embeddings stay as they are. So a row differs from another in the codes
alone, and its bytes are those matrices' with their scales. The questions and answers are about
simulated pages that neither training nor calibration saw. Each answer is long: all of a page's
turns, read in one pass. KL, top-1 and loss are over the positions that choose an answer's tokens.
Of a language model, texts are its own, and every position counts (`benchmarks.language_model`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.compare import commit
from benchmarks.language_model import LanguageModel, read_gguf
from benchmarks.peers.ggml import GgmlLibrary
from benchmarks.recipe_rows import RowRequest, Stored, Weights
from benchmarks.recipe_rows import rows as all_rows
from benchmarks.report.page import markdown
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.measure import baseline
from pulse_edge.page.views import preprocess
from pulse_edge.simulation.cases import heldout_case
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint, Floats, Tensors
from pulse_export.quantize.calibrate import encode_samples
from pulse_export.quantize.recipe import Recipe
from pulse_export.verify import kl_divergence

KIND, SCHEMA = "recipes", 1
MODEL_KIND = "recipes-language-model"
CHECKPOINT = Path(__file__).parent.parent / "pulse_nano" / "pulse-nano"
RESULTS = Path(__file__).parent / "results" / "recipes.jsonl"
TEXT_TOKENS = 200  # of each text that a language model writes
HELD_OUT, CALIBRATION = 1, 2  # purposes of such texts
SCALES: dict[str, type[np.generic]] = {"fp16": np.float16, "fp32": np.float32}


@dataclass(frozen=True)
class Passage:
    """A conversation about a page, as the decoder reads it.

    Attributes:
        embeds: float32 [tokens, hidden], the page's among them.
        rows: numbers of the rows that choose an answer's tokens.
        tokens: these tokens.
    """

    embeds: Floats
    rows: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What a row does to the model. KL in nats; loss in nats a token.

    Attributes:
        bytes: of the decoder's matrices.
        seconds: of processor time, to make the codes.
    """

    bytes: int
    positions: int
    kl_mean: float
    kl_99: float
    top1: float
    loss: float
    seconds: float


def passages(source: Checkpoint, count: int) -> list[Passage]:
    """Held-out pages with questions and true answers, cut to the model's context."""
    template = PromptBuilder.of(source.spec, source.path / TOKENIZER)
    read = cache(source.tensor)
    return [_passage(index, source.spec, template, read) for index in range(count)]


def _passage(index: int, spec: ModelSpec, template: PromptBuilder, read: Tensors) -> Passage:
    case = heldout_case(index)
    turns = [text for item in case.items for text in (item.question, item.answer)]
    ids = list(template.first_turn(turns[0]))
    answers = [False] * len(ids)
    for at, text in enumerate(turns[1:]):
        more = template.next_turn(text) if at % 2 else template.tokenizer.encode(text)
        ids += more
        answers += [at % 2 == 0] * len(more)
    features = reference.vision_features(preprocess(case.image, spec), spec, read)
    newline = read("image_newline") if spec.image.merge == "spatial_unpad" else None
    page = reference.merge_features(features, case.image.size, spec, newline)
    embeds = reference.splice(ids, page, read)[: spec.text.context].astype(np.float32)
    before = ids.index(IMAGE)
    places = [
        at if at < before else at + len(page) - 1 for at, is_it in enumerate(answers) if is_it
    ]
    chosen = [token for token, is_it in zip(ids, answers, strict=True) if is_it]
    kept = [
        (place, token) for place, token in zip(places, chosen, strict=True) if place < len(embeds)
    ]
    return Passage(embeds, tuple(p - 1 for p, _ in kept), tuple(t for _, t in kept))


def own_texts(model: LanguageModel, count: int, purpose: int) -> list[Passage]:
    """Texts that the model wrote, of which every token counts.

    Args:
        model: writes them.
        count: how many.
        purpose: makes the texts of another purpose others.
    """
    texts = [model.sample((purpose, index), TEXT_TOKENS) for index in range(count)]
    rows = tuple(range(TEXT_TOKENS - 1))
    return [Passage(model.embed(ids[:-1]), rows, tuple(ids[1:])) for ids in texts]


def answer_logits(texts: Iterable[Passage], spec: ModelSpec, read: Tensors) -> list[Floats]:
    """Logits [answer tokens, vocabulary] of each passage."""
    return [
        reference.logits(text.embeds, spec, read, rows=text.rows).astype(np.float32)
        for text in texts
    ]


def loss(logits: Sequence[Floats], texts: Sequence[Passage]) -> float:
    """Mean negative log-likelihood of the true answers' tokens, in nats."""
    rows = np.concatenate(logits).astype(np.float64)
    tokens = np.concatenate([np.array(text.tokens) for text in texts])
    peaks = rows.max(axis=1)
    total = peaks + np.log(np.exp(rows - peaks[:, None]).sum(axis=1))
    return float((total - rows[np.arange(len(tokens)), tokens]).mean())


def outcome(
    expected: Sequence[Floats], texts: Sequence[Passage], source: Weights, stored: Stored
) -> Outcome:
    """A row against the logits of the fp32 model."""

    def read(name: str) -> Floats:
        return stored.tensors[name] if name in stored.tensors else source.tensor(name)

    got = answer_logits(texts, source.spec, cache(read))
    first, second = np.concatenate(expected), np.concatenate(got)
    kl = kl_divergence(first, second)
    return Outcome(
        bytes=stored.size,
        positions=len(kl),
        kl_mean=float(kl.mean()),
        kl_99=float(np.quantile(kl, 0.99)),
        top1=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
        loss=loss(got, texts),
        seconds=stored.seconds,
    )


def table(record: dict[str, Any]) -> list[list[str]]:
    """A header and a row for each format, the best KL first; rows without figures last."""
    lines = [["", "kB", "KL, nats", "99 %", "top-1", "loss", "s"]]
    figures = record["outcomes"]
    for name in sorted(figures, key=lambda name: float(figures[name]["kl_mean"])):
        row = figures[name]
        lines.append(
            [
                name,
                f"{row['bytes'] / 1e3:.1f}",
                f"{row['kl_mean']:.2e}",
                f"{row['kl_99']:.2e}",
                f"{row['top1']:.2%}",
                f"{row['loss']:.4f}",
                f"{row['seconds']:.1f}",
            ]
        )
    for name, problem in record["left_out"].items():
        lines.append([f"{name}: {problem}", *["–"] * 6])
    return lines


def layer_table(record: dict[str, Any]) -> list[list[str]]:
    """Relative squared error of every matrix's outputs, a column for each recipe with data."""
    errors = record["errors"]
    names = list(dict.fromkeys(name for row in errors.values() for name in row))
    head = ["", *errors]
    return [head, *([n, *(f"{errors[r].get(n, float('nan')):.2e}" for r in errors)] for n in names)]


def compare_rows(
    request: RowRequest, names: Sequence[str], texts: Sequence[Passage], loudly: bool = False
) -> dict[str, Any]:
    """Every row against fp32: outcomes, errors by layer, and what is left out, JSON-ready."""
    makers = all_rows()
    expected = answer_logits(texts, request.spec, cache(request.source.tensor))
    outcomes: dict[str, Any] = {}
    errors: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        stored = makers[name](request)
        if stored.problem:
            left_out[name] = stored.problem
            continue
        outcomes[name] = asdict(outcome(expected, texts, request.source, stored))
        if loudly:
            click.echo(f"{name}: KL {outcomes[name]['kl_mean']:.2e}", err=True)
        layers = {e.name: e.error for e in stored.errors if e.error is not None}
        if layers:
            errors[name] = layers
    return {
        "fp32_loss": loss(expected, texts),
        "outcomes": outcomes,
        "errors": errors,
        "left_out": left_out,
    }


def _of_checkpoint(
    path: Path, pages: int, recipe: Recipe, library: GgmlLibrary | None
) -> tuple[dict[str, Any], RowRequest, list[Passage]]:
    """What a record says of a checkpoint, and what its rows are made from and measured on."""
    source = Checkpoint(path)
    data = encode_samples(source.path, source.spec, source.tensor, recipe)
    request = RowRequest(source, data.states, np.float32, library)
    said = {"data_sha256": data.sha256, "checkpoint": asdict(source.info())}
    return said, request, passages(source, pages)


def _of_language_model(
    path: Path, texts: int, samples: int, library: GgmlLibrary | None
) -> tuple[dict[str, Any], RowRequest, list[Passage]]:
    """The same of a language model."""
    model = read_gguf(path, Checkpoint(CHECKPOINT).spec)
    states = [text.embeds for text in own_texts(model, samples, CALIBRATION)]
    request = RowRequest(model, states, np.float32, library)
    said = {"model": model.name, "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return said, request, own_texts(model, texts, HELD_OUT)


@click.command(help=(__doc__ or "").split("\n\n", 1)[0])
@click.argument("checkpoint", type=click.Path(path_type=Path), default=CHECKPOINT)
@click.option("--rows", default=",".join(all_rows()), help="What to compare [default: all].")
@click.option("--pages", default=24, show_default=True, help="Held-out pages.")
@click.option("--samples", default=Recipe.samples, show_default=True, help="Calibration pages.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Directory of pages.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Conversations about them.")
@click.option(
    "--language-model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="GGUF of a Llama; CHECKPOINT is not read then.",
)
@click.option("--scales", type=click.Choice(list(SCALES)), default="fp32", show_default=True)
@click.option("--ggml", type=click.Path(path_type=Path), help="libggml-base, for K-quants.")
@click.option("--layers", is_flag=True, help="Print the errors by layer, too.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--append", is_flag=True, help=f"Add a line of JSON to results/{RESULTS.name}.")
def main(
    checkpoint: Path,
    rows: str,
    pages: int,
    samples: int,
    calibration: Path | None,
    prompts: Path | None,
    language_model: Path | None,
    scales: str,
    ggml: Path | None,
    layers: bool,
    as_json: bool,
    append: bool,
) -> None:
    names = list(dict.fromkeys(rows.split(",")))
    unknown = sorted(set(names) - all_rows().keys())
    if unknown:
        raise click.UsageError(f"unknown row {unknown[0]!r}; there are {', '.join(all_rows())}")
    library = GgmlLibrary(ggml) if ggml else None
    recipe = Recipe(calibration, prompts, samples)
    begin, request, texts = (
        _of_checkpoint(checkpoint, pages, recipe, library)
        if language_model is None
        else _of_language_model(language_model, pages, samples, library)
    )
    request = replace(request, scale_type=SCALES[scales])
    record = {
        "kind": KIND if language_model is None else MODEL_KIND,
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "pages": pages,
        "scales": scales,
        "samples": len(request.states),
        "tokens": sum(map(len, request.states)),
        **compare_rows(request, names, texts, loudly=not as_json),
        **begin,
    }
    if append:
        RESULTS.parent.mkdir(exist_ok=True)
        baseline.append(RESULTS, record)
    if as_json:
        click.echo(json.dumps(record))
        return
    click.echo(markdown(table(record)))
    if layers:
        click.echo("\n" + markdown(layer_table(record)))


if __name__ == "__main__":
    main()
