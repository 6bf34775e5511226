"""OpenVINO's Python package. Nothing else of the runtime imports it."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any

from pulse_edge.errors import EngineError
from pulse_edge.privacy import SILENT, silence

# The oldest version that was tried. Its ONNX front end knows every operator of our graphs.
OLDEST_OPENVINO = (2026, 4)
INSTALL_OPENVINO = "pip install 'pulse-edge[openvino]'"


@cache
def load_openvino() -> Any:
    """The module `openvino`, which must not send usage data.

    Raises:
        EngineError: it is not installed, does not load, or is too old; the message says which.
    """
    try:
        openvino = _import_silenced()
    except (ImportError, OSError, MemoryError) as error:
        raise EngineError(_why_no_openvino(error)) from None
    if not hasattr(openvino, "Core"):  # an empty folder imports, too
        raise EngineError(
            "OpenVINO's folder is there, but its files are not; "
            "install it again: pip install --force-reinstall openvino"
        )
    version = openvino_version(openvino)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_OPENVINO:
        needed = ".".join(map(str, OLDEST_OPENVINO))
        raise EngineError(
            f"OpenVINO {version} is too old, pulse-edge needs {needed} or newer: "
            f"pip install --upgrade 'openvino>={needed}'"
        )
    return openvino


def _import_silenced() -> Any:
    """The module. Its own telemetry reports conversions, which nothing here asks for.

    What silences it, such as `CI`, concerns the user's own program, so it is set no longer than the
    import takes.
    """
    before = {name: os.environ.get(name) for name in SILENT["openvino"]}
    silence("openvino")
    try:
        import openvino
        import openvino.op.util
        import openvino.opset13

        return openvino
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def openvino_version(openvino: Any) -> str:
    """As on the package index, `2026.4.1`; the module's own says the commit, too."""
    version: str = openvino.__version__.split("-", 1)[0]
    return version


def openvino_reason(error: BaseException) -> str:
    """Why a call failed. The lines before are of OpenVINO's own source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _why_no_openvino(error: ImportError | OSError | MemoryError) -> str:
    """Why an import failed, and what to do."""
    why = openvino_reason(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
        return f"OpenVINO is not installed ({why}); {INSTALL_OPENVINO}"
    return (
        f"OpenVINO is installed but does not load ({why}); check that its wheel is for this "
        "machine and Python, and install it again: pip install --force-reinstall openvino"
    )
