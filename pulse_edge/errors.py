"""The one exception family.

Every mistake that a user can make ends in a `PulseEdgeError`. Its message is one line that says the
value, what was expected, and the next step. `cli/process.py` prints it, and nothing else does.
"""


class PulseEdgeError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the process's exit status in the CLI."""

    exit_code = 1


class ParameterError(PulseEdgeError, ValueError):
    """A parameter outside its range, or an unknown one."""

    exit_code = 2  # the same as click's usage errors


class CommandLineError(PulseEdgeError):
    """Arguments of the command that make no sense."""

    exit_code = 2  # as a `ParameterError`


class ImageError(PulseEdgeError):
    """An image that cannot be read, or must not be."""

    exit_code = 3


class RecordingError(ImageError):
    """A waveform recording that cannot be read or drawn."""


class BundleError(PulseEdgeError):
    """A bundle that is missing, incomplete, altered, or of another schema version."""

    exit_code = 4


class TrustError(BundleError):
    """A bundle that nobody who is trusted has signed, or rules of trust that cannot be read."""


class ContextError(PulseEdgeError):
    """A prompt that does not fit the model's context."""

    exit_code = 5


class EngineError(PulseEdgeError):
    """An inference engine that is not installed, not usable on this device, or failed."""

    exit_code = 6


class UnknownDeviceError(ParameterError, EngineError):
    """A device of a name that there is not. Also an `EngineError`, as it was before."""


class StuckEngineError(EngineError):
    """An engine whose call never comes back. Only a new process helps."""

    exit_code = 70


class QueueTimeoutError(PulseEdgeError, TimeoutError):
    """A request whose turn did not come within its `timeout`. It was withdrawn and ran nothing."""


class QueueFullError(PulseEdgeError):
    """A request that found the queue full. It was not queued.

    Attributes:
        retry_after_s: seconds after which a place is likely to be free.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(PulseEdgeError, TimeoutError):
    """A request that was predicted to miss its deadline, and was refused before it ran anything.

    Also one whose deadline has passed, if it has no answer to return: scores, or a look.

    Attributes:
        predicted_s: seconds that it would take, its wait among them.
        deadline_s: seconds that it had.
    """

    exit_code = 13

    def __init__(self, message: str, predicted_s: float, deadline_s: float) -> None:
        super().__init__(message)
        self.predicted_s = predicted_s
        self.deadline_s = deadline_s


class PageCheckError(PulseEdgeError):
    """A page that its checks warn of, with `--strict`. The answer was printed."""

    exit_code = 15


class CheckpointError(PulseEdgeError):
    """A checkpoint that cannot be exported; raised before any work is done."""

    exit_code = 7


class ExportError(PulseEdgeError):
    """An export that could not be finished (disk full, output exists, unsupported combination)."""

    exit_code = 8


class RegressionError(PulseEdgeError):
    """A benchmark that is slower, or takes more memory, than its baseline allows."""

    exit_code = 9


class NoVerdictError(PulseEdgeError):
    """A benchmark without a verdict: a busy machine, or too few repetitions."""

    exit_code = 14


class AuditError(PulseEdgeError):
    """An audit log that cannot be written, or that was altered."""

    exit_code = 10


class OutputError(PulseEdgeError):
    """Standard output that cannot be written to: closed, or on a full disk."""

    exit_code = 11


class ReaderLeftError(OutputError):
    """Whoever read standard output has left, as `head` does. The command ends without a word."""

    exit_code = 141  # 128 + SIGPIPE, as shells have it


# Every exit code of the command, as `pulse-edge --help` and docs/exit-codes.md list them.
EXIT_CODES = {
    0: "done",
    1: "another failure, such as a file that cannot be written",
    2: "wrong usage: an option, a parameter or a question",
    3: "an image or a recording that cannot be read, or must not be",
    4: "a bundle that is missing, damaged, altered, or not trusted",
    5: "a prompt that does not fit the context",
    6: "an engine that is missing, cannot run here, or failed",
    7: "a checkpoint that cannot be exported",
    8: "an export that could not be finished; nothing is left behind",
    9: "a benchmark that is worse than its baseline allows",
    10: "an audit log that cannot be written, or was altered",
    11: "standard output that cannot be written to",
    12: "not enough memory",
    13: "a deadline that was missed, or cannot be met",
    14: "a benchmark without a verdict, such as on a busy machine",
    15: "a page that its checks warn of, with --strict",
    70: "a server whose engine was stuck; start it again",
    129: "ended by SIGHUP",
    130: "ended by Ctrl-C (SIGINT)",
    141: "the reader of standard output has left (SIGPIPE)",
    143: "ended by SIGTERM",
}
