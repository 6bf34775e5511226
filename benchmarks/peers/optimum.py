"""Hugging Face Optimum's ONNX export, run with its own ORTModelForCausalLM. Variant: fp32.

What a user gets without further work: weights and cache in fp32, the cache copied at every step,
the head on every row of a prompt. The tower is traced by torch's exporter, as Optimum does.
"""

from __future__ import annotations

import gc
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from optimum.onnxruntime import ORTModelForCausalLM

from benchmarks.peers import checkpoint as source
from benchmarks.peers.protocol import BATCH, serve


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    from benchmarks.peers import tower

    llama = out.with_name(out.name + "-llama")
    shutil.rmtree(llama, ignore_errors=True)
    source.write_llama(checkpoint, llama, tokenizer=False)
    model = ORTModelForCausalLM.from_pretrained(llama, export=True, use_cache=True)
    model.save_pretrained(out)
    shutil.rmtree(llama)
    del model
    gc.collect()
    module, side = tower.Tower(checkpoint), tower.sizes(checkpoint)["image_size"]
    with torch.no_grad():
        torch.onnx.export(
            module,
            (tower.pixels(side, 2),),
            str(out / "vision.onnx"),
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "views"}},
            opset_version=18,
            dynamo=False,
        )


class Optimum:
    def __init__(self, path: Path, threads: int) -> None:
        self._settings = ort.SessionOptions()
        self._settings.intra_op_num_threads = threads
        torch.set_num_threads(threads)
        self._model = ORTModelForCausalLM.from_pretrained(
            path, session_options=self._settings, use_io_binding=True
        )
        self._past: Any = None
        self._length = 0
        self._vision_path = path / "vision.onnx"
        self._vision: Any = None
        self.engine = {
            "engine": "optimum",
            "engine_version": version("optimum-onnx"),
            "onnxruntime": ort.__version__,
            "batch": BATCH,
            "cache": "fp32",
        }

    def feed(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), BATCH):
            part = torch.tensor([tokens[at : at + BATCH]])
            self._length += part.shape[1]
            mask = torch.ones((1, self._length), dtype=torch.int64)
            done = self._model(
                input_ids=part, attention_mask=mask, past_key_values=self._past, use_cache=True
            )
            self._past = done.past_key_values

    def rewind(self, length: int) -> None:
        if length == 0:
            self._past = None
        elif length != self._length:
            self._past = tuple(
                tuple(part[:, :, :length].contiguous() for part in layer) for layer in self._past
            )
        self._length = length

    def see(self, views: int) -> None:
        if self._vision is None:
            session = ort.InferenceSession(
                str(self._vision_path), self._settings, providers=["CPUExecutionProvider"]
            )
            pixels = np.random.default_rng(0).standard_normal(
                (views, *session.get_inputs()[0].shape[1:]), np.float32
            )
            self._vision = session, {"pixels": pixels}
        session, given = self._vision
        session.run(None, given)


def load(path: Path, variant: str, threads: int, context: int) -> Optimum:
    return Optimum(path, threads)


if __name__ == "__main__":
    serve(convert, load)
