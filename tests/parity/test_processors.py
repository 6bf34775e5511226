"""Pages as pixels, and chat templates as prompts, against transformers' own.

These need `transformers`, of a version that has processors without torchvision, and are skipped
without it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.page.views import preprocess
from pulse_edge.text.template import PromptBuilder
from pulse_export.chat_template import stored_templates
from pulse_export.checkpoint import Checkpoint

from goldens import cases
from support import tiny
from support.fixture_types import Checkpoints

transformers = pytest.importorskip("transformers")
processors = pytest.importorskip("transformers.models.auto.image_processing_auto")

pytestmark = pytest.mark.parity

FLAT, NESTED = "preprocessor_config.json", "processor_config.json"
SQUASH = {"height": 56, "width": 56}
LLAVA = {"image_processor_type": "LlavaImageProcessor"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "as published": ("hf_llava", {}),
    "other statistics": ("hf_llava", {"image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 1]}),
    "sizes as numbers": ("hf_llava", {"size": 56, "crop_size": 56}),
    "padded": ("hf_llava", LLAVA | {"do_pad": True}),
    "padded, other mean": ("hf_llava", LLAVA | {"do_pad": True, "image_mean": [0.5, 0.25, 0.75]}),
    "padded, squash": ("hf_llava", LLAVA | {"do_pad": True, "size": SQUASH}),
    "padded, no crop": ("hf_llava", LLAVA | {"do_pad": True, "do_center_crop": False}),
    "not padded": ("hf_llava", LLAVA | {"do_pad": False}),
    "following": ("hf_next", {}),
    "following, squash": ("hf_next", {"size": SQUASH}),
    "following, no crop": ("hf_next", {"do_center_crop": False}),
    "following, other statistics": ("hf_next", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
    "following, batch not padded": ("hf_next", {"do_pad": False}),
}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("size", [(150, 110), (300, 70)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", VARIANTS)
def test_pixels(
    checkpoints: Checkpoints, tmp_path: Path, name: str, size: tuple[int, int], nested: bool
) -> None:
    layout, fields = VARIANTS[name]
    path = Path(shutil.copytree(checkpoints(layout=layout), tmp_path / "copy"))
    stored = json.loads((path / FLAT).read_text()) | fields
    if nested:  # the other file is a decoy
        tiny.write_json(path / FLAT, stored | {"image_mean": [0.1] * 3})
        tiny.write_json(path / NESTED, {"image_processor": stored})
    else:
        tiny.write_json(path / FLAT, stored)
    processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    page = cases.page(*size, seed=3)
    expected = np.asarray(processor(page, return_tensors="np")["pixel_values"], np.float32)
    pixels = preprocess(page, Checkpoint(path).spec)
    np.testing.assert_allclose(pixels, expected.reshape(pixels.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize(
    "roles", ["message['role'].upper() + ': '", "message['role']|upper + ': '"]
)
def test_prompts(checkpoint: Path, tmp_path: Path, where: str, roles: str) -> None:
    """A template that is taken for Vicuna's is rendered by transformers as the prompt sent here."""
    path = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ message['content'] + ' ' }}{% else %}{{ " + roles + " }}{{ '<image>\\n' }}"
        "{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    if where.endswith("jinja"):
        (path / where).write_text(template)
    else:
        stored = json.loads((path / where).read_text())
        tiny.write_json(path / where, stored | {"chat_template": template})
    assert [found.text for found in stored_templates(path)] == [template]
    spec = Checkpoint(path).spec
    messages = [
        {"role": "system", "content": spec.prompt.system},
        {"role": "user", "content": "What rhythm is it?"},
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ours = PromptBuilder.of(spec, path / "tokenizer.model").text("What rhythm is it?")
    assert text == ours


@pytest.mark.parametrize(
    ("layout", "name"), [("hf_next", "LlavaNext"), ("hf_llava", "Llava")], ids=["next", "llava"]
)
def test_what_transformers_saves_is_the_same_model(
    checkpoints: Checkpoints, tmp_path: Path, layout: str, name: str
) -> None:
    """Model, tokenizer and processor, written again by the installed transformers."""
    source = checkpoints(layout=layout)
    model = getattr(transformers, f"{name}ForConditionalGeneration").from_pretrained(source)
    model.save_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    images = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    processor = getattr(transformers, f"{name}Processor")(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(tmp_path / "saved")
    shutil.copy(source / "tokenizer.model", tmp_path / "saved")
    assert (tmp_path / "saved" / NESTED).exists()
    saved = Checkpoint(tmp_path / "saved")
    before = Checkpoint(source)
    assert saved.spec.image == before.spec.image
    assert (saved.spec.text, saved.spec.vision) == (before.spec.text, before.spec.vision)
    np.testing.assert_array_equal(saved.tensor("norm.weight"), before.tensor("norm.weight"))
