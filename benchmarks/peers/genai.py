"""ONNX Runtime GenAI, with the model that its own builder makes. Variants: int4 with blocks of 32
(its default), or `int4:128`. accuracy_level 4 (int8 activations) in both, as in its models for CPUs
on Hugging Face; of a prompt only the last row goes through the head.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from benchmarks.peers import checkpoint as source
from benchmarks.peers.protocol import BATCH, serve


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    precision, _, block = variant.partition(":")
    llama = out.with_name(out.name + "-llama")
    shutil.rmtree(llama, ignore_errors=True)
    source.write_llama(checkpoint, llama)
    builder = [
        sys.executable,
        "-m",
        "onnxruntime_genai.models.builder",
        "-i",
        llama,
        "-o",
        out,
        "-p",
        precision,
    ]
    extra = [f"int4_block_size={block or 32}", "int4_accuracy_level=4", "prune_lm_head=true"]
    command = [*builder, "-e", "cpu", "-c", llama / "cache", "--extra_options", *extra]
    subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, check=True)
    shutil.rmtree(llama)


class GenAi:
    def __init__(self, path: Path, threads: int, context: int) -> None:
        settings = json.loads((path / "genai_config.json").read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
        (path / "genai_config.json").write_text(json.dumps(settings, indent=2))
        self._model = genai.Model(str(path))
        self._context = context
        self._generator = self._new()
        self.engine = {
            "engine": "onnxruntime-genai",
            "engine_version": version("onnxruntime-genai"),
            "batch": BATCH,
            "cache": "float",
        }

    def _new(self) -> Any:
        options = genai.GeneratorParams(self._model)
        options.set_search_options(
            max_length=self._context, min_length=self._context, do_sample=False
        )
        return genai.Generator(self._model, options)

    def feed(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), BATCH):
            self._generator.append_tokens(np.array([tokens[at : at + BATCH]], np.int32))

    def rewind(self, length: int) -> None:
        self._generator.rewind_to(length)


def load(path: Path, variant: str, threads: int, context: int) -> GenAi:
    return GenAi(path, threads, context)


if __name__ == "__main__":
    serve(convert, load)
