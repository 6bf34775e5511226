"""llama.cpp's formats for weights: there and back, in this process.

`pip install gguf` brings numpy versions of Q4_0, Q4_1, Q5_0 and Q8_0, which are llama.cpp's without
importances. It cannot quantize K-quants, nor with importances (an imatrix). ggml's own library can:
`ggml_quantize_chunk` of libggml-base, which llama.cpp and whisper.cpp ship.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SUPER = 256  # inputs of a K-quant's super-block; rows must be multiples of it
INSTALL = "pip install gguf"


@dataclass(frozen=True)
class GgmlRow:
    """How llama-quantize stores a decoder's matrices.

    Attributes:
        base: the format of most matrices, as gguf names it.
        more: the format of those that get more bits (`wants_more`).
        importances: whether squared inputs weigh the errors.
    """

    base: str
    more: str
    importances: bool = False

    @property
    def library(self) -> bool:
        """Whether it takes ggml's library, because the gguf package cannot do it."""
        return self.importances or self.base.endswith("_K")


GGML_ROWS = {
    "q4_0": GgmlRow("Q4_0", "Q4_0"),
    "q4_1": GgmlRow("Q4_1", "Q4_1"),
    "q4_0-imatrix": GgmlRow("Q4_0", "Q4_0", importances=True),
    "q4_k_m": GgmlRow("Q4_K", "Q6_K"),
    "q4_k_m-imatrix": GgmlRow("Q4_K", "Q6_K", importances=True),
}


def wants_more(name: str, layers: int) -> bool:
    """Whether Q4_K_M gives this matrix more bits: v and down of some layers.

    Source: `use_more_bits` and `llama_tensor_get_type` in llama.cpp's llama-quant.cpp.
    """
    i = int(name.split(".")[1])
    some = i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
    return some and name.endswith(("v_proj", "down_proj"))


def format_of(row: GgmlRow, name: str, layers: int, columns: int) -> str | None:
    """The format of a matrix; None if its rows do not fit the format."""
    chosen = row.more if wants_more(name, layers) else row.base
    unit = SUPER if chosen.endswith("_K") else 32
    return chosen if columns % unit == 0 else None


class GgmlLibrary:
    """ggml's own quantizers.

    Args:
        path: of libggml-base.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._quantize = self._library.ggml_quantize_chunk
        self._quantize.restype = ctypes.c_size_t
        integers = [ctypes.c_int64] * 3
        self._quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *integers]
        self._quantize.argtypes += [ctypes.c_void_p]

    def quantize(self, weight: Floats, kind: int, size: int, importances: Floats | None) -> bytes:
        """The stored bytes of a matrix [rows, columns], `size` of them."""
        source = np.ascontiguousarray(weight)
        out = ctypes.create_string_buffer(size)
        weights = None if importances is None else np.ascontiguousarray(importances, np.float32)
        at = None if weights is None else weights.ctypes.data
        written = self._quantize(kind, source.ctypes.data, out, 0, *source.shape, at)
        if written != size:
            raise ValueError(f"ggml wrote {written} bytes, expected {size}")
        return out.raw


def there_and_back(
    weight: Floats, kind: str, library: GgmlLibrary | None, importances: Floats | None
) -> tuple[Floats, int]:
    """A matrix through a format and back, and its bytes there.

    Args:
        weight: [rows, columns].
        kind: the format, as gguf names it.
        library: None uses the gguf package.
        importances: mean squared inputs [columns]; with the library alone.
    """
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    if library is None:
        stored = gguf.quants.quantize(weight, number)
    else:
        block, width = gguf.GGML_QUANT_SIZES[number]
        size = weight.size // block * width
        raw = library.quantize(weight, int(number), size, importances)
        stored = np.frombuffer(raw, np.uint8).reshape(len(weight), -1)
    back = np.asarray(gguf.quants.dequantize(stored, number), np.float32).reshape(weight.shape)
    return back, stored.nbytes
