"""The data of a calibration: conversations, pages, simulated ones, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from support.fixture_types import Checkpoints

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli import cli
from pulse_edge.errors import ExportError, ImageError
from pulse_edge.page import tokens as images
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.samples import DataHash, read_samples

TURNS = [
    {"from": "human", "value": "<image>\nWhat is the rate?"},
    {"from": "gpt", "value": "72 beats per minute."},
]


def page(seed: int, size: tuple[int, int] = (130, 100)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pages in a directory, and conversations about them beside it."""
    folder = tmp_path / "pages"
    folder.mkdir()
    rows = []
    for i in range(3):
        page(i).save(folder / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": TURNS * (i + 1)})
    (tmp_path / "prompts.json").write_text(json.dumps(rows))
    return tmp_path


# -- the recipe in the manifest


def exported(checkpoint: Path, out: Path, recipe: Recipe) -> Any:
    export(checkpoint, out, precision="w8a8", target="standard", calibration=recipe)
    return open_bundle(out)


def test_the_manifest_names_recipe_and_data(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    recipe = Recipe(data / "pages", data / "prompts.json", samples=2, alpha=0.25)
    first = exported(checkpoint, tmp_path / "a", recipe)
    source, digest = Checkpoint(checkpoint), DataHash()
    for sample in read_samples(source.path, source.spec, 2, data / "pages", data / "prompts.json"):
        digest.add(sample)
    said = (
        "RTN symmetric, int8 per output, w8a8 per output, SmoothQuant alpha 0.25, "
        "absmax of 2 samples, data sha256 "
    )
    assert first.manifest.precision.recipe == said + digest.hex
    again = exported(checkpoint, tmp_path / "b", recipe)
    assert again.digest == first.digest
    (data / "prompts.json").write_text(
        (data / "prompts.json").read_text().replace("72 beats", "71 beats")
    )
    other = exported(checkpoint, tmp_path / "c", recipe)
    assert other.manifest.precision.recipe != first.manifest.precision.recipe
    page(77).save(data / "pages" / "1.png")
    last = exported(checkpoint, tmp_path / "d", replace(recipe, samples=3, alpha=0))
    assert "no smoothing, absmax of 3 samples" in last.manifest.precision.recipe


# -- samples


def test_conversations_are_prompted_as_the_runtime_does(checkpoint: Path, data: Path) -> None:
    source = Checkpoint(checkpoint)
    spec = source.spec
    samples = {
        Path(s.name).name: s
        for s in read_samples(
            checkpoint, spec, 3, prompts=data / "prompts.json", images=data / "pages"
        )
    }
    assert sorted(samples) == ["0.png", "1.png", "2.png"]
    tokenizer = Tokenizer(checkpoint / "tokenizer.model", spec.prompt.legacy)
    builder = PromptBuilder(spec.prompt, tokenizer, spec.text.bos, spec.text.eos[0])
    one = [*builder.first_turn("What is the rate?"), *tokenizer.encode("72 beats per minute.")]
    two = [*one, *builder.next_turn("What is the rate?"), *tokenizer.encode("72 beats per minute.")]
    assert list(samples["0.png"].ids) == one
    assert list(samples["1.png"].ids) == two
    assert np.array_equal(np.asarray(samples["1.png"].page), np.asarray(page(1)))


@pytest.mark.parametrize(
    "form", [str, list, lambda text: [text]], ids=["text", "characters", "one"]
)
def test_values_may_be_lists_as_in_ecgbench(
    checkpoint: Path, data: Path, tmp_path: Path, form: Any
) -> None:
    talk = [
        {"from": "human", "value": form("<image>\nWhich lead?")},
        {"from": "gpt", "value": ["lead I", "lead II"]},
    ]
    rows = [{"id": "a", "image": "0.png", "conversations": talk}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    spec = Checkpoint(checkpoint).spec
    (sample,) = read_samples(checkpoint, spec, 1, data / "pages", tmp_path / "rows.json")
    tokenizer = Tokenizer(checkpoint / "tokenizer.model", spec.prompt.legacy)
    builder = PromptBuilder(spec.prompt, tokenizer, spec.text.bos, spec.text.eos[0])
    ids = [*builder.first_turn("Which lead?"), *tokenizer.encode("lead I, lead II")]
    assert list(sample.ids) == ids


def test_images_may_lie_beside_the_prompts(checkpoint: Path, data: Path) -> None:
    rows = json.loads((data / "prompts.json").read_text())
    (data / "pages" / "here.json").write_text(json.dumps(rows[:2]))
    spec = Checkpoint(checkpoint).spec
    assert len(list(read_samples(checkpoint, spec, 16, prompts=data / "pages" / "here.json"))) == 2


def test_pages_alone_are_asked_built_in_questions(checkpoint: Path, data: Path) -> None:
    spec = Checkpoint(checkpoint).spec
    samples = list(read_samples(checkpoint, spec, 2, data / "pages"))
    assert len({s.name for s in samples}) == 2
    assert len({s.ids for s in samples}) == 2
    assert [s.ids for s in read_samples(checkpoint, spec, 2, data / "pages")] == [
        s.ids for s in samples
    ]


def test_simulated_pages_fit_the_context(checkpoints: Checkpoints) -> None:
    """The conversation is cut where the context ends; another page has another recording and other
    answers.
    """
    made = checkpoints(context=200)
    spec = Checkpoint(made).spec
    samples = list(read_samples(made, spec, 2))
    tokens = images.token_count(samples[0].page.size, spec)
    assert {len(s.ids) - 1 + tokens for s in samples} == {200}
    assert samples[0].ids.count(IMAGE) == 1
    assert not np.array_equal(np.asarray(samples[0].page), np.asarray(samples[1].page))


def test_a_page_that_does_not_fit_the_context(checkpoints: Checkpoints) -> None:
    made = checkpoints(context=64)
    with pytest.raises(
        ExportError, match=r"simulated page 0: the page's 80 tokens do not fit the context"
    ):
        list(read_samples(made, Checkpoint(made).spec, 1))


# -- what is wrong


WRONG = {
    "not JSON": ("[{", r"prompts.json: not JSON"),
    "no list": ({"id": 1}, r"prompts.json: must be a list of conversations"),
    "empty": ([], r"prompts.json: must be a list of conversations"),
    "no object": ([3], r"prompts.json\[0\]: must be an object that names an image"),
    "no image named": (
        [{"id": "a", "conversations": TURNS}],
        r"\[0\]: must be an object that names an image",
    ),
    "missing image": (
        [{"image": "no.png", "conversations": TURNS}],
        r"\[0\]: there is no image 'no.png' in .*pages",
    ),
    "odd name": ([{"image": "a\0b", "conversations": TURNS}], r"\[0\]: there is no image"),
    "no turns": ([{"image": "0.png"}], r"\[0\]: conversations must be a list of turns"),
    "answer first": (
        [{"image": "0.png", "conversations": TURNS[::-1]}],
        r"\[0\]: turn 0 must be .* from 'human'",
    ),
    "no text": (
        [{"image": "0.png", "conversations": [{"from": "human", "value": 3}]}],
        r"turn 0 must be an object",
    ),
    "says nothing": (
        [{"image": "0.png", "conversations": [{"from": "human", "value": "<image>\n "}]}],
        r"turn 0 says nothing",
    ),
    "second entry": (
        [{"image": "0.png", "conversations": TURNS}, {}],
        r"prompts.json\[1\]: must be an object",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_prompts_that_are_refused(checkpoint: Path, data: Path, tmp_path: Path, case: str) -> None:
    rows, message = WRONG[case]
    (data / "prompts.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    recipe = Recipe(data / "pages", data / "prompts.json", samples=1)
    with pytest.raises(ExportError, match=message):
        export(
            checkpoint, tmp_path / "out", precision="w8a8", target="standard", calibration=recipe
        )
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_other_mistakes(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    spec = Checkpoint(checkpoint).spec
    with pytest.raises(ExportError, match="no such directory of calibration images"):
        read_samples(checkpoint, spec, 1, tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"nowhere.json: cannot be read \(No such file"):
        read_samples(checkpoint, spec, 1, prompts=tmp_path / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="holds no page"):
        read_samples(checkpoint, spec, 1, tmp_path / "empty")
    (data / "pages" / "0.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0.png"):
        list(read_samples(checkpoint, spec, 3, data / "pages"))


@pytest.mark.parametrize(
    ("name", "value"), [("samples", 0), ("samples", 5000), ("alpha", -0.1), ("alpha", 1.5)]
)
def test_recipes_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ExportError, match=f"{name}.* {value}, must be"):
        Recipe(**{name: value})


def test_a_target_that_does_not_run_it(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="target cuda does not run w8a8: it supports weights in"):
        export(checkpoint, tmp_path / "out", precision="w8a8", target="cuda")


def test_from_the_command_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    command = ["export", str(checkpoint), out, "--target", "standard", "--precision", "w8a8"]
    options = [
        "--calibration",
        str(data / "pages"),
        "--prompts",
        str(data / "prompts.json"),
        "--samples",
        "2",
    ]
    done = CliRunner().invoke(cli, [*command, *options, "--smoothing", "0.75"])
    assert done.exit_code == 0, done.exception
    assert (
        "SmoothQuant alpha 0.75, absmax of 2 samples" in open_bundle(out).manifest.precision.recipe
    )
    weights_only = [*command[:2], str(tmp_path / "b"), *command[3:6], "int8"]
    refused = CliRunner().invoke(cli, [*weights_only, *options])
    assert "precision int8 quantizes no activations, so it takes no calibration data" in str(
        refused.exception
    )
    refused = CliRunner().invoke(cli, [*command, "--force", "--smoothing", "2"])
    assert "SmoothQuant's alpha is 2.0, must be 0 (off) to 1" in str(refused.exception)
