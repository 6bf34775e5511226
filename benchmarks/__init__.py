"""Scripts that measure, run from a clone; not part of the wheel, whose `pulse-edge bench` is what
devices run.
"""

import sys

from benchmarks.failures import explain_failures

if sys.argv[:1] == ["-m"]:  # `python -m benchmarks.NAME`, which imports this package first
    explain_failures()
