"""The numpy reference and exported fp32 bundles against Hugging Face's own models (torch, CPU,
float32).

These need `torch` and `transformers`, of any recent version, and are skipped without them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page import views as images
from pulse_edge.page.tokens import merge
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export

from goldens import cases
from support import tiny
from support.numbers import relative
from support.pulse_7b import pulse_spec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4  # relative to the largest value
NEW_TOKENS = 64


def check_greedy(tokens: Sequence[int], expected: Sequence[int], margins: Sequence[float]) -> None:
    """Equal, or equal up to a tie of the reference's best two."""
    at = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=True)) if a != b), None)
    assert at is None or margins[at] < 1e-4, f"token {at} differs with a margin of {margins[at]}"


def pretrained(class_name: str, path: Path) -> Any:
    model = getattr(transformers, class_name).from_pretrained(path, dtype=torch.float32)
    return model.eval()


CLIP_NAMES = {"model.vision_tower.vision_tower.": ""}
LLAMA_NAMES = {
    prefix: prefix for prefix in ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
}


def part(source: Path, path: Path, names: dict[str, str], config: dict[str, Any]) -> Path:
    """The tensors of a checkpoint whose names begin as a key of `names`, as a checkpoint of their
    own.
    """
    from safetensors.numpy import load_file

    tensors = load_file(source / "model.safetensors")
    chosen = {tiny.rename(n, names): t for n, t in tensors.items() if n.startswith(tuple(names))}
    path.mkdir()
    tiny.write_safetensors(path / "model.safetensors", chosen)
    tiny.write_json(path / "config.json", config)
    return path


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {
            "image_size": 112,
            "patch_size": 16,
            "vision_width": 48,
            "vision_heads": 4,
            "vision_layers": 4,
        },
    ],
    ids=["default", "other"],
)
@pytest.mark.parametrize("select_layer", [-2, -1, 1])
def test_clip_vision(
    tmp_path: Path, activation: str, geometry: dict[str, Any], select_layer: int
) -> None:
    grids = ((112, 112),)
    path = tiny.make_checkpoint(
        tmp_path / "llava", select_layer=select_layer, grids=grids, **geometry
    )
    config = json.loads((path / "vision_config.json").read_text()) | {"hidden_act": activation}
    tiny.write_json(path / "vision_config.json", config)
    source = Checkpoint(path)
    tower = part(
        path, tmp_path / "clip", CLIP_NAMES, {"architectures": ["CLIPVisionModel"]} | config
    )
    pixels = np.random.default_rng(0).normal(
        0, 1, (2, 3, config["image_size"], config["image_size"])
    )
    with torch.inference_mode():
        out = pretrained("CLIPVisionModel", tower)(
            torch.tensor(pixels).float(), output_hidden_states=True
        )
    expected = out.hidden_states[select_layer].numpy()
    got = [
        reference.vision_hidden(view, source.spec, source.tensor)
        for view in pixels.astype(np.float32)
    ]
    assert relative(np.stack(got), expected) < TOLERANCE / 10


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kv_heads": 2},
        {"kv_heads": 1, "rope_theta": 500000.0},
        {"tied": True, "layers": 3, "hidden": 96},
    ],
    ids=lambda o: ",".join(o) or "plain",
)
def test_llama(tmp_path: Path, options: dict[str, Any]) -> None:
    """All rows' logits of a long prompt, then greedy tokens."""
    path = tiny.make_checkpoint(tmp_path / "llava", context=2048, **options)
    source = Checkpoint(path)
    config = json.loads((path / "config.json").read_text())
    config = {k: v for k, v in config.items() if not k.startswith(("mm_", "image_"))}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    llama = pretrained("LlamaForCausalLM", part(path, tmp_path / "llama", LLAMA_NAMES, config))
    ids = np.random.default_rng(0).integers(3, tiny.VOCAB, 1200)
    embeds = reference.splice(ids.tolist(), None, source.tensor)
    with torch.inference_mode():
        expected = llama(torch.tensor(ids)[None]).logits[0].numpy()
        prompt = torch.tensor(ids[:40])[None]
        generated = llama.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )[0, 40:].tolist()
    assert relative(reference.logits(embeds, source.spec, source.tensor), expected) < TOLERANCE
    chosen = reference.greedy(embeds[:40], source.spec, source.tensor, NEW_TOKENS, stop=False)
    check_greedy(chosen.tokens, generated, chosen.margins)


LAYOUTS = [
    ("hf_next", "LlavaNextForConditionalGeneration"),
    ("hf_llava", "LlavaForConditionalGeneration"),
]


@pytest.mark.parametrize("names", ["old", "new"])
@pytest.mark.parametrize(
    "size", [(150, 110), (110, 150), (300, 70)], ids=lambda s: f"{s[0]}x{s[1]}"
)
@pytest.mark.parametrize(("layout", "class_name"), LAYOUTS, ids=["llava_next", "llava"])
def test_whole_model(
    tmp_path: Path, layout: str, class_name: str, size: tuple[int, int], names: str
) -> None:
    """Reference and exported bundle against the whole of Hugging Face's model."""
    path = tiny.make_checkpoint(tmp_path / "checkpoint", layout=layout, names=names, kv_heads=2)
    model, source = pretrained(class_name, path), Checkpoint(path)
    spec, tensor, page = source.spec, source.tensor, cases.page(*size, seed=3)
    pixels = reference.pixels(page, spec)

    newline = tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    tokens = reference.merge_features(
        reference.vision_features(pixels, spec, tensor), size, spec, newline
    )
    before, after = [1, 353, 473, 446], [446, 13, 501, 336, 278]
    embeds = reference.splice([*before, -200, *after], tokens, tensor)

    ids = torch.tensor([[*before, *[tiny.VOCAB] * len(tokens), *after]])
    arguments: dict[str, Any] = {
        "pixel_values": torch.tensor(pixels),
        "attention_mask": torch.ones_like(ids),
    }
    if layout == "hf_next":
        sizes = torch.tensor([[size[1], size[0]]])  # (height, width)
        arguments |= {"pixel_values": torch.tensor(pixels)[None], "image_sizes": sizes}
    with torch.inference_mode():
        expected = model(input_ids=ids, **arguments).logits[0].numpy()
        generated = model.generate(
            input_ids=ids,
            **arguments,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )[0, ids.shape[1] :].tolist()
    assert relative(reference.logits(embeds, spec, tensor), expected) < TOLERANCE
    chosen = reference.greedy(embeds, spec, tensor, NEW_TOKENS, stop=False)
    check_greedy(chosen.tokens, generated, chosen.margins)

    export(path, tmp_path / "bundle", precision="fp32")
    opened = open_bundle(tmp_path / "bundle")
    engine = open_engine(opened, EngineOptions(threads=1))
    ours = merge(engine.encode(images.preprocess(page, spec)), size, spec, newline)
    assert relative(ours, tokens) < TOLERANCE
    logits = engine.prefill(reference.splice([*before, -200, *after], ours, tensor))
    assert relative(logits, expected[-1]) < TOLERANCE
    picked: list[int] = []
    for _ in range(NEW_TOKENS):
        picked.append(int(logits.argmax()))
        logits = engine.step(tensor("embed_tokens.weight")[picked[-1:]])[0]
    check_greedy(picked, generated, chosen.margins)


@pytest.mark.parametrize("size", [(2200, 1700), (3000, 1000), (336, 336), (335, 337), (10, 5000)])
def test_llava_next_pixels(size: tuple[int, int]) -> None:
    """Hugging Face's slow LlavaNext processor cuts the same views, its grids being
    (height, width).
    """
    processor_class = (
        getattr(transformers, "LlavaNextImageProcessorPil", None)
        or transformers.LlavaNextImageProcessor
    )
    try:
        processor = processor_class(
            size={"shortest_edge": cases.SIDE},
            crop_size={"height": cases.SIDE, "width": cases.SIDE},
            image_grid_pinpoints=[[h, w] for w, h in cases.GRIDS],
        )
    except ImportError as error:
        pytest.skip(str(error).strip().split("\n")[0])
    page = cases.page(*size)
    expected = processor(page, return_tensors="np")["pixel_values"][0]
    got = reference.pixels(page, pulse_spec(merge="spatial_unpad"))
    assert got.shape == expected.shape
    # Pillow 13 resizes some tall pages in another order of passes: the base view moves by up to ten
    # levels of 255.
    assert np.abs(got - expected).max() < (1e-6 if size[0] >= size[1] else 0.2)


def test_llava_next_unpads_alike_but_for_rounding() -> None:
    """LLaVA (and we) truncate; Hugging Face rounds to seven decimals first. They part ways, by two
    rows or columns, where the page's edge falls on a whole feature and the product of floats falls
    just short of it.
    """
    unpad_image = pytest.importorskip(
        "transformers.models.llava_next.modeling_llava_next"
    ).unpad_image

    def kept(size: tuple[int, int]) -> tuple[list[int], list[int]]:
        """[rows, columns] that Hugging Face and the reference keep."""
        grid_w, grid_h = reference.best_grid(size, cases.GRIDS)
        rows, columns = grid_h // cases.PATCH, grid_w // cases.PATCH
        theirs = unpad_image(torch.zeros(1, rows, columns), (size[1], size[0])).shape[1:]
        return list(theirs), list(reference.unpad(np.zeros((rows, columns, 1)), size).shape[:2])

    for size in cases.sweep_sizes():
        theirs, ours = kept(size)
        assert (theirs == ours) == (size not in cases.JUST_SHORT), size
    assert kept((2352, 1421)) == ([30, 48], [28, 48])
