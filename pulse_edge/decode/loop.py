"""The decode loop: logits -> token -> text -> next logits.

It runs until there is a reason to stop.
"""

from __future__ import annotations

from collections.abc import Generator

from pulse_edge.decode.handover import Handover
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import FinishReason, Generation
from pulse_edge.decode.sampler import Logits, Sampler
from pulse_edge.decode.verifier import Verifier
from pulse_edge.engines.engine import Engine
from pulse_edge.params import GenerationParams
from pulse_edge.text.detokenizer import TextStream


def generate(
    engine: Engine,
    logits: Logits,
    params: GenerationParams,
    eos: tuple[int, ...],
    text: TextStream,
    out: Generation,
    ngrams: Ngrams | None = None,
    sampler: Sampler | None = None,
    handover: Handover | None = None,
) -> Generator[str, None, None]:
    """Yield the answer's text as it becomes certain.

    However it ends, also when it is closed, the cache then holds the prompt and tokens of the
    answer, nothing else.

    Args:
        engine: its cache holds the prompt.
        logits: float32 [vocab] after the prompt.
        params: how to generate.
        eos: ids of the tokens that end an answer.
        text: of the answer, empty yet.
        out: filled while the loop runs. Its `cancellation` stops the loop after a token.
        ngrams: what to draft from, has read the prompt; a step may then give several tokens.
        sampler: of this answer; None is one without constraint and log-probabilities.
        handover: to whom steps of the engine are offered. The loop yields an empty text before each
            of them.

    Raises:
        EngineError: the engine failed, or its logits are not finite.
    """
    now = out.clock
    sampler = sampler or Sampler(params)
    verifier = Verifier(engine, params, out, ngrams, sampler, handover)
    try:
        token = verifier.sample(logits)
        while True:
            sampled = now()
            if out.first_token_at is None:
                out.first_token_at = sampled
            out.last_token_at = sampled
            if token in eos:
                out.finish_reason = "eos"
                break
            if sampler.logprob is not None:
                out.logprobs.append(sampler.logprob)
            out.tokens.append(token)
            piece = text.push(token)
            out.detokenise_seconds += now() - sampled
            if piece:
                yield piece
            if out.cancellation.requested:
                return
            reason = _stop_reason(params, text, out, sampler.ended, verifier.full)
            if reason:
                out.finish_reason = reason
                break
            if handover is not None and verifier.offer(token):
                yield ""
                if out.cancellation.requested:
                    return
            token = verifier.after(token)
    finally:
        verifier.settle()
    rest = text.finish()
    if rest:
        yield rest


def _stop_reason(
    params: GenerationParams, text: TextStream, out: Generation, ended: bool, full: bool
) -> FinishReason | None:
    if text.stopped:
        return "stop"
    if ended:
        return "eos"
    if len(out.tokens) >= params.max_new_tokens:
        return "length"
    if full:
        return "context"
    return None
