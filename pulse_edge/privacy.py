"""What keeps the libraries that we import from reporting to their makers.

Some libraries send usage data unless an environment variable forbids it, which they read once, when
they are loaded. This is the one table of these variables. `silence` comes before every import of
such a library; `tests/house/test_privacy.py` looks for imports without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Library -> variables that silence it. Libraries that contain or import it are in the same row.
SILENT: dict[str, dict[str, str]] = {
    # Reports from 1.29 on. It takes 1, true, yes and on as off; an empty value, 0 and 2 leave it
    # on. onnxruntime-genai contains it, optimum imports it.
    "onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"},
    # huggingface_hub/constants.py; transformers and optimum ask it. Offline, it looks nothing up.
    "huggingface_hub": {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    },
    # openvino_telemetry/utils/opt_in_checker.py declines under CI, and nncf/telemetry/wrapper.py
    # under NNCF_CI. There is no variable of its own.
    "openvino": {"CI": "true", "NNCF_CI": "1"},
    # ray/_common/usage: reports from the head node unless the value is 0. The metrics agent opens a
    # port on every address.
    "ray": {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"},
}


def silence(*libraries: str) -> None:
    """Forbid libraries to report, in this process and its children, before they are imported.

    A value that is already set is replaced: most of what a user could have set there leaves the
    reports on.

    Args:
        libraries: rows of `SILENT`. A runtime silences only what it imports, because the variables
            concern the user's own program too.

    Raises:
        KeyError: a library has no row.
    """
    for library in libraries:
        os.environ.update(SILENT[library])


@contextmanager
def without_requests() -> Iterator[None]:
    """Within it, `requests` is as if it were not installed, unless it is imported already.

    pydicom imports it if it is there, to download test files. With it comes urllib3, which opens a
    socket on ::1 when it is imported, to see whether there is IPv6.
    """
    hidden = "requests" not in sys.modules
    if hidden:
        sys.modules["requests"] = None  # type: ignore[assignment]  # an import then fails
    try:
        yield
    finally:
        if hidden and sys.modules.get("requests", ...) is None:
            del sys.modules["requests"]


def silent_variables() -> dict[str, str]:
    """All variables of the table, for a process that runs other people's code."""
    return {name: value for row in SILENT.values() for name, value in row.items()}
