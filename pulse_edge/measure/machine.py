"""What a machine is, as far as its speed goes: records are compared within one class."""

from __future__ import annotations

from pulse_edge.measure.figures import Record


def machine_class(machine: Record, device: str | None) -> str:
    """A GPU's name if the engine ran there, else the processor with all that tells it apart.

    Cloud machines name very different processors alike ("AMD EPYC"), so family, model, stepping,
    SIMD features and cores belong to the name.

    Args:
        machine: of a record.
        device: what the engine ran on.
    """
    gpu = machine.get("gpu")
    if device == "cuda" and gpu:
        return gpu_name(gpu)
    cpu = machine.get("cpu")
    parts = []
    if cpu:
        parts.append(f"family {cpu['family']} model {cpu['model']} stepping {cpu['stepping']}")
    parts += [simd_name(machine["simd"]), _counted(machine["usable_cores"], "core")]
    return f"{machine['name'] or machine['architecture']} ({', '.join(filter(None, parts))})"


def gpu_name(gpu: str) -> str:
    """The name in what nvidia-smi tells, without the clocks, which vary."""
    return gpu.partition(",")[0]


def simd_name(features: list[str]) -> str:
    """The SIMD features, those that a better one of the list implies left out."""
    implied = {"avx2"} if any(f.startswith("avx512") for f in features) else set()
    implied |= {"avx512f"} if "avx512_vnni" in features else set()
    return " ".join(f for f in features if f not in implied)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
