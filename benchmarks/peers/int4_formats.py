"""Four bits of ONNX Runtime GenAI and of OpenVINO (NNCF): there and back, in this process.

GenAI's model builder rounds with ONNX Runtime's own kernel, symmetric, in blocks of 32. NNCF is
what optimum-intel exports with: asymmetric or symmetric codes in groups of 128 or less. Both are
taken as they are without calibration data, which is their default.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.privacy import silence

Floats = NDArray[np.float32]
SCALE_BYTES = 2  # both store scales in float16
NNCF_INSTALL = "pip install nncf"


@dataclass(frozen=True)
class IntegerFormat:
    """Codes of four bits that share a scale by groups along a row.

    Attributes:
        tool: "genai" or "nncf".
        group: weights that share a scale.
        symmetric: without a zero point.
    """

    tool: str
    group: int
    symmetric: bool = True

    def problem(self, columns: int) -> str:
        """Why rows of this many weights cannot be had in this format; "" if they can."""
        if self.tool == "nncf" and find_spec("nncf") is None:
            return f"needs {NNCF_INSTALL}"
        if columns % self.group:
            return f"rows of {columns}, not multiples of {self.group}"
        return ""

    def size(self, weight: Floats) -> int:
        """Bytes of a matrix with its scales and zero points."""
        groups = weight.size // self.group
        return weight.size // 2 + groups * SCALE_BYTES + (0 if self.symmetric else groups // 2)

    def there_and_back(self, weight: Floats) -> Floats:
        """A matrix [rows, columns] through the format and back."""
        if self.tool == "genai":
            return _onnxruntime(weight, self.group)
        return _nncf(weight, self.group, self.symmetric)


INTEGER_ROWS = {
    "genai-32": IntegerFormat("genai", 32),
    "nncf-sym-64": IntegerFormat("nncf", 64),
    "nncf-asym-64": IntegerFormat("nncf", 64, symmetric=False),
    "nncf-sym-128": IntegerFormat("nncf", 128),
    "nncf-asym-128": IntegerFormat("nncf", 128, symmetric=False),
}


def _onnxruntime(weight: Floats, block: int) -> Floats:
    """As `MatMulNBitsQuantizer` calls it: the kernel takes the matrix transposed."""
    from onnxruntime.capi import _pybind_state

    rows, columns = weight.shape
    blocks = columns // block
    packed = np.zeros((rows, blocks, block // 2), np.uint8)
    scales = np.zeros((rows, blocks), np.float32)
    zeros = np.zeros((rows, (blocks + 1) // 2), np.uint8)
    turned = np.ascontiguousarray(weight.T)
    quantize: Any = _pybind_state.quantize_matmul_4bits
    quantize(packed, turned, scales, zeros, block, rows, columns, True)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, blocks, block)
    halves = scales.astype(np.float16).astype(np.float32)
    back: Floats = (codes.astype(np.float32) - 8) * halves[..., None]
    return back.reshape(rows, columns)


def _nncf(weight: Floats, group: int, symmetric: bool) -> Floats:
    silence("openvino")  # NNCF reports by OpenVINO's package
    from nncf.parameters import CompressWeightsMode
    from nncf.quantization.algorithms.weight_compression import config, weight_lowering
    from nncf.tensor import Tensor

    mode = CompressWeightsMode.INT4_SYM if symmetric else CompressWeightsMode.INT4_ASYM
    done = weight_lowering.do_integer_quantization(
        Tensor(weight), config.WeightCompressionConfig(mode, group), reduction_axes=(1,)
    )
    codes = done.tensor.data.astype(np.float32)
    scales = done.scale.data.astype(np.float16).astype(np.float32)
    shift = 0 if done.zero_point is None else done.zero_point.data.astype(np.float32)
    back: Floats = ((codes - shift) * scales).astype(np.float32)
    return back.reshape(weight.shape)
