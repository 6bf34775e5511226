"""Latency that the server adds over `Model.stream` in this process, measured in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

import pulse_edge
from benchmarks.serve.client import Outcome, send
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


async def measure_added(
    client: httpx.AsyncClient,
    model: pulse_edge.Model,
    workload: Workload,
    repetitions: int,
    max_tokens: int,
) -> dict[str, Any]:
    """Ask the server and the model in turns, in a random order, each kind of request.

    Returns:
        For each kind the percentiles of both, of the difference of each pair, and how many texts
        were equal.
    """
    page = workload.page()
    rng = np.random.default_rng(0)
    pairs: dict[str, list[tuple[Outcome, DirectAnswer]]] = {REPEATED: [], TEXT: [], COLD: []}
    for repetition in range(repetitions + 2):
        for kind, image in ((REPEATED, page), (TEXT, None), (COLD, workload.page())):
            request = workload.request(kind, image, REPORT_QUESTION)
            if rng.integers(2):
                direct = ask_directly(model, request, max_tokens)
                served = await send(client, request, time.perf_counter(), 0.0)
            else:
                served = await send(client, request, time.perf_counter(), 0.0)
                direct = ask_directly(model, request, max_tokens)
            if served.error or served.ttft is None:
                raise PulseEdgeError(f"the server did not answer: {served.error or 'no text'}")
            if repetition >= 2:  # earlier ones warm up
                pairs[kind].append((served, direct))
    return {kind: _figures(of) for kind, of in pairs.items()}


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
    }


def rows_of_added(added: dict[str, Any]) -> list[list[str]]:
    """A table of what the server adds, for people."""
    rows = [["added by the server", "p50", "p90", "p99", "direct p50", "n"]]
    for kind, figures in added.items():
        for name in ("ttft", "tpot"):
            more, direct = figures[name]["added"], figures[name]["direct"]
            if more["count"]:
                cells = [f"{1e3 * more[p]:+.3f} ms" for p in ("p50", "p90", "p99")]
                count = str(more["count"])
                rows.append([f"{kind} {name}", *cells, f"{1e3 * direct['p50']:.3f} ms", count])
    return rows
