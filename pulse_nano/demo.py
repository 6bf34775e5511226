"""`make demo`: three questions about the sample page, with what each stage took."""

from __future__ import annotations

import pulse_edge
from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION, SAMPLE_PAGE

SAMPLE = SAMPLE_PAGE
QUESTIONS = (
    RATE_QUESTION,
    "What is the rhythm?",
    REPORT_QUESTION,
)
STAGES = ("decode_image", "preprocess", "vision", "prefill", "ttft", "tpot", "total")


def main() -> None:
    model = pulse_edge.load()
    print(
        f"page: {SAMPLE.name} "
        "(simulated: sinus rhythm, 74 beats a minute, right bundle branch block)\n"
    )
    answers = [model.ask(SAMPLE, question) for question in QUESTIONS]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        print(f"Q: {question}\nA: {answer.text}\n")
    print(
        f"{'milliseconds':<16}"
        + "".join(f"{'question ' + str(n + 1):>14}" for n in range(len(answers)))
    )
    for stage in STAGES:
        values = (getattr(answer.timings, stage) or 0.0 for answer in answers)
        print(f"{stage:<16}" + "".join(f"{1000 * value:>14.1f}" for value in values))
    cached = (f"{a.usage.cached_tokens} of {a.usage.prompt_tokens}" for a in answers)
    print(f"{'cached tokens':<16}" + "".join(f"{text:>14}" for text in cached))
    print(f"\n{answers[0].notice} pulse-nano was trained on simulated pages only.")


if __name__ == "__main__":
    main()
