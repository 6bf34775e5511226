"""Several turns about one page: the page is computed once.

    python examples/chat_about_a_page.py page.png "What is the rhythm?" "What is the heart rate?"

Without arguments it asks three questions about the sample page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pulse_edge

SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"
QUESTIONS = ("What is the rhythm?", "What is the heart rate?", "Is there ST elevation?")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("page", nargs="?", type=Path, default=SAMPLE)
parser.add_argument("questions", nargs="*", default=QUESTIONS)
arguments = parser.parse_args()

chat = pulse_edge.load().chat(arguments.page)
for question in arguments.questions:
    answer = chat.ask(question, max_new_tokens=64)
    reused = f"{answer.usage.cached_tokens} of {answer.usage.prompt_tokens} prompt tokens reused"
    print(f"Q: {question}\nA: {answer.text}\n   first token: {answer.timings.ttft:.2f} s, {reused}")
