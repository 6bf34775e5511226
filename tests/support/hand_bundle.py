"""A bundle written by hand, a few bytes a file: a test of one rule needs no export.

Its graphs are empty, which is a legal graph without tensors. Nothing can run it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pulse_edge.bundle.manifest import (
    MANIFEST,
    NOTICE,
    CheckpointInfo,
    FileEntry,
    Manifest,
    PrecisionInfo,
)
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.bundle.spec import ImageSpec, ModelSpec, PromptSpec, TextSpec, VisionSpec

SIDE = 56  # pixels of a view
SPEC = ModelSpec(
    vision=VisionSpec(
        image_size=SIDE,
        patch_size=14,
        width=32,
        heads=4,
        layers=3,
        feature_layers=2,
        mlp=64,
        activation="quick_gelu",
        eps=1e-5,
    ),
    projector_depth=2,
    text=TextSpec(
        hidden=4,
        layers=2,
        heads=4,
        kv_heads=2,
        head_size=8,
        ffn=64,
        vocab=6,
        eps=1e-5,
        rope_theta=1e4,
        context=128,
        bos=1,
        eos=(2,),
    ),
    image=ImageSpec(
        aspect="anyres",
        grids=((2 * SIDE, SIDE), (SIDE, 2 * SIDE)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        merge="flat",
    ),
    prompt=PromptSpec("v1", "System.", "USER", "ASSISTANT", legacy=False),
)
PRECISION = PrecisionInfo(
    name="int4",
    decoder="int4",
    head="int8",
    vision="fp16",
    embeddings="fp16",
    kv_cache="fp16",
    io="fp32",
    activations="fp32",
    block_size=32,
    recipe="nearest",
)
CHECKPOINT = CheckpointInfo("by-hand", "LlavaLlamaForCausalLM", "float16", 1_234_567, "c" * 64)
CONTENTS = {
    "decoder.onnx": b"",
    "decoder.onnx.data": bytes(range(64)),
    "embeddings.bin": bytes(range(48)),  # 6 rows of 4 numbers in float16
    "tokenizer.model": b"tokens",
    "vision.onnx": b"",
    "vision.onnx.data": b"weights",
}


def manifest_of(contents: Mapping[str, bytes], **fields: Any) -> Manifest:
    """A sealed manifest that lists files.

    Args:
        contents: bytes by name.
        fields: of the manifest, in place of those above.
    """
    files = tuple(
        FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    whole = Manifest(1, NOTICE, SPEC, PRECISION, "cpu", CHECKPOINT, {"pulse-edge": "0"}, files)
    return replace(whole, **fields).sealed()


def write_bundle(path: Path, contents: Mapping[str, bytes] | None = None, **fields: Any) -> Path:
    """Write a bundle.

    Args:
        path: its directory, which is made.
        contents: bytes by name, in place of `CONTENTS` or beside them.
        fields: of the manifest.
    """
    path.mkdir()
    files = CONTENTS | dict(contents or {})
    for name, content in files.items():
        (path / name).write_bytes(content)
    (path / MANIFEST).write_bytes(dumps(manifest_of(files, **fields)))
    return path
