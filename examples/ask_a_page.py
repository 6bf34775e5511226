"""Ask one question about one page.

    python examples/ask_a_page.py page.png --question "What is the rhythm?" --model my-bundle

Without arguments it asks the embedded model about the sample page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pulse_edge

SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("page", nargs="?", type=Path, default=SAMPLE)
parser.add_argument("--question", default="What is the heart rate?")
parser.add_argument("--model", help="a bundle [default: the embedded model]")
arguments = parser.parse_args()

model = pulse_edge.load(arguments.model) if arguments.model else pulse_edge.load()
answer = model.ask(arguments.page, arguments.question, max_new_tokens=64)

print(answer.text)
print(f"first token after {answer.timings.ttft:.2f} s, {answer.usage.prompt_tokens} prompt tokens")
print(answer.notice)
