"""Answers as the runtime gives them, made without a model."""

from __future__ import annotations

from typing import Any

from pulse_edge.answer import Answer, Timings, Usage

TEXT = "Sinus rhythm, says Dr. Müller."
PROMPT = "USER: <image> Is Jane Doe's rhythm regular? ASSISTANT:"
PAGE = "5" * 64
# Strings of an answer that an audit log must not have in any form.
PRIVATE = (TEXT, PROMPT, PAGE, "Müller", "Jane", "/home/jane", "Doe's checkpoint", "END OF REPORT")


def answer(number: int = 0, **parameters: Any) -> Answer:
    """An answer with every private thing that provenance can hold.

    Args:
        number: makes it another answer.
        parameters: of the generation.
    """
    provenance = {
        "bundle": "b" * 64,
        "verified": {"how": "checksum", "key": None},
        "checkpoint": {"name": "Doe's checkpoint", "sha256": "c" * 64},
        "image": {"sha256": PAGE, "width": 10, "height": 10, "notes": ["/home/jane/page.png"]},
        "precision": {"name": "int8"},
        "target": "cpu",
        "engine": {
            "engine": "onnxruntime",
            "engine_version": "1.32.0",
            "device": "cpu",
            "threads": 1,
            "context": 2048,
            "library": "/home/jane/lib/onnxruntime.so",
        },
        "versions": {"pulse-edge": "0.1.0", "python": "3.11.0"},
        "machine": "x86_64",
        "prompt": PROMPT,
        "parameters": {"temperature": 0.5, "seed": 3, "stop": ("END OF REPORT",)} | parameters,
    }
    usage = Usage(10, 4, 0, 3, 0, 0)
    timings = Timings(0.1, 0.2, 0.3, 0.4, (0.01, 0.02), 0.001, 0.002, 0.5, 0.015, 1.0 + number)
    return Answer(TEXT, (number, 2, 3), "eos", usage, timings, provenance)
