"""OpenVINO: converted and compressed as optimum-intel does it, run with openvino itself. Variants:
int4, int8.

int4: symmetric, groups of 128, embeddings and head in 8 bits (its default); int8: per channel. The
cache is its default on CPUs, 8 bits. Of a prompt only the last row goes through the head, as in
OpenVINO GenAI, whose pass over the graph does the same as `_last_row`: a slice before the head. The
tower: 8-bit weights in both.
"""

from __future__ import annotations

import gc
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from benchmarks.peers import checkpoint as source
from benchmarks.peers.protocol import BATCH, serve

WEIGHTS: dict[str, dict[str, Any]] = {
    "int4": {"bits": 4, "sym": True, "group_size": 128},
    "int8": {"bits": 8},
}


def convert(checkpoint: Path, out: Path, variant: str) -> None:
    import nncf
    import torch
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    from benchmarks.peers import tower

    llama = out.with_name(out.name + "-llama")
    shutil.rmtree(llama, ignore_errors=True)
    source.write_llama(checkpoint, llama, tokenizer=False)
    config = OVWeightQuantizationConfig(**WEIGHTS[variant])
    model = OVModelForCausalLM.from_pretrained(
        llama, export=True, compile=False, quantization_config=config
    )
    model.save_pretrained(out)
    shutil.rmtree(llama)
    del model
    gc.collect()
    module, side = tower.Tower(checkpoint), tower.sizes(checkpoint)["image_size"]
    with torch.no_grad():
        vision = ov.convert_model(
            module, example_input=tower.pixels(side, 2), input=[-1, 3, side, side]
        )
    ov.save_model(nncf.compress_weights(vision), out / "vision.xml")


class OpenVino:
    def __init__(self, path: Path, threads: int) -> None:
        self._core = ov.Core()
        self._options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        model = self._core.read_model(path / "openvino_model.xml")
        _last_row(model)
        compiled = self._core.compile_model(model, "CPU", self._options)
        self._inputs = {name for port in compiled.inputs for name in port.names}
        self._request = compiled.create_infer_request()
        self._vision_path = path / "vision.xml"
        self._vision: Any = None
        self._length = 0
        self.engine = {
            "engine": "openvino",
            "engine_version": version("openvino"),
            "optimum-intel": version("optimum-intel"),
            "cache": str(compiled.get_property("KV_CACHE_PRECISION")),
            "batch": BATCH,
            "execution": str(compiled.get_property("INFERENCE_PRECISION_HINT")),
        }

    def feed(self, tokens: list[int]) -> None:
        for at in range(0, len(tokens), BATCH):
            part = tokens[at : at + BATCH]
            end = self._length + len(part)
            given = {
                "input_ids": np.array([part], np.int64),
                "attention_mask": np.ones((1, end), np.int64),
                "position_ids": np.arange(self._length, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            self._request.infer(
                {name: value for name, value in given.items() if name in self._inputs}
            )
            self._length = end
        assert self._request.get_output_tensor(0).data.size

    def rewind(self, length: int) -> None:
        if length == 0:
            self._request.reset_state()
        elif length != self._length:
            for state in self._request.query_state():  # [1, heads, length, head size]
                state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :length]))
        self._length = length

    def see(self, views: int) -> None:
        if self._vision is None:
            model = self._core.compile_model(self._vision_path, "CPU", self._options)
            side = model.inputs[0].partial_shape[3].get_length()
            pixels = np.random.default_rng(0).standard_normal((views, 3, side, side), np.float32)
            self._vision = model.create_infer_request(), pixels
        request, pixels = self._vision
        request.infer([pixels])


def _last_row(model: Any) -> None:
    """Slice what the head multiplies, [1, rows, hidden], to its last row."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    numbers = (opset.constant(np.array([n], np.int64)) for n in (-1, 2**31 - 1, 1, 1))
    start, stop, step, axis = numbers
    node.input(0).replace_source_output(
        opset.slice(node.input_value(0), start, stop, step, axis).output(0)
    )
    model.validate_nodes_and_infer_types()


def load(path: Path, variant: str, threads: int, context: int) -> OpenVino:
    return OpenVino(path, threads)


if __name__ == "__main__":
    serve(convert, load)
