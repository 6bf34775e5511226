"""The table of devices: what a GPU is, and what it can do at its best.

`pulse-edge fit` predicts from the rates, and so knows the devices that have them. `pulse-edge
build` builds plans for the compute capability, under the name of a `plan_name` column: plans for it
have to run on the smallest board or card that is sold under that name.
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
    """A row of the table. One of `name` and `plan_name` may be missing.

    Attributes:
        name: what `fit --device` calls it; None if the rates are not known.
        plan_name: what `build --device` calls it; None if another row has the name.
        title: what people call it.
        capability: CUDA compute capability, times ten. developer.nvidia.com/cuda-gpus.
        memory: GB.
        smallest: GB of the smallest board or card that is sold under `plan_name`.
        reserved: GB, see `Device`.
        read: GB/s.
        fp16: dense TFLOP/s.
        int8: dense TOP/s.
        engine: see `Device`.
    """

    name: str | None
    plan_name: str | None
    title: str
    capability: int
    memory: float
    smallest: float
    reserved: float = 0.0
    read: float = 0.0
    fp16: float = 0.0
    int8: float = 0.0
    engine: str = "onnxruntime"

    def device(self, name: str) -> Device:
        """The row for the roofline, in bytes and FLOP."""
        return Device(
            name=name,
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
# datasheets: 8 SMs at 1.02 GHz on the Nano in its 25 W Super mode, 8 at 918 MHz on the NX, 16 at
# 1.3 GHz on the AGX 64 GB; without the DLAs), fp16 half of it. Thor: T5000 datasheet, 2,070 sparse
# FP4 TFLOPS, so 517 dense in 8 bits and 259 in fp16. T4, L4, A10, A100 80 GB SXM and H100 80 GB
# SXM: their product datasheets. RTX 4060: Ada whitepaper, 24 SMs at 2.46 GHz, fp16 with fp32
# accumulation as the kernels for transformers use it. Reserved is an assumption: on a Jetson the
# system and the desktop share the memory, on a card the driver takes its context. ONNX Runtime's
# wheel has no code for a Jetson, so TensorRT runs there.
JETSON = "tensorrt"
TABLE = (
    # name, plan name, title, capability; GB: memory, smallest, reserved; GB/s; T/s: fp16, int8
    Row("orin-nano-8gb", "orin-nano", "Jetson Orin Nano 8 GB (Super, 25 W)", 87,
        8, 4, 1.5, 102, 16.7, 33.4, JETSON),
    Row("orin-nx-16gb", "orin-nx", "Jetson Orin NX 16 GB", 87,
        16, 8, 1.5, 102.4, 15.0, 30.1, JETSON),
    Row("agx-orin", "agx-orin", "Jetson AGX Orin 64 GB", 87,
        64, 32, 1.5, 204.8, 42.6, 85.2, JETSON),
    Row("thor", "agx-thor", "Jetson AGX Thor (T5000)", 110,
        128, 64, 2, 273, 259, 517, JETSON),
    Row("t4", "t4", "T4", 75, 16, 16, 0.5, 320, 65, 130),
    Row("l4", "l4", "L4", 89, 24, 24, 0.5, 300, 121, 242),
    Row("a10", "a10", "A10", 86, 24, 24, 0.5, 600, 125, 250),
    Row("rtx-4060", "rtx40", "GeForce RTX 4060", 89, 8, 6, 0.5, 272, 30.2, 121),
    Row("a100", "a100", "A100 80 GB SXM", 80, 80, 40, 0.5, 2039, 312, 624),
    Row("h100", "h100", "H100 80 GB SXM", 90, 80, 80, 0.5, 3350, 989, 1979),
    # Without rates: plans are built for these, nothing is predicted.
    Row(None, "rtx30", "GeForce RTX 30", 86, 4, 4),
    Row(None, "rtx50", "GeForce RTX 50", 120, 8, 8),
    Row(None, "b200", "B200", 100, 180, 180),
    Row(None, "dgx-spark", "DGX Spark", 121, 128, 128),
)  # fmt: skip

# By the name that `fit` uses: the devices that something can be predicted for.
DEVICES: dict[str, Device] = {row.name: row.device(row.name) for row in TABLE if row.name}


@dataclass(frozen=True)
class PlanDevice:
    """A device as the plan builder sees it.

    Attributes:
        capability: CUDA compute capability, times ten.
        memory: bytes of the smallest board or card of that name.
    """

    capability: int
    memory: int


# By the name that `build` and `export --device` use.
PLAN_DEVICES: dict[str, PlanDevice] = {
    row.plan_name: PlanDevice(row.capability, round(row.smallest * GB))
    for row in sorted(TABLE, key=lambda row: row.capability)
    if row.plan_name
}


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
        name: a key of `DEVICES`, or "this".
        threads: of the peaks, if they are measured.

    Raises:
        ParameterError: no device has that name.
    """
    if name == THIS:
        return this_device(threads)
    if name not in DEVICES:
        raise ParameterError(f"device {name!r} is not one of {THIS}, {', '.join(DEVICES)}")
    return DEVICES[name]
