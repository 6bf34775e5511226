"""Places in the clone and in the environment that runs the tests."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GOLDENS = ROOT / "tests" / "goldens"
BIN = Path(sys.executable).parent
PROGRAM = BIN / "pulse-edge"
