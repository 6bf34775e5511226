"""Adapters that are not merged: the message holds a command that merges them."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

import safetensors.numpy as st

from support.damage import refused

BASE = "liuhaotian/llava-v1.6-vicuna-7b"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "llava-lora"))


def command(message: str) -> list[str]:
    """What a user pastes."""
    return shlex.split(message.partition(" run: ")[2])


def write_adapter(path: Path, base: object = BASE) -> None:
    stored = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": base}
    (path / "adapter_config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize("name", ["plain", "with space", "it's", 'a "b"', "a;b$c", "-x"])
def test_peft_s_command_runs_as_it_stands(checkpoint: Path, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / name))
    write_adapter(path)
    message = refused(path)
    assert "adapter_config.json says that this is an adapter (LoRA)" in message
    program, option, code = command(message)
    assert (program, option) == ("python", "-c")
    calls: list[object] = []

    class Model:
        @classmethod
        def from_pretrained(cls, *arguments: object) -> Model:
            calls.append(arguments)
            return cls()

        def merge_and_unload(self) -> Model:
            return self

        def save_pretrained(self, folder: str) -> None:
            calls.append(folder)

    imports, _, rest = code.rpartition("; ")
    assert imports == (
        "from peft import PeftModel; from transformers import AutoModelForImageTextToText as A"
    )
    exec(rest, {"PeftModel": Model, "A": Model})
    assert calls[0] == (BASE,)
    assert isinstance(calls[1], tuple)
    assert calls[1][1] == str(path)
    assert calls[2] == f"{path}-merged"
    assert f"export {path}-merged" in message


@pytest.mark.parametrize("config", [True, False])
def test_llava_s_own_training_is_merged_by_its_script(copy: Path, config: bool) -> None:
    (copy / "non_lora_trainables.bin").write_bytes(b"x")
    if config:
        write_adapter(copy)
    message = refused(copy)
    assert "LLaVA's LoRA training" in message
    assert "in a clone of github.com/haotian-liu/LLaVA" in message
    assert command(message) == [
        *("python", "scripts/merge_lora_weights.py", "--model-path", str(copy)),
        *("--model-base", BASE if config else "BASE", "--save-model-path", f"{copy}-merged"),
    ]


@pytest.mark.parametrize("base", [None, 7, "", "a\nb", "x" * 300, ["a"]])
def test_a_base_that_is_no_name_is_left_to_the_user(copy: Path, base: object) -> None:
    write_adapter(copy, base)
    assert "A.from_pretrained('BASE')" in command(refused(copy))[2]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_adapter_is_still_called_one(copy: Path, content: bytes) -> None:
    (copy / "adapter_config.json").write_bytes(content)
    assert "is an adapter (LoRA)" in refused(copy)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight",
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "model.layers.0.self_attn.q_proj.lora_embedding_A",
        "model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "model.layers.0.mlp.down_proj.base_layer.weight",
        "model.mm_projector.modules_to_save.0.weight",
    ],
)
def test_an_adapter_s_tensors_among_the_weights(copy: Path, name: str) -> None:
    tensors = st.load_file(copy / "model.safetensors")
    tensors[name] = np.zeros((8, 64), np.float32)
    st.save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    message = refused(copy)
    assert f"{name} is an adapter's" in message
    assert "merge_and_unload" in command(message)[2]
