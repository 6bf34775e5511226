"""Ray, imported when it is needed and silenced before."""

from __future__ import annotations

import os
from typing import Any

from pulse_edge.errors import EngineError
from pulse_edge.privacy import silence

# Ray's services then listen on loopback (_private/ray_constants.py). It is the default on Windows
# and macOS, hence the name.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def load_ray(*, loopback: bool = False) -> Any:
    """Ray's Python package, with its usage reports and metrics off, and what we use of it loaded.

    Args:
        loopback: Ray's own services are for this machine only. Of no effect once Ray was imported.

    Raises:
        EngineError: it is not installed.
    """
    silence("ray")
    if loopback:
        os.environ.update(LOOPBACK_ONLY)
    try:
        import ray
        import ray.exceptions
        import ray.serve.exceptions
        import ray.serve.request_router
    except ImportError:
        raise EngineError(
            "Ray Serve is not installed; pip install 'pulse-edge[ray]', or use pulse-edge serve"
        ) from None
    return ray
