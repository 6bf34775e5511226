"""The one exception family.

Every mistake that a user can make ends in a `PulseEdgeError`. Its message is one line that says the
value, what was expected, and the next step. `cli/main.py` prints it, and nothing else does.
"""


class PulseEdgeError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the process's exit status in the CLI."""

    exit_code = 1


class ParameterError(PulseEdgeError, ValueError):
    """A parameter outside its range, or an unknown one."""

    exit_code = 2  # the same as click's usage errors


class ImageError(PulseEdgeError):
    """An image that cannot be read, or must not be."""

    exit_code = 3


class RecordingError(ImageError):
    """A waveform recording that cannot be read or drawn."""


class BundleError(PulseEdgeError):
    """A bundle that is missing, incomplete, altered, or of another schema version."""

    exit_code = 4


class ContextError(PulseEdgeError):
    """A prompt that does not fit the model's context."""

    exit_code = 5


class EngineError(PulseEdgeError):
    """An inference engine that is not installed, not usable on this device, or failed."""

    exit_code = 6


class CheckpointError(PulseEdgeError):
    """A checkpoint that cannot be exported; raised before any work is done."""

    exit_code = 7


class ExportError(PulseEdgeError):
    """An export that could not be finished (disk full, output exists, unsupported combination)."""

    exit_code = 8


class RegressionError(PulseEdgeError):
    """A benchmark that is slower, or takes more memory, than its baseline allows."""

    exit_code = 9
