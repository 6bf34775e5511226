"""The numpy reference and our runtime against the answers of the authors' own code."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.spec import PromptSpec
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page import source, tokens
from pulse_edge.page import views as images
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export import reference
from pulse_export.chat_template import VICUNA
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export

from goldens import cases
from support import tiny
from support.numbers import relative
from support.paths import GOLDENS
from support.pulse_7b import BOS, EOS, pulse_spec

TOLERANCE = 1e-4  # relative to the largest value
CONTROL = re.compile(r"(<s>|</s>|<unk>)")


def load(name: str) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads((GOLDENS / name).read_text())
    return golden


IMAGES, PROMPTS, MODELS = load("images.json"), load("prompts.json"), load("models.json")


def by_name(golden: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "golden", [pytest.param(c, id=c["name"]) for c in golden["cases"]]
    )


# --- images ---------------------------------------------------------------------------------------


def golden_image(name: str) -> Image.Image:
    size = re.fullmatch(r"(\d+)x(\d+)", name)
    return cases.page(int(size[1]), int(size[2])) if size else cases.mode_page(name)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()


@by_name(IMAGES)
def test_pixels_are_upstreams_to_the_bit(golden: dict[str, Any]) -> None:
    image = golden_image(golden["name"])
    if golden["name"] == "I;16":  # Pillow clips 16-bit greys, as upstream does with it; we do not
        image = image.convert("RGB")
    page = source.read_page(image, alpha="drop")
    assert hashlib.sha256(page.image.tobytes()).hexdigest() == golden["rgb_sha256"]
    for aspect in ("anyres", "pad", "square"):
        spec = pulse_spec(aspect)
        ours, theirs = images.preprocess(page.image, spec), reference.pixels(image, spec)
        assert ours.dtype == theirs.dtype == np.float32
        if golden[aspect] is None:  # upstream mistakes one or three rows for channels
            assert sha256(ours) == sha256(theirs)
            continue
        assert sha256(theirs) == golden[aspect]["sha256"], f"reference, {aspect}"
        assert len(ours) == golden[aspect]["views"] == images.view_count(page.size, spec)
        assert sha256(ours) == golden[aspect]["sha256"], (
            f"{aspect}; Pillow {PIL.__version__}: resize rows, then columns"
        )


@by_name(IMAGES)
def test_grids_and_token_counts(golden: dict[str, Any]) -> None:
    size = tuple(golden["size"])
    assert list(images.select_grid(size, cases.GRIDS)) == golden["grid"]
    assert list(reference.best_grid(size, cases.GRIDS)) == golden["grid"]
    for merge, count in golden["tokens"].items():
        assert tokens.token_count(size, pulse_spec(merge=merge)) == count


def test_grids_and_token_counts_of_many_sizes() -> None:
    for width, height, grid_w, grid_h, flat, unpad in IMAGES["sweep"]:
        size = (width, height)
        assert images.select_grid(size, cases.GRIDS) == (grid_w, grid_h), size
        assert reference.best_grid(size, cases.GRIDS) == (grid_w, grid_h), size
        assert tokens.token_count(size, pulse_spec()) == flat, size
        assert tokens.token_count(size, pulse_spec(merge="spatial_unpad")) == unpad, size
        n = cases.SIDE // cases.PATCH
        feature_map = np.zeros((n * grid_h // cases.SIDE, n * grid_w // cases.SIDE, 1))
        kept = reference.unpad(feature_map, size)
        assert n * n + kept.shape[0] * (kept.shape[1] + 1) == unpad, size


# --- prompts --------------------------------------------------------------------------------------


def tokenizer(legacy: bool) -> Tokenizer:
    return Tokenizer(GOLDENS / "tokenizer.model", legacy)


def encode_as_upstream(prompt: str, tokens: Tokenizer) -> list[int]:
    """`tokenizer_image_token` in terms of our tokenizer, control tokens in the text included."""
    ids = [BOS]
    for k, chunk in enumerate(prompt.split("<image>")):
        ids += [IMAGE] * (k > 0)
        encode: Callable[[str], list[int]] = tokens.encode
        for part in CONTROL.split(chunk):
            control = {"<unk>": 0, "<s>": BOS, "</s>": EOS}.get(part)
            if control is not None:
                ids.append(control)
                encode = tokens.encode_after_special
            elif part:
                ids += encode(part)
    return ids


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "golden", PROMPTS["prompts"] + PROMPTS["conversations"], ids=lambda c: repr(c["prompt"])[-40:]
)
def test_token_ids_are_upstreams(golden: dict[str, Any], legacy: bool) -> None:
    assert (
        encode_as_upstream(golden["prompt"], tokenizer(legacy))
        == golden[f"legacy_{str(legacy).lower()}"]
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "golden", PROMPTS["conversations"], ids=lambda c: " / ".join(c["texts"])[:50]
)
def test_conversations_are_upstreams(golden: dict[str, Any], legacy: bool) -> None:
    texts, expected = golden["texts"], golden[f"legacy_{str(legacy).lower()}"]
    prompts = PromptBuilder(PromptSpec(**VICUNA, legacy=legacy), tokenizer(legacy), BOS, EOS)
    if not all(t.strip() for t in texts) or any(
        t in text for text in texts for t in ("<s>", "</s>", "<image>")
    ):
        pytest.skip(
            "upstream lets texts close turns and open images; "
            "we refuse empty ones and keep these as characters"
        )
    ids = prompts.first_turn(texts[0])
    assert expected[: len(ids)] == ids
    for answer, question in zip(texts[1::2], texts[2::2], strict=True):
        end = expected.index(EOS, len(ids))
        said = expected[len(ids) : end]
        assert said == tokenizer(legacy).encode(" " + answer)[-len(said) :]  # the answer's own ids
        ids = [*ids, *said, *prompts.next_turn(question)]
        assert expected[: len(ids)] == ids
    assert ids == expected


@pytest.mark.parametrize(
    "question", ["Is it <s> or </s>?", "What <image> is this?", "<unk>", "a</s>USER: b"]
)
def test_questions_cannot_smuggle_control_tokens(question: str) -> None:
    prompts = PromptBuilder(PromptSpec(**VICUNA, legacy=False), tokenizer(False), BOS, EOS)
    for ids, control in (
        (prompts.first_turn(question), [BOS, IMAGE]),
        (prompts.next_turn(question), [EOS]),
    ):
        assert [i for i in ids if i <= EOS] == control


# --- whole models ---------------------------------------------------------------------------------


@dataclass
class Tiny:
    """A tiny checkpoint of a golden, with the golden's tokenizer, and its page."""

    golden: dict[str, Any]
    case: cases.ModelCase
    path: Path

    @property
    def image(self) -> Image.Image:
        return cases.page(*self.case.size, seed=3)


@pytest.fixture(scope="module", params=MODELS["cases"], ids=lambda c: str(c["name"]))
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    golden = request.param
    case = next(c for c in cases.MODEL_CASES if c.name == golden["name"])
    path = tiny.make_checkpoint(
        tmp_path_factory.mktemp(case.name) / "checkpoint", **case.checkpoint
    )
    shutil.copyfile(GOLDENS / "tokenizer.model", path / "tokenizer.model")
    return Tiny(golden, case, path)


def check_image_tokens(tokens: np.ndarray, golden: dict[str, Any]) -> None:
    assert list(tokens.shape) == golden["shape"]
    assert relative(tokens[:, :3], golden["first3"]) < TOLERANCE
    assert relative(np.linalg.norm(tokens, axis=1), golden["norms"]) < TOLERANCE


def check_greedy(tokens: list[int], golden: dict[str, Any]) -> None:
    """Equal, or equal up to a tie: where upstream's own best two lie within rounding of
    each other.
    """
    expected = golden["tokens"]
    at = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=False)) if a != b), None)
    if at is None:
        assert len(tokens) == len(expected)
    else:
        assert golden["margins"][at] < 1e-4, f"token {at} differs, and it was no tie"


def test_reference_gives_upstreams_numbers(small: Tiny) -> None:
    source, golden = Checkpoint(small.path), small.golden
    spec, tensor = source.spec, source.tensor
    pixels = reference.pixels(small.image, spec)
    assert len(pixels) == golden["views"]
    newline = tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    features = reference.vision_features(pixels, spec, tensor)
    tokens = reference.merge_features(features, small.image.size, spec, newline)
    check_image_tokens(tokens, golden["features"])
    embeds = reference.splice(golden["prompt_ids"], tokens, tensor)
    assert len(embeds) == golden["prefill_tokens"]
    assert (
        relative(reference.logits(embeds, spec, tensor, rows=[-1])[0], golden["logits"]) < TOLERANCE
    )
    chosen = reference.greedy(embeds, spec, tensor, cases.NEW_TOKENS)
    check_greedy(chosen.tokens, golden)


@pytest.fixture(scope="module")
def bundle(small: Tiny) -> Path:
    out = small.path.parent / "bundle"
    export(small.path, out, precision="fp32")
    return out


def test_runtime_gives_upstreams_numbers(small: Tiny, bundle: Path) -> None:
    """Stage by stage, through the same functions as `Model`."""
    golden, opened = small.golden, open_bundle(bundle)
    spec, engine = opened.manifest.model, open_engine(opened, EngineOptions(threads=1))
    source = Checkpoint(small.path)
    features = engine.encode(images.preprocess(small.image, spec))
    newline = source.tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    merged = tokens.merge(features, small.image.size, spec, newline)
    assert len(merged) == tokens.token_count(small.image.size, spec)
    check_image_tokens(merged, golden["features"])
    prompts = PromptBuilder(
        spec.prompt, Tokenizer(small.path / "tokenizer.model", spec.prompt.legacy), BOS, EOS
    )
    ids = prompts.first_turn(small.case.question)
    assert ids == golden["prompt_ids"]
    logits = engine.prefill(reference.splice(ids, merged, source.tensor))
    assert relative(logits, golden["logits"]) < TOLERANCE


def test_runtime_gives_upstreams_answer(small: Tiny, bundle: Path) -> None:
    golden = small.golden
    answer = pulse_edge.load(bundle, threads=1).ask(
        small.image, small.case.question, max_new_tokens=cases.NEW_TOKENS
    )
    ended = answer.finish_reason == "eos"
    check_greedy([*answer.token_ids, *([EOS] if ended else [])], golden)
    assert ended == (golden["tokens"][-1] == EOS)
    assert answer.usage.prompt_tokens == golden["prefill_tokens"]
    assert answer.usage.image_tokens == golden["features"]["shape"][0]
    assert answer.text.replace("\ufffd", "") == golden["text"].replace("\ufffd", "")
