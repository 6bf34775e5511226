"""The token that a bundle is expected to say first, found by running the bundle that was written.

`Model.self_test` compares it with what a device says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import ExpectedToken
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError
from pulse_edge.system import available_memory
from pulse_edge.text.template import PromptBuilder, prompt_rows
from pulse_export.quantize.precision import STORAGES

# General ones: a model of ECGs answers them by a word that it is sure of.
QUESTIONS = (
    "What is an electrocardiogram?",
    "Name the twelve leads of a standard ECG.",
    "What does the P wave represent?",
    "Is this a medical device?",
)
# How far the chosen token must lead the second, as a share of the logits' deviation: kernels of
# other processors round differently, and must not change the choice.
CLEAR = 0.25
ROOM = 2.5  # times the bundle's size in free memory: the engine packs the weights anew


def expected_token(bundle: Bundle) -> ExpectedToken | None:
    """A question without a page, and the token that a bundle for CPUs says first.

    Args:
        bundle: whose files are all written; its hashes need not be there yet.

    Returns:
        None if the bundle is not for CPUs or rounds activations, if ONNX Runtime or the memory for
        it is missing, or if no question has a clear answer.
    """
    manifest = bundle.manifest
    if manifest.target != "cpu" or STORAGES[manifest.precision.decoder].rounds_inputs:
        return None  # processors round activations differently
    if bundle.size * ROOM > available_memory():
        return None
    try:
        engine = open_engine(bundle, EngineOptions(device="cpu", engine="onnxruntime"))
    except EngineError:
        return None
    prompts = PromptBuilder.of(manifest.model, bundle.read(manifest.tokenizer), manifest.tokenizer)
    for question in QUESTIONS:
        ids = prompts.first_turn(question, image=False)
        if len(ids) < engine.capacity:
            token = clear_choice(_logits(engine, ids))
            if token is not None:
                return ExpectedToken(question, token)
    return None


def clear_choice(logits: NDArray[np.float32]) -> int | None:
    """The likeliest token, if it leads the second clearly.

    Args:
        logits: [vocab].
    """
    second, first = np.partition(logits.astype(np.float64), -2)[-2:]
    if not first - second >= CLEAR * logits.std(dtype=np.float64):  # also what is no number
        return None
    return int(logits.argmax())


def _logits(engine: Engine, ids: list[int]) -> NDArray[np.float32]:
    """Logits of the token that follows a prompt without a page."""
    logits = engine.prefill(engine.rows(prompt_rows(ids, None))).copy()
    engine.rewind(0)
    return logits
