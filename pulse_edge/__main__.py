"""`python -m pulse_edge`, which is `pulse-edge`."""

from __future__ import annotations

from pulse_edge.cli import main

if __name__ == "__main__":
    main()
