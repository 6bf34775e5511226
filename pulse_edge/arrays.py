"""Types of the arrays that rooms hand to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32, or float16 if an engine's networks use it
Numbers = NDArray[np.int64]
