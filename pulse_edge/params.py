"""Parameters of a request: how to generate, and how long to wait for a turn."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from pulse_edge.cancellation import Cancelled
from pulse_edge.deadline import Deadline
from pulse_edge.errors import ParameterError, QueueTimeoutError

# What becomes of a page's transparent pixels. "drop" is the authors' `convert("RGB")`: the colours
# below a transparent ground show. Black ink on a transparent ground is often black on black then.
AlphaMode = Literal["white", "drop"]
ALPHA_MODES: tuple[AlphaMode, ...] = get_args(AlphaMode)
# Whose turn comes first. A page's prefill for a background request gives way at a chunk's end.
Priority = Literal["interactive", "background"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)


@dataclass(frozen=True)
class GenerationParams:
    """How to generate. Greedy by default, like ECGBench's evaluation.

    Args:
        max_new_tokens: longest answer, from 1.
        temperature: from 0 to 100; 0 is greedy.
        top_p: sample from the likeliest tokens whose mass reaches this share; 1 is off.
        top_k: sample from the k likeliest tokens; 0 is off.
        repetition_penalty: over 0, up to 100; 1 is off. It sees the tokens generated so far and not
            the prompt, as upstream, which generates from embeddings.
        seed: of the sampler. The same seed gives the same answer.
        stop: strings that end the answer and are not part of it.
        speculate: draft from earlier text and verify the drafts (`decode/`). It takes fewer steps
            and gives the same answer but for rounding (`Engine.step`). Off by default, because what
            an earlier request wrote may then decide a tie.
        logprobs: how many of the likeliest tokens to report at each place of the answer, from 0 to
            20, with their log-probabilities and that of the generated token. They are of the
            model's own distribution, before penalty, schema, temperature, top-k and top-p, as in
            OpenAI's interface. None reports nothing.
        schema: JSON schema as text. The answer is then JSON that fits it, unless it ends before its
            end, by `max_new_tokens` for example. It takes the extra `schema`. PULSE was not trained
            on JSON: a closed question is the more accurate way.

    Raises:
        ParameterError: a value is out of range.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    speculate: bool = False
    logprobs: int | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        single = isinstance(self.stop, str) or not isinstance(self.stop, Iterable)
        stop = (self.stop,) if single else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        for name, ok, legal in (
            ("max_new_tokens", _whole(self.max_new_tokens, 1), "a whole number from 1"),
            ("temperature", _real(self.temperature, 0, 100), "from 0 to 100 (0 is greedy)"),
            ("top_p", _real(self.top_p, 0, 1) and self.top_p > 0, "over 0, up to 1"),
            ("top_k", _whole(self.top_k, 0), "a whole number from 0 (0 is off)"),
            (
                "repetition_penalty",
                _real(self.repetition_penalty, 0, 100) and self.repetition_penalty > 0,
                "over 0",
            ),
            ("seed", _whole(self.seed, 0), "a whole number from 0"),
            ("stop", all(isinstance(s, str) and s for s in stop), "strings that are not empty"),
            ("speculate", isinstance(self.speculate, bool | np.bool_), "True or False"),
            (
                "logprobs",
                self.logprobs is None or (_whole(self.logprobs, 0) and self.logprobs <= 20),
                "a whole number from 0 to 20, or None (off)",
            ),
            (
                "schema",
                self.schema is None or (isinstance(self.schema, str) and self.schema.strip()),
                "a JSON schema as text, or None",
            ),
        ):
            if not ok:
                raise ParameterError(f"{name} is {getattr(self, name)!r}, but must be {legal}")
        for parameter in fields(self):
            value = getattr(self, parameter.name)
            if isinstance(value, np.generic):  # provenance is JSON, which knows no numpy
                object.__setattr__(self, parameter.name, value.item())

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> GenerationParams:
        """Parameters by name. Raises `ParameterError` also for a name that is none."""
        legal = [field.name for field in fields(cls)]
        unknown = sorted(options.keys() - set(legal))
        if unknown:
            names = ", ".join(unknown)
            raise ParameterError(f"unknown parameter {names}; there are {', '.join(legal)}")
        return cls(**options)

    @property
    def greedy(self) -> bool:
        """Whether every token is the likeliest one."""
        return self.temperature == 0 and self.repetition_penalty == 1


class Patience:
    """How long a request may still wait for other requests.

    Several waits use up one `timeout`. The request's own work does not count.

    Args:
        timeout: seconds from 0, which is not to wait at all; None waits as long as it takes.
        deadline: of the whole request; no wait goes beyond it.

    Raises:
        ParameterError: `timeout` is out of range.
    """

    def __init__(self, timeout: float | None, deadline: Deadline | None = None) -> None:
        if timeout is not None and not _real(timeout, 0, math.inf):
            raise ParameterError(
                f"timeout is {timeout!r}, but must be seconds from 0 (0 does not wait), "
                "or None to wait as long as it takes"
            )
        self.timeout = None if timeout is None else float(timeout)
        self._left = self.timeout
        self._deadline = deadline

    def wait(self, wait: Callable[[float | None], bool]) -> bool:
        """Wait once.

        Args:
            wait: waits up to as many seconds as it gets, or for ever with None. It returns whether
                that was long enough.

        Returns:
            What `wait` returned.
        """
        bounds = [self._left, self._deadline.remaining if self._deadline else None]
        seconds = min((bound for bound in bounds if bound is not None), default=None)
        if seconds is None:
            return wait(None)
        begun = time.monotonic()
        enough = wait(min(seconds, threading.TIMEOUT_MAX))
        if self._left is not None:
            self._left = max(0.0, self._left - (time.monotonic() - begun))
        return enough

    def exhausted(self) -> QueueTimeoutError | Cancelled:
        """What a wait that was not long enough raises."""
        if self._deadline is not None and self._deadline.passed:
            return Cancelled()
        if self.timeout == 0:
            return QueueTimeoutError(
                "the model is busy with another request; wait for it by a timeout over 0"
            )
        return QueueTimeoutError(
            f"other requests took longer than the timeout of {self.timeout:g} s; "
            "ask again, or wait longer by a larger timeout"
        )


@dataclass(frozen=True)
class Terms:
    """How a request waits, and how long it may take. Its deadline runs from now on.

    Args:
        timeout: see `Patience`.
        deadline_s: seconds for the whole request, its wait among them; None is no deadline.
        best_effort: whether to run the request even if it is predicted to miss its deadline.
        priority: `interactive` requests go before `background` ones.

    Raises:
        ParameterError: a value is out of range.
    """

    timeout: float | None = None
    deadline_s: float | None = None
    best_effort: bool = False
    priority: Priority = "interactive"
    deadline: Deadline | None = field(init=False)
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.best_effort, bool):
            problem = f"best_effort is {self.best_effort!r}, but must be True or False"
            raise ParameterError(problem)
        if self.priority not in PRIORITIES:
            problem = f"priority is {self.priority!r}, but must be {' or '.join(PRIORITIES)}"
            raise ParameterError(problem)
        deadline = None if self.deadline_s is None else Deadline(self.deadline_s)
        object.__setattr__(self, "deadline", deadline)
        object.__setattr__(self, "patience", Patience(self.timeout, deadline))


def _whole(value: object, least: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value >= least)


def _real(value: object, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(least <= value <= most)
