"""The table of devices: what a GPU is, and what it can do at its best.

`pulse-edge fit` predicts from the rates. `pulse-edge build` and `export` build for the compute
capability. They all know the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pulse_edge import system
from pulse_edge.errors import ParameterError
from pulse_edge.measure.peaks import measure_peaks

GB = 10**9
TERA = 10**12
THIS = "this"  # the name of the CPU that this runs on


@dataclass(frozen=True)
class Device:
    """A device as the roofline sees it.

    Attributes:
        name: what `--device` calls it.
        title: what people call it.
        kind: whose kernels run on it.
        memory: bytes.
        reserved: bytes of `memory` that the system or the driver keeps.
        read: bytes/s of its memory.
        gemm: dense FLOP/s by type, without sparsity.
        engine: which engine runs bundles on it.
    """

    name: str
    title: str
    kind: Literal["cpu", "gpu"]
    memory: float
    reserved: float
    read: float
    gemm: dict[str, float]
    engine: str = "onnxruntime"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: what `--device` calls it. A name without a size has one size only, or the usual one.
        title: what people call it.
        capability: CUDA compute capability, times ten. developer.nvidia.com/cuda-gpus.
        memory: GB.
        reserved: GB, see `Device`.
        read: GB/s.
        fp16: dense TFLOP/s.
        int8: dense TOP/s.
        engine: see `Device`.
    """

    name: str
    title: str
    capability: int
    memory: float
    reserved: float
    read: float
    fp16: float
    int8: float
    engine: str = "onnxruntime"

    @property
    def device(self) -> Device:
        """The row for the roofline, in bytes and FLOP."""
        return Device(
            name=self.name,
            title=self.title,
            kind="gpu",
            memory=self.memory * GB,
            reserved=self.reserved * GB,
            read=self.read * GB,
            gemm={"fp16": self.fp16 * TERA, "int8": self.int8 * TERA},
            engine=self.engine,
        )


# Memory, bandwidth and dense tensor-core rates. NVIDIA's headline figures for Ampere and later
# count 2:4 sparsity; they are halved here. Orin: SMs x clock x 4096 int8 operations (Jetson Orin
# datasheets: 4 and 8 SMs at 1.02 GHz on the Nanos in Super mode, 8 at 765 and 918 MHz on the NXs,
# 14 at 930 MHz and 16 at 1.3 GHz on the AGXs; without the DLAs), fp16 half of it. Thor: datasheets,
# 2,070 and 1,200 sparse FP4 TFLOPS, an eighth of it in fp16. GB10: 1,000, likewise. T4, L4, A10,
# A100, H100 SXM and B200: their product datasheets. GeForce: SMs x clock x 512 FLOP in fp16 with
# fp32 accumulation, as the kernels for transformers use it, and x 2,048 in int8 (Ada and Blackwell
# whitepapers: 28 SMs at 1.78 GHz, 24 at 2.46, 30 at 2.5). Reserved is an assumption: on a Jetson
# the system and the desktop share the memory, on a card the driver takes its context. ONNX
# Runtime's wheel has no code for a Jetson, so TensorRT runs there.
JETSON = "tensorrt"
TABLE = (
    # name, title, capability; GB: memory, reserved; GB/s; T/s: fp16, int8
    Row("orin-nano-4gb", "Jetson Orin Nano 4 GB (Super)", 87, 4, 1.5, 51, 8.4, 16.7, JETSON),
    Row("orin-nano-8gb", "Jetson Orin Nano 8 GB (Super, 25 W)", 87,
        8, 1.5, 102, 16.7, 33.4, JETSON),
    Row("orin-nx-8gb", "Jetson Orin NX 8 GB", 87, 8, 1.5, 102.4, 12.5, 25.1, JETSON),
    Row("orin-nx-16gb", "Jetson Orin NX 16 GB", 87, 16, 1.5, 102.4, 15.0, 30.1, JETSON),
    Row("agx-orin-32gb", "Jetson AGX Orin 32 GB", 87, 32, 1.5, 204.8, 26.7, 53.3, JETSON),
    Row("agx-orin-64gb", "Jetson AGX Orin 64 GB", 87, 64, 1.5, 204.8, 42.6, 85.2, JETSON),
    Row("jetson-t4000", "Jetson T4000 64 GB", 110, 64, 2, 273, 150, 300, JETSON),
    Row("agx-thor", "Jetson AGX Thor (T5000, 128 GB)", 110, 128, 2, 273, 259, 517, JETSON),
    Row("t4", "T4", 75, 16, 0.5, 320, 65, 130),
    Row("l4", "L4", 89, 24, 0.5, 300, 121, 242),
    Row("a10", "A10", 86, 24, 0.5, 600, 125, 250),
    Row("rtx-3060", "GeForce RTX 3060 12 GB", 86, 12, 0.5, 360, 25.5, 102),
    Row("rtx-4060", "GeForce RTX 4060", 89, 8, 0.5, 272, 30.2, 121),
    Row("rtx-5060", "GeForce RTX 5060", 120, 8, 0.5, 448, 38.4, 154),
    Row("a100-40gb", "A100 40 GB SXM", 80, 40, 0.5, 1555, 312, 624),
    Row("a100", "A100 80 GB SXM", 80, 80, 0.5, 2039, 312, 624),
    Row("h100", "H100 80 GB SXM", 90, 80, 0.5, 3350, 989, 1979),
    Row("b200", "B200", 100, 180, 0.5, 8000, 2250, 4500),
    Row("dgx-spark", "DGX Spark (GB10)", 121, 128, 4, 273, 125, 250),
)  # fmt: skip

# Names of earlier versions, still understood: the smallest board or card that they stand for, so
# that plans which are built for one run on all of them.
ALIASES = {
    "orin-nano": "orin-nano-4gb",
    "orin-nx": "orin-nx-8gb",
    "agx-orin": "agx-orin-32gb",
    "thor": "agx-thor",
    "rtx30": "rtx-3060",
    "rtx40": "rtx-4060",
    "rtx50": "rtx-5060",
}

# By the one set of names that `fit`, `build` and `export` take.
DEVICES: dict[str, Device] = {row.name: row.device for row in TABLE}


@dataclass(frozen=True)
class PlanDevice:
    """A device as the plan builder sees it.

    Attributes:
        capability: CUDA compute capability, times ten.
        memory: bytes.
    """

    capability: int
    memory: int


# By name or alias.
PLAN_DEVICES: dict[str, PlanDevice] = {
    row.name: PlanDevice(row.capability, round(row.memory * GB)) for row in TABLE
}
PLAN_DEVICES |= {alias: PLAN_DEVICES[name] for alias, name in ALIASES.items()}


def kernel_architecture(name: str) -> str:
    """What kernels are compiled for: `sm87` for a device of the table, else `name` itself."""
    device = PLAN_DEVICES.get(name)
    return name if device is None else f"sm{device.capability}"


def this_device(threads: int = 0, quick: bool = False) -> Device:
    """The CPU that this runs on, with its peaks as measured now, which takes seconds.

    Args:
        threads: of the peaks; 0: one for each core.
        quick: measure less; a rough figure.

    Raises:
        ParameterError: the peaks could not be measured, or the system does not tell its memory.
    """
    peaks = measure_peaks(threads, quick)
    host = system.describe()
    if peaks is None or not host["memory"]:
        raise ParameterError("this machine's peaks could not be measured; name a device")
    title = f"{host['name']}, {peaks.threads} threads, peaks measured now"
    return Device(THIS, title, "cpu", host["memory"], 1 * GB, peaks.read, peaks.gemm)


def device_named(name: str, threads: int = 0) -> Device:
    """A device of the table, or `this` CPU.

    Args:
        name: a key of `DEVICES` or `ALIASES`, or "this".
        threads: of the peaks, if they are measured.

    Raises:
        ParameterError: no device has that name.
    """
    if name == THIS:
        return this_device(threads)
    name = ALIASES.get(name, name)
    if name not in DEVICES:
        raise ParameterError(f"device {name!r} is not one of {THIS}, {', '.join(DEVICES)}")
    return DEVICES[name]
