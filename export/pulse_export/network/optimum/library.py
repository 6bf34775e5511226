"""The libraries of `--network optimum`: torch, transformers and Optimum.

They are for the workstation that exports. A bundle's runtime needs none of them. Nothing is fetched
from a network and no code of a checkpoint is run: modules are made from transformers' own classes,
and their weights come from the checkpoint's files.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pulse_edge.errors import ExportError
from pulse_edge.privacy import silence

PACKAGES = ("optimum-onnx", "optimum", "transformers", "torch")
INSTALL = (
    "pip install 'pulse-edge[export,optimum]', in an environment of its own: "
    "optimum-onnx 0.1 takes transformers below 4.58"
)


def torch_library() -> Any:
    """torch. Raises `ExportError` if it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise _missing(error) from None
    return torch


def transformers_library() -> Any:
    """transformers, which looks nothing up. Raises `ExportError` if it is not installed."""
    silence("onnxruntime", "huggingface_hub")
    try:
        import transformers
    except ImportError as error:
        raise _missing(error) from None
    return transformers


def onnxruntime_library() -> Any:
    """onnxruntime. Raises `ExportError` if it is not installed."""
    silence("onnxruntime", "huggingface_hub")
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from None
    return onnxruntime


def optimum_tasks() -> Any:
    """Optimum's table of model types. Raises `ExportError` if Optimum cannot be used."""
    silence("onnxruntime", "huggingface_hub")
    try:
        import optimum.exporters.onnx.model_configs  # noqa: F401 - fills the table
        from optimum.exporters.tasks import TasksManager
    except (ImportError, RuntimeError) as error:  # of other versions than it takes, too
        raise _missing(error) from None
    return TasksManager


def optimum_export() -> Any:
    """Optimum's `export`, from a module to a file. Raises `ExportError` as `optimum_tasks`."""
    silence("onnxruntime", "huggingface_hub")
    try:
        from optimum.exporters.onnx import export
    except (ImportError, RuntimeError) as error:
        raise _missing(error) from None
    return export


def library_versions() -> dict[str, str]:
    """Versions of the packages that make such a tower, for the manifest."""
    return {name: version(name) for name in PACKAGES}


def _missing(error: Exception) -> ExportError:
    reason = str(error).strip().split("\n")[0]
    return ExportError(f"--network optimum cannot use Optimum's ONNX export ({reason}); {INSTALL}")
