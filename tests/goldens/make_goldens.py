"""Makes the goldens in this folder by running the authors' own code, on a CPU, at toy size.

    python make_goldens.py UPSTREAM/LLaVA [OUTPUT]

UPSTREAM is a checkout of AIMedLab/PULSE (the goldens here: commit a439b6c). The environment, on
Python 3.11:

    pip install torch==2.13.0
    pip install 'transformers==4.37.2' 'tokenizers<0.16' 'protobuf<5' 'numpy<2' 'pillow==10.4.0' \
        sentencepiece safetensors accelerate einops requests

Pillow is of the time when PULSE was trained and evaluated: since 12.2 it resizes some tall pages in
another order of passes, which moves up to a quarter of the base view's bytes, by up to ten levels.
`cases.py` says what goes in. Nothing of upstream's is kept but its answers:

* images.json: SHA-256 of `process_images`' float32 pixels, grids and token counts;
* prompts.json: ids of `tokenizer_image_token`, with the tokenizer's `legacy` true and false;
* models.json: image tokens, prefill logits and greedily generated ids of tiny checkpoints;
* tokenizer.model: the tokenizer the ids belong to (`tiny.tokenizer_model`, kept because trainers
    change).
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [sys.argv[1], str(HERE.parent)]

import PIL  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from llava.constants import IMAGE_TOKEN_INDEX  # noqa: E402
from llava.conversation import conv_templates  # noqa: E402
from llava.mm_utils import (  # noqa: E402
    get_anyres_image_grid_shape,
    process_images,
    select_best_resolution,
    tokenizer_image_token,
)
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM  # noqa: E402
from llava.model.llava_arch import unpad_image  # noqa: E402
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel  # noqa: E402

from goldens.cases import (  # noqa: E402
    CONVERSATIONS,
    GRIDS,
    MODEL_CASES,
    MODES,
    NEW_TOKENS,
    PATCH,
    PROMPTS,
    SIDE,
    SIZES,
    ModelCase,
    mode_page,
    page,
    sweep_sizes,
)
from support import tiny  # noqa: E402

VERSIONS = {
    "upstream": "AIMedLab/PULSE a439b6c",
    "torch": torch.__version__.split("+")[0],
    "transformers": transformers.__version__,
    "pillow": PIL.__version__,
    "numpy": np.__version__,
}


def processor(side: int) -> CLIPImageProcessor:
    """openai/clip-vit-large-patch14-336's preprocessor_config.json, at another side."""
    return CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )


def token_counts(size: tuple[int, int]) -> dict[str, int]:
    """Image tokens of upstream's merging, for a page of `size` (width, height) under PULSE's
    geometry.
    """
    across, down = get_anyres_image_grid_shape(size, list(GRIDS), SIDE)
    side = SIDE // PATCH
    kept = unpad_image(torch.zeros(1, down * side, across * side), size)
    spatial = side * side + kept.shape[1] * (kept.shape[2] + 1)
    return {"flat": (1 + across * down) * side * side, "spatial_unpad": spatial}


def image_case(name: str, image: Any) -> dict[str, Any]:
    rgb = image.convert("RGB")
    case: dict[str, Any] = {
        "name": name,
        "size": list(rgb.size),
        "rgb_sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
        "grid": list(select_best_resolution(rgb.size, list(GRIDS))),
        "tokens": token_counts(rgb.size),
    }
    for aspect in ("anyres", "pad", "square"):
        rows = max(rgb.size) if aspect == "pad" else rgb.height
        if aspect != "anyres" and rows in (1, 3):
            case[aspect] = (
                None  # CLIPImageProcessor takes so few rows for a channels-first image: no golden
            )
            continue
        config = SimpleNamespace(
            image_aspect_ratio=aspect, image_grid_pinpoints=[list(g) for g in GRIDS]
        )
        pixels = process_images([rgb], processor(SIDE), config)
        pixels = pixels[0] if aspect == "anyres" else pixels  # [views, 3, side, side]
        raw = np.ascontiguousarray(pixels.numpy(), dtype="<f4")
        case[aspect] = {"views": len(raw), "sha256": hashlib.sha256(raw.tobytes()).hexdigest()}
    return case


def image_goldens() -> dict[str, Any]:
    images = [(f"{w}x{h}", page(w, h)) for w, h in SIZES] + [(m, mode_page(m)) for m in MODES]
    sweep = []
    for size in sweep_sizes():
        counts = token_counts(size)
        grid = select_best_resolution(size, list(GRIDS))
        sweep.append([*size, *grid, counts["flat"], counts["spatial_unpad"]])
    return {"versions": VERSIONS, "cases": [image_case(*i) for i in images], "sweep": sweep}


def conversation_prompt(texts: list[str]) -> str:
    """The llava_v1 prompt of user and assistant texts in turn; the answer to the last is open."""
    conversation = conv_templates["llava_v1"].copy()
    for i, text in enumerate(texts):
        conversation.append_message(
            conversation.roles[i % 2], "<image>\n" + text if i == 0 else text
        )
    conversation.append_message(conversation.roles[1], None)
    return str(conversation.get_prompt())


def prompt_goldens(folder: Path) -> dict[str, Any]:
    tokenizers = {}
    for legacy in (False, True):
        path = tiny.make_checkpoint(folder / f"legacy_{legacy}", legacy=legacy)
        tokenizers[f"legacy_{str(legacy).lower()}"] = AutoTokenizer.from_pretrained(
            path, use_fast=False
        )

    def case(prompt: str) -> dict[str, Any]:
        ids = {name: tokenizer_image_token(prompt, t) for name, t in tokenizers.items()}
        text = tokenizers["legacy_false"].decode([i for i in ids["legacy_false"] if i >= 0])
        return {"prompt": prompt, **ids, "decoded": text}

    return {
        "versions": VERSIONS,
        "prompts": [case(p) for p in PROMPTS],
        "conversations": [{"texts": t, **case(conversation_prompt(t))} for t in CONVERSATIONS],
    }


def load_upstream(path: Path) -> LlavaLlamaForCausalLM:
    """The authors' model on a checkpoint of `tiny`, float32, with the checkpoint's own tower."""
    tower = path / "tower"
    vision = CLIPVisionModel(
        CLIPVisionConfig(**json.loads((path / "vision_config.json").read_text()))
    )
    from safetensors.torch import load_file

    tensors = load_file(path / "model.safetensors")
    prefix = "model.vision_tower.vision_tower."
    vision.load_state_dict(
        {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}, strict=False
    )
    vision.save_pretrained(tower)
    processor(vision.config.image_size).save_pretrained(tower)
    config = json.loads((path / "config.json").read_text())
    tiny.write_json(path / "config.json", config | {"mm_vision_tower": str(tower)})
    model = LlavaLlamaForCausalLM.from_pretrained(path, torch_dtype=torch.float32)
    if not model.get_vision_tower().is_loaded:
        model.get_vision_tower().load_model()
    for name, parameter in model.named_parameters():
        if name in tensors:
            assert torch.equal(parameter, tensors[name]), name
    return model.eval()


def digits(values: Any, count: int) -> Any:
    """Nested lists of floats, rounded to `count` significant digits."""
    if isinstance(values, list):
        return [digits(v, count) for v in values]
    return float(f"{values:.{count}g}")


@torch.inference_mode()  # type: ignore[untyped-decorator]
def model_case(case: ModelCase, folder: Path) -> dict[str, Any]:
    path = tiny.make_checkpoint(folder / case.name, **case.checkpoint)
    model = load_upstream(path)
    tokenizer = AutoTokenizer.from_pretrained(path, use_fast=False)
    image = page(*case.size, seed=3)
    pixels = process_images([image], model.get_vision_tower().image_processor, model.config)[0]
    ids = tokenizer_image_token(
        conversation_prompt([case.question]), tokenizer, return_tensors="pt"
    )[None]
    arguments = {
        "images": pixels[None],
        "image_sizes": [image.size],
    }  # as llava/eval/model_vqa.py does

    embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, **arguments)[
        4
    ][0]
    slot = ids[0].tolist().index(IMAGE_TOKEN_INDEX)
    features = embeds[slot : slot + embeds.shape[0] - ids.shape[1] + 1]
    logits = model(ids, **arguments).logits[0, -1]
    out = model.generate(
        ids,
        **arguments,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        use_cache=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    generated = out.sequences[0].tolist()
    assert generated[0] == tokenizer.bos_token_id
    top2 = [s[0].topk(2).values for s in out.scores]
    best = logits.topk(5)
    return {
        "name": case.name,
        "prompt_ids": ids[0].tolist(),
        "views": pixels.shape[0] if pixels.ndim == 4 else 1,
        "features": {
            "shape": list(features.shape),
            "first3": digits(features[:, :3].tolist(), 7),
            "norms": digits(features.norm(dim=1).tolist(), 7),
        },
        "prefill_tokens": embeds.shape[0],
        "logits": digits(logits.tolist(), 7),
        "top5": {"ids": best.indices.tolist(), "values": digits(best.values.tolist(), 8)},
        "tokens": generated[1:],
        "margins": digits([float(t[0] - t[1]) for t in top2], 4),
        "text": tokenizer.decode(generated, skip_special_tokens=True).strip(),
    }


def main() -> None:
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    torch.manual_seed(0)
    (out / "tokenizer.model").write_bytes(tiny.tokenizer_model())
    with tempfile.TemporaryDirectory() as folder:
        goldens = {
            "images": image_goldens(),
            "prompts": prompt_goldens(Path(folder)),
            "models": {
                "versions": VERSIONS,
                "cases": [model_case(c, Path(folder)) for c in MODEL_CASES],
            },
        }
    for name, golden in goldens.items():
        (out / f"{name}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
        print(f"{name}.json: {(out / name).with_suffix('.json').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
