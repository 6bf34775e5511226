"""What NVRTC makes of the kernels: registers, spills and instructions. Needs neither a GPU nor a
driver, but NVIDIA's wheels."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.engines.native.cubins import SHARED_KIB
from pulse_edge.engines.native.kernels import (
    CHOOSE,
    EMBED,
    Epilogue,
    Kernel,
    Product,
    attention_kernel,
    fitting,
    product_kernel,
    quantize_kernel,
    tuning_of,
)

from support import sass

pytestmark = pytest.mark.skipif(not sass.nvrtc(), reason=f"needs {sass.WHEELS}")
needs_nvdisasm = pytest.mark.skipif(not sass.nvdisasm(), reason=f"needs {sass.WHEELS}")

REGISTERS = 1 << 16  # of a multiprocessor
HIDDEN, FFN, VOCAB = 4096, 11008, 32000
PRODUCTS = {  # of PULSE-7B: what follows, inputs, outputs
    "qkv": (Epilogue.STORE, HIDDEN, 3 * HIDDEN),
    "output": (Epilogue.RESIDUAL, HIDDEN, HIDDEN),
    "gate_up": (Epilogue.GATED, HIDDEN, FFN),
    "down": (Epilogue.RESIDUAL, FFN, HIDDEN),
    "head": (Epilogue.LOGITS, HIDDEN, VOCAB),
}


def product(
    name: str, several: bool, capability: int, bits: int = 4, block: int = 128
) -> tuple[Kernel, int]:
    """A product as it is shipped, and how many of its CTAs share a multiprocessor's registers."""
    epilogue, k, outputs = PRODUCTS[name]
    of = Product(k, bits, block, epilogue)
    room = SHARED_KIB[capability] << 10
    tuning = fitting(of, several, tuning_of(of, several), outputs, room)
    return product_kernel(of, several, tuning), tuning.resident


def shipped(capability: int) -> list[tuple[Kernel, int]]:
    """All kernels of PULSE-7B in int4."""
    room = SHARED_KIB[capability] << 10
    kernels = [product(name, rows, capability) for name in PRODUCTS for rows in (False, True)]
    for several in (False, True):
        kernels += [(attention_kernel(128, 1, several, bits, room), 1) for bits in (16, 8)]
    return [*kernels, (EMBED, 1), (CHOOSE, 1), (quantize_kernel(128), 1)]


def check(kernel: Kernel, resident: int, capability: int) -> None:
    code = sass.compiled(kernel, capability)
    assert code.cubin[:4] == b"\x7fELF"
    assert kernel.shared_bytes <= SHARED_KIB[capability] << 10
    assert code.stack == 0, (kernel.defines, code.registers)
    assert code.registers * kernel.threads * resident <= REGISTERS, kernel.defines


@pytest.mark.parametrize("capability", SHARED_KIB)
def test_kernels_fit_every_architecture(capability: int) -> None:
    """Without spills, in the registers of so many CTAs as are to share a multiprocessor."""
    for kernel, resident in shipped(capability):
        check(kernel, resident, capability)


@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize(("bits", "block"), [(4, 64), (8, 32), (8, 128), (16, 0)])
def test_other_storages_fit(capability: int, bits: int, block: int) -> None:
    for name in ("qkv", "gate_up", "down"):
        for several in (False, True):
            check(*product(name, several, capability, bits, block), capability)


@pytest.mark.parametrize(("head", "group"), [(32, 2), (64, 8)])
def test_other_heads_fit(head: int, group: int) -> None:
    for several in (False, True):
        for bits in (16, 8):
            check(attention_kernel(head, group, several, bits, 99 << 10), 1, 86)


# Instructions for a product of 16 x 16 weights, 8 a lane, in the loop over a group of 128 weights:
# what is loaded, masked and multiplied, the end of a block and the loop itself.
PER_PRODUCT = {"qkv": 10.5, "output": 9, "gate_up": 9, "down": 9, "head": 10.5}


@needs_nvdisasm
@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("name", PRODUCTS)
def test_instructions_of_a_row(tmp_path: Path, name: str, capability: int) -> None:
    """Weights come by asynchronous copies of 16 bytes, and go to tensor cores."""
    kernel, _ = product(name, False, capability)
    code = sass.compiled(kernel, capability).cubin
    listing = sass.listing(code, tmp_path, kernel.entry)
    wide = listing.count(r"LDGSTS\S*\.128")
    assert wide > 0
    barrier = next(i for i, line in enumerate(listing.instructions) if line.startswith("BAR"))
    assert listing.count(r"LDGSTS\S*\.128", 0, barrier) > 0
    assert listing.count("HMMA.16816.F32") == listing.count("HMMA") > 0
    assert listing.per_product() <= PER_PRODUCT[name]


@needs_nvdisasm
def test_instructions_before_asynchronous_copies(tmp_path: Path) -> None:
    """Turing has neither them nor products of 16 x 16."""
    kernel, _ = product("qkv", False, 75)
    listing = sass.listing(sass.compiled(kernel, 75).cubin, tmp_path, kernel.entry)
    assert listing.count("LDGSTS") == 0
    assert listing.count(r"LDG\.E\.128") > 0
    assert listing.count("HMMA.1688.F32") == listing.count("HMMA") > 0
    assert 2 * listing.per_product() <= 11


@needs_nvdisasm
@pytest.mark.parametrize("bits", [16, 8])
def test_instructions_of_the_attention(tmp_path: Path, bits: int) -> None:
    """Copies of 16 bytes; matrices of halves come by ldmatrix."""
    kernel = attention_kernel(128, 1, False, bits, 227 << 10)
    listing = sass.listing(sass.compiled(kernel, 90).cubin, tmp_path, kernel.entry)
    assert listing.count(r"LDGSTS\S*\.128") > 0
    assert listing.count("HMMA") > 0
    assert (listing.count("LDSM") > 0) == (bits == 16)


@needs_nvdisasm
def test_programmatic_launch(tmp_path: Path) -> None:
    """From Hopper on, and not before."""
    kernel, _ = product("qkv", False, 90)
    for capability, has in ((89, False), (90, True)):
        code = sass.compiled(kernel, capability).cubin
        listing = sass.listing(code, tmp_path, kernel.entry)
        assert (listing.count("ACQBULK") > 0) == has
