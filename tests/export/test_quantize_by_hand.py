"""Numbers of quantization, with the arithmetic written out, and limits to the last value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.errors import ExportError
from pulse_edge.page.tokens import token_count
from pulse_edge.simulation.cases import heldout_case
from pulse_edge.text.template import IMAGE, PromptBuilder

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
from pulse_export.checkpoint import Checkpoint
from pulse_export.quantize.cache import scales_of_peaks
from pulse_export.quantize.precision import STORAGES
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.samples import DataHash, Sample, read_samples
from pulse_export.quantize.smooth import smoothing_vector
from pulse_export.quantize.weights import quantize

TINY = float(np.finfo(np.float32).tiny)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# -- weights


@pytest.mark.parametrize(
    ("values", "bits", "signed", "codes", "scale"),
    [
        ((7, -1, 3, 0), 4, False, (15, 7, 11, 8), 1.0),  # 7 on the end with fewer steps
        ((8, -1, 3, 0), 4, True, (0, 9, 5, 8), -1.0),  # 8 on the end with one step more
        ((-8, 1, 3, 0), 4, True, (0, 9, 11, 8), 1.0),
        ((-8, 1, 3, 0), 4, False, (0, 9, 11, 8), 1.0),
        ((-64, 63, 1, 0), 7, True, (0, 127, 65, 64), 1.0),
        ((63, -62, 1, 0), 7, False, (127, 2, 65, 64), 1.0),
        ((127, -1, 5, 0), 8, False, (255, 127, 133, 128), 1.0),
        ((-16, 1, 6, 0), 4, True, (0, 8, 11, 8), 2.0),  # halves go to the even one
        ((0, 0, 0, 0), 4, True, (8, 8, 8, 8), 0.0),
    ],
)
def test_codes_of_a_block(
    values: tuple[float, ...], bits: int, signed: bool, codes: tuple[int, ...], scale: float
) -> None:
    weight = quantize(floats(*values)[None], bits, 4, signed=signed)
    assert weight.codes.tolist() == [list(codes)]
    assert weight.scales.tolist() == [[scale]]


def test_of_two_equal_magnitudes_the_negative_one_decides() -> None:
    weight = quantize(floats(4, -4)[None], 4, 2)
    assert weight.scales.tolist() == [[0.5]]
    assert weight.codes.tolist() == [[15, 0]]
    assert weight.dequantize().tolist() == [[3.5, -4.0]]


def test_a_scale_may_be_the_smallest_normal_number_but_no_smaller() -> None:
    smallest = quantize(floats(-8 * TINY, 0)[None], 4, 2)
    assert smallest.scales.tolist() == [[TINY]]
    assert smallest.codes.tolist() == [[0, 8]]
    subnormal = quantize(floats(-4 * TINY, 0)[None], 4, 2)
    assert subnormal.scales.tolist() == [[0.0]]
    assert subnormal.codes.tolist() == [[8, 8]]


def test_a_tail_block_is_padded() -> None:
    weight = quantize(floats(-8, 1, 2, -16, 2)[None], 4, 3)
    assert weight.codes.tolist() == [[0, 9, 10, 0, 9, 8]]
    assert weight.scales.tolist() == [[1.0, 2.0]]
    assert weight.columns == 5
    assert weight.dequantize().tolist() == [[-8, 1, 2, -16, 2]]


@pytest.mark.parametrize(
    ("name", "bytes_"),
    [
        ("fp32", 4.0),
        ("fp16", 2.0),
        ("int8", 1 + 4 / 128),  # a scale of 4 bytes in blocks of 128, the smallest default
        ("int4", 0.5 + 4 / 32),
        ("w8a8", 1 + 4 / 128),
    ],
)
def test_bytes_of_a_weight(name: str, bytes_: float) -> None:
    storage = STORAGES[name]
    assert bytes_ <= storage.bytes_per_weight <= bytes_ + 0.01
    assert storage.bits == {"fp32": 32, "fp16": 16, "int4": 4}.get(name, 8)
    assert storage.quantized == (storage.bits < 16)
    assert storage.rounds_inputs == (name == "w8a8")
    assert storage.stored_twice == (name in ("fp16", "w8a8"))  # as was measured with TensorRT


# -- the cache


def test_scales_of_values_have_half_again_as_much_room() -> None:
    scales = scales_of_peaks(floats(127, 254, 0, 1)[None], "0.value")
    # 1e-6 of the largest for a channel that was never seen
    expected = [1.5, 3.0, 254e-6 * 1.5 / 127, 1.5 / 127]
    assert scales.shape == (1, 1, 1, 4)
    assert scales[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_scales_of_keys_are_those_of_pairs() -> None:
    """RoPE rotates channel i with channel i + half."""
    scales = scales_of_peaks(floats(127, 1, 254, 2)[None], "0.key")
    assert scales[0, 0, 0] == pytest.approx([3.0, 3 / 127, 3.0, 3 / 127], rel=1e-6)


def test_scales_are_normal_numbers() -> None:
    assert scales_of_peaks(floats(0, 0)[None], "0.value")[0, 0, 0].tolist() == [TINY, TINY]


# -- smoothing


@pytest.mark.parametrize(
    ("inputs", "weights", "alpha", "expected"),
    [
        (16, 4, 0.5, 2.0),  # 16 ** 0.5 / 4 ** 0.5
        (16, 4, 1.0, 16.0),
        (16, 4, 0.0, 0.25),
        (81, 16, 0.75, 13.5),  # 27 / 2
        (0, 4, 0.5, 1.0),
        (16, 0, 0.5, 1.0),
        (0, 0, 0.5, 1.0),
        (1e20, 1, 0.5, 1e4),
        (1, 1e20, 0.5, 1e-4),
        (9e3, 1, 1.0, 9e3),
        (1.1e-4, 1, 1.0, 1.1e-4),
    ],
)
def test_smoothing_of_a_channel(
    inputs: float, weights: float, alpha: float, expected: float
) -> None:
    found = smoothing_vector(floats(inputs), floats(weights), alpha)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


# -- the recipe


def test_defaults_of_a_recipe() -> None:
    assert Recipe() == Recipe(None, None, 16, 0.8)


@pytest.mark.parametrize("samples", [1, 2, 4095, 4096])
def test_samples_that_are_accepted(samples: int) -> None:
    assert Recipe(samples=samples).samples == samples


@pytest.mark.parametrize("samples", [-1, 0, 4097])
def test_samples_that_are_not(samples: int) -> None:
    with pytest.raises(ExportError, match=f"samples are {samples}, must be 1 to 4096"):
        Recipe(samples=samples)


@pytest.mark.parametrize("alpha", [0, 1e-9, 0.5, 1])
def test_alphas_that_are_accepted(alpha: float) -> None:
    assert Recipe(alpha=alpha).alpha == alpha


@pytest.mark.parametrize("alpha", [-1e-9, 1 + 1e-9, float("nan"), float("inf")])
def test_alphas_that_are_not(alpha: float) -> None:
    with pytest.raises(ExportError, match="must be 0"):
        Recipe(alpha=alpha)


# -- samples


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    return Image.fromarray(pixels)


def test_the_digest_of_the_data_by_hand() -> None:
    image = picture()
    digest = DataHash()
    digest.add(Sample("a", image, (1, IMAGE, 300)))
    ids = b"".join(value.to_bytes(8, "little", signed=True) for value in (1, IMAGE, 300))
    parts = (b"(80, 60)", image.tobytes(), (24).to_bytes(8, "little"), ids)
    assert digest.hex == hashlib.sha256(b"".join(parts)).hexdigest()
    assert digest.hex != DataHash().hex


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"])
def test_pages_by_their_suffix(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    picture().save(tmp_path / f"page{suffix}")
    (tmp_path / "notes.txt").write_text("no page")
    samples = list(read_samples(checkpoint, Checkpoint(checkpoint).spec, 9, tmp_path))
    assert [Path(sample.name).name for sample in samples] == [f"page{suffix}"]


def test_the_same_pages_are_drawn_every_time(checkpoint: Path, tmp_path: Path) -> None:
    """Those that numpy's generator of seed 0 puts first, in the order of their names."""
    for number in range(8):
        picture(number).save(tmp_path / f"{number}.png")
    samples = read_samples(checkpoint, Checkpoint(checkpoint).spec, 3, tmp_path)
    order = np.random.Generator(np.random.PCG64(0)).permutation(8)[:3]
    assert [int(Path(sample.name).stem) for sample in samples] == sorted(order.tolist())


def test_pages_alone_get_these_questions(checkpoint: Path, tmp_path: Path) -> None:
    questions = [
        REPORT_QUESTION,
        RATE_QUESTION,
        "What is the rhythm?",
        "Are there ST segment changes?",
        "Is there a conduction abnormality?",
        REPORT_QUESTION,
    ]
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
    spec = Checkpoint(checkpoint).spec
    template = PromptBuilder.of(spec, checkpoint / TOKENIZER)
    samples = list(read_samples(checkpoint, spec, 6, tmp_path))
    assert [list(s.ids) for s in samples] == [template.first_turn(q) for q in questions]


def test_without_pages_they_are_simulated_from_a_seed_of_their_own(checkpoint: Path) -> None:
    """7070: neither training's nor the accuracy gate's."""
    spec = Checkpoint(checkpoint).spec
    for number, sample in enumerate(read_samples(checkpoint, spec, 2)):
        case = heldout_case(number, 7070)
        assert sample.page.tobytes() == case.image.tobytes()
        assert sample.page.tobytes() != heldout_case(number).image.tobytes()


def test_a_conversation_is_cut_where_the_context_ends(checkpoint: Path, tmp_path: Path) -> None:
    """One id behind the page must fit at least."""
    spec = Checkpoint(checkpoint).spec
    picture().save(tmp_path / "page.png")
    (whole,) = read_samples(checkpoint, spec, 1, tmp_path)
    before = whole.ids.index(IMAGE)
    page = token_count((80, 60), spec)
    for behind in (1, 2, 5):
        context = before + page + behind
        shorter = replace(spec, text=replace(spec.text, context=context))
        (sample,) = read_samples(checkpoint, shorter, 1, tmp_path)
        assert sample.ids == whole.ids[: before + 1 + behind]
    shorter = replace(spec, text=replace(spec.text, context=before + page))
    with pytest.raises(ExportError, match=f"the page's {page} tokens do not fit the context"):
        list(read_samples(checkpoint, shorter, 1, tmp_path))


@pytest.mark.parametrize("turns", [[], {}, "text", None, 3, ()])
def test_conversations_that_are_none(checkpoint: Path, tmp_path: Path, turns: object) -> None:
    picture().save(tmp_path / "page.png")
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"image": "page.png", "conversations": turns}]))
    with pytest.raises(ExportError, match="conversations must be a list of turns"):
        read_samples(checkpoint, Checkpoint(checkpoint).spec, 1, prompts=path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "missing.png", "folder"])
def test_images_that_are_not_there(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "prompts.json"
    turns = [{"from": "human", "value": "What is it?"}]
    path.write_text(json.dumps([{"image": name, "conversations": turns}]))
    with pytest.raises(ExportError, match="there is no image"):
        read_samples(checkpoint, Checkpoint(checkpoint).spec, 1, prompts=path)
