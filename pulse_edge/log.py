"""The package's log: silent until a program asks for it, by `logging` or `pulse-edge --log`.

What is worth a line: a bundle that was loaded, the engine that was chosen, and what runs instead of
what was asked for. No line holds a question, an answer, or anything about a page.
"""

from __future__ import annotations

import logging

NAME = "pulse_edge"
LOGGER = logging.getLogger(NAME)
LOGGER.addHandler(logging.NullHandler())  # else Python prints warnings where nobody asked for them
