"""A bundle against its checkpoint, stage by stage.

The numpy reference is the judge. The bundle answers greedily. Then the reference reads prompt and
answer in one pass, which gives its logits at every position. Up to the first difference both have
seen the same tokens, so that pass decides as step-by-step would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.assets import REPORT_QUESTION
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import BundleError, ContextError, ParameterError
from pulse_edge.page import views as images
from pulse_edge.page.source import read_page
from pulse_edge.page.tokens import image_rows
from pulse_edge.progress import Progress
from pulse_edge.text.template import PromptBuilder, prompt_rows
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.network.optimum.config import OPTIMUM, OWN

FP32_BAR = 1e-4  # largest error of features and logits, relative to the reference's largest value

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stage:
    """Largest absolute error, and the same relative to the reference's largest magnitude."""

    name: str
    shape: tuple[int, ...]
    max_error: float
    relative: float


@dataclass(frozen=True)
class Report:
    """The comparison.

    Attributes:
        diverged_at: index of the first token that differs, None when all are equal.
        margin: at that token, how far the reference's choice leads the bundle's, in logits. A
            margin within twice the logits' own error is a tie.
    """

    bundle: str
    checkpoint: str
    precision: str
    stages: tuple[Stage, ...]
    logits_cosine_min: float
    logits_cosine_mean: float
    top1_agreement: float
    kl_divergence_mean: float
    tokens_compared: int
    diverged_at: int | None
    margin: float | None
    passed: bool
    verdict: str

    def __str__(self) -> str:
        lines = [f"{'stage':<16}{'shape':>20}{'max error':>14}{'relative':>14}"]
        for s in self.stages:
            shape = " x ".join(map(str, s.shape))
            lines.append(f"{s.name:<16}{shape:>20}{s.max_error:>14.3g}{s.relative:>14.3g}")
        lines += [
            f"logits over all positions: cosine min {self.logits_cosine_min:.6f}, "
            f"mean {self.logits_cosine_mean:.6f}; top-1 agreement {self.top1_agreement:.2%}; "
            f"mean KL divergence {self.kl_divergence_mean:.3g} nats",
            f"greedy tokens: {self.tokens_compared} compared, "
            + (
                "all equal"
                if self.diverged_at is None
                else f"first difference at {self.diverged_at}, "
                f"where the reference's margin is {self.margin:.3g}"
            ),
            f"{'PASSED' if self.passed else 'FAILED'} ({self.precision}): {self.verdict}",
        ]
        return "\n".join(lines)


def compare(
    bundle: Bundle,
    against: str | Path,
    image: str | None,
    tokens: int,
    threads: int,
    progress: Progress | None = None,
    engine: str = "auto",
) -> Report:
    """Run bundle and reference on one page and question.

    Args:
        bundle: the bundle to judge.
        against: the checkpoint that the bundle was made from.
        image: a page; None for a drawn test page.
        tokens: greedy tokens to compare.
        threads: CPU threads of the bundle's engine; 0 leaves their number to it.
        progress: told of the reference's three stages, which take longest.
        engine: the engine that runs the bundle, one of `engine_names()`.

    Raises:
        BundleError: the bundle was made from another checkpoint.
        CheckpointError: the checkpoint cannot be read.
        ContextError: prompt and tokens exceed the bundle's context.
        EngineError: the engine cannot run the bundle here.
        ImageError: the page cannot be read.
        ParameterError: `tokens` is below 1.
    """
    if tokens < 1:
        raise ParameterError(f"tokens is {tokens}, but must be a whole number from 1")
    spec = bundle.manifest.model
    network = OWN if bundle.manifest.tower is None else OPTIMUM
    source = Checkpoint(against, spec.prompt.name, network, spec.text.context)
    if replace(source.spec, text=replace(source.spec.text, context=spec.text.context)) != spec:
        raise BundleError(
            f"{bundle.path} was not made from {source.path}: their model specifications differ"
        )
    page = test_page() if image is None else read_page(image).image
    opened = open_engine(bundle, EngineOptions(threads=threads, engine=engine))
    ids = prompt_ids(bundle)
    ours, chosen = _run_bundle(opened, spec, page, ids, tokens)
    _say(progress, "reference", 1, 3)
    theirs = _run_reference(source, spec, page, ids, chosen, progress)
    _say(progress, "reference", 1, 3)
    if source.info().sha256 != bundle.manifest.checkpoint.sha256:
        raise BundleError(f"{bundle.path} was not made from {source.path}: their weights differ")
    stages = (
        _stage("pixels", ours.pixels, theirs.pixels),
        _stage("features", ours.features, theirs.features),
        _stage("prefill logits", ours.logits, theirs.logits[: len(ours.logits)]),
    )
    return _report(bundle, source, stages, ours.logits, theirs.logits, chosen)


@dataclass(frozen=True)
class _Outputs:
    """What one side computed."""

    pixels: Floats  # [views, 3, side, side]
    features: Floats  # [views, patches, hidden]
    logits: Floats  # [positions, vocab]: of the prompt; the reference's also of the answer


def _run_bundle(
    engine: Engine, spec: ModelSpec, page: Image.Image, ids: list[int], tokens: int
) -> tuple[_Outputs, list[int]]:
    """The bundle's side, and its greedy tokens."""
    pixels = images.preprocess(page, spec)
    encoded = engine.encode(pixels)
    features = np.asarray(encoded, np.float32)
    numbers = prompt_rows(ids, image_rows(len(pixels), page.size, spec, engine.table_rows))
    if len(numbers) + tokens > engine.capacity:
        raise ContextError(
            f"the prompt is {len(numbers)} tokens; with {tokens} more it exceeds {engine.capacity}"
        )
    logits, chosen = _greedy(engine, engine.rows(numbers, encoded), tokens)
    return _Outputs(pixels, features, logits), chosen


def _run_reference(
    source: Checkpoint,
    spec: ModelSpec,
    page: Image.Image,
    ids: list[int],
    chosen: list[int],
    progress: Progress | None,
) -> _Outputs:
    """The reference's side: it reads the prompt and the tokens that the bundle chose."""
    pixels = reference.pixels(page, spec)
    features = _reference_features(source, spec, pixels)
    _say(progress, "reference", 1, 3)
    newline = source.tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    merged = reference.merge_features(features, page.size, spec, newline)
    prompt = reference.splice(ids, merged, source.tensor)
    answer = source.tensor("embed_tokens.weight")[chosen[:-1]]
    logits = reference.logits(np.concatenate([prompt, answer]), spec, source.tensor)
    return _Outputs(pixels, features, logits)


def _reference_features(source: Checkpoint, spec: ModelSpec, pixels: Floats) -> Floats:
    """Of our own tower by the numpy reference; of another one by its torch module."""
    if source.network == OWN:
        return reference.vision_features(pixels, spec, source.tensor)
    from pulse_export.network.optimum.tower import OptimumTower

    tower = OptimumTower(source, source.tensor)
    return reference.project(tower.hidden(pixels), spec, source.tensor)


def _report(
    bundle: Bundle,
    source: Checkpoint,
    stages: tuple[Stage, ...],
    logits: Floats,
    expected: Floats,
    chosen: list[int],
) -> Report:
    prompt = len(logits)
    decided = expected[prompt - 1 :]
    differs = [i for i, token in enumerate(chosen) if int(decided[i].argmax()) != token]
    at = differs[0] if differs else None
    margin = None if at is None else float(decided[at].max() - decided[at][chosen[at]])
    cosine = (logits * expected[:prompt]).sum(1) / (
        np.linalg.norm(logits, axis=1) * np.linalg.norm(expected[:prompt], axis=1)
    )
    precision = bundle.manifest.precision.name
    passed, verdict = _judge(precision, stages, margin)
    return Report(
        bundle=bundle.digest,
        checkpoint=str(source.path),
        precision=precision,
        stages=stages,
        logits_cosine_min=float(cosine.min()),
        logits_cosine_mean=float(cosine.mean()),
        top1_agreement=float((logits.argmax(1) == expected[:prompt].argmax(1)).mean()),
        kl_divergence_mean=float(kl_divergence(expected[:prompt], logits).mean()),
        tokens_compared=len(chosen),
        diverged_at=at,
        margin=margin,
        passed=passed,
        verdict=verdict,
    )


def _judge(precision: str, stages: tuple[Stage, ...], margin: float | None) -> tuple[bool, str]:
    pixels, features, logits = stages
    if pixels.max_error:
        return False, "pixels must be equal to the bit"
    if precision != "fp32":
        return (
            True,
            "pixels are equal; the other figures are what this precision costs, "
            "and have no bar here",
        )
    worst = max(features.relative, logits.relative)
    if worst > FP32_BAR:
        return False, f"features and logits must be within {FP32_BAR:g}, but err by {worst:.3g}"
    if margin is not None and margin > 2 * logits.max_error:
        return False, "tokens differ where the reference does not see a tie"
    tie = "" if margin is None else ", tokens differ only at a tie"
    return True, f"features and logits are within {FP32_BAR:g}{tie}"


def kl_divergence(
    expected: NDArray[np.floating[Any]], got: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """KL(expected || got) in nats, a row each, of two sets of logits [rows, vocab]."""
    p, q = (_log_softmax(x.astype(np.float64)) for x in (expected, got))
    out: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=1)
    return out


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x - x.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return out


def _stage(name: str, got: Floats, expected: Floats) -> Stage:
    error = float(np.abs(got - expected).max())
    return Stage(name, got.shape, error, error / float(np.abs(expected).max()))


def _say(progress: Progress | None, stage: str, amount: int, total: int) -> None:
    if progress:
        progress(stage, amount, total)


def _greedy(engine: Engine, prompt: Rows, count: int) -> tuple[Floats, list[int]]:
    """Logits of every prompt position [prompt, vocab], and `count` greedy tokens.

    The end token does not end them.
    """
    logits = engine.step(prompt).astype(np.float32)
    chosen = [int(logits[-1].argmax())]
    while len(chosen) < count:
        chosen.append(int(engine.choose(engine.rows(np.array(chosen[-1:])))[0]))
    return logits, chosen


def prompt_ids(bundle: Bundle) -> list[int]:
    """Ids of the question that a comparison asks, with `IMAGE` in the page's place."""
    name = bundle.manifest.tokenizer
    template = PromptBuilder.of(bundle.manifest.model, bundle.read(name), name)
    return template.first_turn(REPORT_QUESTION)


def test_page() -> Image.Image:
    """A deterministic landscape page with lines and a grid, so that all of it has detail."""
    y, x = np.mgrid[0:425, 0:550]
    trace = np.abs(y % 106 - 53 - 30 * np.exp(-((((x % 60) - 30) / 4.0) ** 2))) < 1.5
    grid = (x % 10 == 0) | (y % 10 == 0)
    rgb = np.full((425, 550, 3), 255, np.uint8)
    rgb[grid] = (255, 200, 200)
    rgb[trace] = 0
    return Image.fromarray(rgb)
