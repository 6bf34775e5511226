"""Adapters that are not merged into their model: how a user merges them."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path

LLAVA_PART = "non_lora_trainables.bin"  # what LLaVA's training with LoRA writes besides
ADAPTER_CONFIG = "adapter_config.json"
LONGEST_NAME = 200  # characters of a base model's name that are shown
LARGEST_CONFIG = 1 << 20  # bytes
CLONE = "a clone of github.com/haotian-liu/LLaVA"


def merge_advice(path: Path) -> str:
    """What to do about an adapter: the command that merges it.

    Args:
        path: the checkpoint's directory.

    Returns:
        The end of a message, on one line. `BASE` stands for a base model that nothing names.
    """
    merged = f"{path}-merged"
    base = _base_model(path)
    if (path / LLAVA_PART).exists():
        command = shlex.join(
            [
                *("python", "scripts/merge_lora_weights.py", "--model-path", str(path)),
                *("--model-base", base, "--save-model-path", merged),
            ]
        )
        where = f"in {CLONE}, with 'llava' and 'lora' in the folder's name"
    else:
        code = (
            "from peft import PeftModel; "
            "from transformers import AutoModelForImageTextToText as A; "
            f"PeftModel.from_pretrained(A.from_pretrained({base!r}), {str(path)!r})"
            f".merge_and_unload().save_pretrained({merged!r})"
        )
        command = shlex.join(["python", "-c", code])
        where = "where peft is installed"
    return f"merge it into its base model and export {merged}; {where}, run: {command}"


def _base_model(path: Path) -> str:
    """The base model that the adapter names, if it is a plain text."""
    file = path / ADAPTER_CONFIG
    with suppress(OSError, ValueError, RecursionError):
        if file.is_file() and file.stat().st_size <= LARGEST_CONFIG:
            stored = json.loads(file.read_bytes())
            base = stored.get("base_model_name_or_path") if isinstance(stored, dict) else None
            if isinstance(base, str) and base.isprintable() and 0 < len(base) <= LONGEST_NAME:
                return base
    return "BASE"
