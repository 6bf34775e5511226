"""Latency that the server adds over `Model.stream` in this process, measured in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import numpy as np

import pulse_edge
from benchmarks.serve.client import Outcome, send_plainly
from benchmarks.serve.summary import percentiles
from benchmarks.serve.workload import COLD, REPEATED, TEXT, PlannedRequest, Workload
from pulse_edge.assets import REPORT_QUESTION
from pulse_edge.errors import PulseEdgeError


@dataclass(frozen=True)
class DirectAnswer:
    """An answer without a server, and when its tokens came."""

    ttft: float
    span: float  # from the first text to the last
    tokens: int
    text: str


def ask_directly(model: pulse_edge.Model, request: PlannedRequest, max_tokens: int) -> DirectAnswer:
    """Ask a model in this process, and note when its text comes."""
    start = time.perf_counter()
    stream = model.stream(request.image, request.question, max_new_tokens=max_tokens)
    first = last = None
    for piece in stream:
        if piece:
            last = time.perf_counter()
            first = first or last
    answer = stream.answer
    if first is None or last is None:
        raise PulseEdgeError("the answer is empty, so nothing can be measured with this question")
    return DirectAnswer(first - start, last - first, len(answer.token_ids), answer.text)


def measure_added(
    connection: HTTPConnection,
    model: pulse_edge.Model,
    workload: Workload,
    repetitions: int,
    max_tokens: int,
    key: str | None = None,
) -> dict[str, Any]:
    """Ask the server and the model in turns, in a random order, one kind of request after another.

    Args:
        connection: to the server.
        model: in this process.
        workload: makes the pages.
        repetitions: of each kind.
        max_tokens: of each answer.
        key: that the server asks for.

    Returns:
        For each kind the percentiles of both, of the difference of each pair, the difference of the
        minima, and how many texts were equal.
    """
    page = workload.page()
    rng = np.random.default_rng(0)
    figures = {}
    for kind in (REPEATED, TEXT, COLD):
        pairs: list[tuple[Outcome, DirectAnswer]] = []
        for repetition in range(repetitions + 2):
            image = workload.page() if kind == COLD else page if kind == REPEATED else None
            request = workload.request(kind, image, REPORT_QUESTION)
            direct = ask_directly(model, request, max_tokens) if rng.integers(2) else None
            served = send_plainly(connection, request, key)
            direct = direct or ask_directly(model, request, max_tokens)
            if served.error or served.ttft is None:
                raise PulseEdgeError(f"the server did not answer: {served.error or 'no text'}")
            if repetition >= 2:  # earlier ones warm up
                pairs.append((served, direct))
        figures[kind] = _figures(pairs)
    return figures


def _figures(pairs: list[tuple[Outcome, DirectAnswer]]) -> dict[str, Any]:
    """Times per token have the same divisor on both sides: the model's number of tokens."""
    ttft = [(s.ttft, d.ttft) for s, d in pairs if s.ttft is not None]
    steps = [(s.span, d.span, d.tokens - 1) for s, d in pairs if s.span and d.tokens > 1]
    tpot = [(served / count, direct / count) for served, direct, count in steps]
    return {
        "equal_texts": sum(s.text == d.text for s, d in pairs),
        "tokens": percentiles(d.tokens for _, d in pairs),
        "ttft": _both(ttft),
        "tpot": _both(tpot),
    }


def _both(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "server": percentiles(served for served, _ in pairs),
        "direct": percentiles(direct for _, direct in pairs),
        "added": percentiles(served - direct for served, direct in pairs),
        "minima": min((s for s, _ in pairs), default=0.0) - min((d for _, d in pairs), default=0.0),
    }


def rows_of_added(added: dict[str, Any]) -> list[list[str]]:
    """A table of what the server adds, for people."""
    rows = [["added by the server", "minima", "p50", "p90", "p99", "direct p50", "n"]]
    for kind, figures in added.items():
        for name in ("ttft", "tpot"):
            more, direct = figures[name]["added"], figures[name]["direct"]
            if more["count"]:
                seconds = (figures[name]["minima"], *(more[p] for p in ("p50", "p90", "p99")))
                cells = [f"{1e3 * each:+.3f} ms" for each in seconds]
                count = str(more["count"])
                rows.append([f"{kind} {name}", *cells, f"{1e3 * direct['p50']:.3f} ms", count])
    return rows
