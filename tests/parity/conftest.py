"""Lets these tests find the helpers in tests/ when they are run alone."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
