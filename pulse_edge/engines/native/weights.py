"""The decoder's weights in a GPU's memory, once, for our kernels and for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.bundle.tensors import TensorEntry, has_tensors, open_tensors, read_index
from pulse_edge.engines.native import steps
from pulse_edge.engines.native.steps import (
    Address,
    Gain,
    Layer,
    Matrix,
    StepDevice,
    Weights,
    scaled_gain,
)

ALIGNMENT = 256  # of a tensor on the device, in bytes
HEAD = "lm_head"


def why_not(bundle: Bundle) -> str | None:
    """Why the kernels cannot run a bundle's decoder; None if they can."""
    manifest = bundle.manifest
    if manifest.target != "cuda":
        return f"the bundle was exported for {manifest.target}, and the kernels take --target cuda"
    if manifest.precision.kv_cache != "fp16":
        return f"the KV cache is {manifest.precision.kv_cache}, and the kernels have fp16"
    if not has_tensors(bundle):
        return "the bundle was exported by an older pulse-edge; export the checkpoint again"
    return steps.refusal(manifest.model.text, matrices(bundle))


def matrices(bundle: Bundle, addresses: Mapping[str, Address] | None = None) -> dict[str, Matrix]:
    """A decoder's matrices by name.

    Args:
        bundle: for CUDA, with an index of its tensors.
        addresses: of its tensors on a device; None for nowhere.
    """
    entries = read_index(bundle)
    at = addresses or dict.fromkeys(entries, 0)
    block = bundle.manifest.precision.block_size
    inputs = _inputs(bundle.manifest.model.text)
    return {name: _matrix(name, k, block, entries, at) for name, k in inputs.items()}


def _inputs(text: TextSpec) -> dict[str, int]:
    """How many inputs each matrix has, by name."""
    layer = {
        "qkv": text.hidden,
        "self_attn.o_proj": text.heads * text.head_size,
        "mlp.gate_proj": text.hidden,
        "mlp.up_proj": text.hidden,
        "mlp.down_proj": text.ffn,
    }
    names = {f"layers.{i}.{name}": k for i in range(text.layers) for name, k in layer.items()}
    return {**names, HEAD: text.hidden}


def _matrix(
    name: str,
    k: int,
    block: int,
    entries: Mapping[str, TensorEntry],
    addresses: Mapping[str, Address],
) -> Matrix:
    if weight := entries.get(f"{name}.weight"):
        n = weight.shape[1]
        return Matrix(codes=addresses[weight.name], scales=0, n=n, k=k, bits=16, block=0)
    codes = entries[f"{name}.codes"]
    return Matrix(
        codes=addresses[codes.name],
        scales=addresses[f"{name}.scales"],
        n=codes.shape[0],
        k=k,
        bits=8 * codes.shape[2] // block,
        block=block,
    )


class SharedWeights:
    """The decoder's weights on a device: matrices and the tables of RoPE.

    Attributes:
        addresses: of the tensors, by name.
    """

    def __init__(self, bundle: Bundle, device: StepDevice) -> None:
        self._bundle = bundle
        self._device = device
        self._bindings: list[Any] = []
        with open_tensors(bundle) as file:
            self._entries = file.entries
            # Vectors are the norms' gains: `placed` makes scaled copies, and ONNX Runtime has its
            # own.
            vectors = [name for name, entry in file.entries.items() if len(entry.shape) == 1]
            self._gains = {name: np.array(file[name]) for name in vectors}
            self.addresses = self._placed_names(device)
            for name, address in self.addresses.items():
                device.write(address, file[name])

    def _placed_names(self, device: StepDevice) -> dict[str, Address]:
        """Memory for all but the vectors, by name."""
        offsets: dict[str, int] = {}
        size = 0
        for name, entry in self._entries.items():
            if name not in self._gains:
                offsets[name] = size
                size += -(-entry.size // ALIGNMENT) * ALIGNMENT
        # One block: CUDA rounds each allocation up to 2 MB.
        start = device.allocate(size)
        return {name: start + offset for name, offset in offsets.items()}

    def values(self, session: Any, device: str) -> dict[str, Any]:
        """ONNX Runtime's view of the tensors, without a copy.

        `SessionOptions.add_initializer` refuses values that own their memory, as those made from
        arrays do on a GPU. A binding's output at an address does not own it.

        Args:
            session: any, whose outputs are bound for this; it is not run.
            device: ONNX Runtime's name for the memory.

        Returns:
            OrtValues by name. They are valid as long as this object and its device.
        """
        output = session.get_outputs()[0].name
        values = {}
        for name, address in self.addresses.items():
            entry = self._entries[name]
            dtype = np.dtype(entry.dtype).type
            # One for each tensor: in older versions a value is a view of its binding's content.
            binding = session.io_binding()
            binding.bind_output(output, device, 0, dtype, list(entry.shape), address)
            values[name] = binding.get_outputs()[0]
            self._bindings.append(binding)
        return values

    def placed(self, table: Address) -> Weights:
        """What the steps read. `table`: of embeddings and features."""
        tables = self.addresses["rope.cos"], self.addresses["rope.sin"]
        by_name = matrices(self._bundle, self.addresses)
        return arranged(self._bundle.manifest.model.text, by_name, self._gain, table, tables)

    def _gain(self, name: str) -> Gain:
        gain, factor = scaled_gain(self._gains[name])
        address = self._device.allocate(gain.nbytes)
        self._device.write(address, gain)
        return Gain(address, factor)


def arranged(
    text: TextSpec,
    by_name: Mapping[str, Matrix],
    gain: Callable[[str], Gain],
    table: Address,
    rope: tuple[Address, Address],
) -> Weights:
    """A decoder's weights in the order of its steps.

    Args:
        text: its geometry.
        by_name: its matrices by name.
        gain: gives a norm's gains by name.
        table: of embeddings and features.
        rope: tables of cosines and sines.
    """

    def layer(name: str) -> Layer:
        return Layer(
            input_gain=gain(f"{name}.input_layernorm.weight"),
            qkv=by_name[f"{name}.qkv"],
            output=by_name[f"{name}.self_attn.o_proj"],
            post_gain=gain(f"{name}.post_attention_layernorm.weight"),
            gate=by_name[f"{name}.mlp.gate_proj"],
            up=by_name[f"{name}.mlp.up_proj"],
            down=by_name[f"{name}.mlp.down_proj"],
        )

    return Weights(
        table=table,
        cosines=rope[0],
        sines=rope[1],
        layers=tuple(layer(f"layers.{i}") for i in range(text.layers)),
        gain=gain("norm.weight"),
        head=by_name[HEAD],
    )
