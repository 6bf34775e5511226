"""Figures for Prometheus. No label holds what a client has sent."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from pulse_edge.answer import Answer
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.serve.admission import Admission

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The figures of one server, in a registry of its own.

    Args:
        name: what clients call the model.
        bundle: that is served.
        admission: says how many requests are under way.
    """

    def __init__(self, name: str, bundle: Bundle, admission: Admission) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "pulse_edge_requests", "Responses.", ("route", "status"), registry=registry
        )
        self.refusals = Counter(
            "pulse_edge_refusals", "Requests refused, by code.", ("code",), registry=registry
        )
        self.finishes = Counter(
            "pulse_edge_answers", "Answers, by why they ended.", ("finish",), registry=registry
        )
        self.misses = Counter(
            "pulse_edge_deadline_misses", "Answers that missed a deadline.", registry=registry
        )
        self.tokens = Counter("pulse_edge_tokens", "Tokens, by kind.", ("kind",), registry=registry)
        self.ttft = self._histogram("ttft", "Seconds to the first token, without the queue.")
        self.prefill = self._histogram("prefill", "Seconds of prefills.")
        self.vision = self._histogram("vision", "Seconds of the vision tower.")
        self.total = self._histogram("answer", "Seconds of answers, without the queue.")
        self.tpot = Histogram(
            "pulse_edge_tpot_seconds", "Seconds of a token after the first.",
            buckets=TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        under_way = Gauge("pulse_edge_under_way", "Requests under way.", registry=registry)
        under_way.set_function(lambda: admission.under_way)
        self.waiting = Gauge("pulse_edge_queued", "Requests in the queue.", registry=registry)
        self.healthy = Gauge("pulse_edge_healthy", "1 if the engine is.", registry=registry)
        self.pages = Gauge("pulse_edge_kept_pages", "Pages sent ahead.", registry=registry)
        ProcessCollector(registry=registry)  # memory, processor time, open files
        manifest = bundle.manifest
        information = Info("pulse_edge_bundle", "What is served.", registry=registry)
        information.info(
            {
                "model": name,
                "seal": bundle.digest,
                "precision": manifest.precision.name,
                "target": manifest.target,
            }
        )

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"pulse_edge_{name}_seconds", text, buckets=SECONDS, registry=self.registry
        )

    def observe(self, answer: Answer) -> None:
        """Count an answer."""
        timings = answer.timings
        usage = answer.usage
        self.finishes.labels(answer.finish_reason).inc()
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("cached").inc(usage.cached_tokens)
        self.tokens.labels("new").inc(usage.new_tokens)
        for histogram, seconds in (
            (self.ttft, timings.ttft),
            (self.tpot, timings.tpot),
            (self.prefill, timings.prefill),
            (self.vision, timings.vision),
            (self.total, timings.total),
        ):
            if seconds:
                histogram.observe(seconds)
        deadline = getattr(answer, "deadline", None)
        if deadline is not None and not deadline.met:
            self.misses.inc()

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)
