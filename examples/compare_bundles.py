"""Ask two bundles the same questions and show where their answers differ.

    python examples/compare_bundles.py bundle-int8 bundle-int4 --page page.png

A bundle is named by its folder; `embedded` is the model in the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pulse_edge

SAMPLE = Path(pulse_edge.__file__).parent / "assets" / "sample.png"
QUESTIONS = ("What is the rhythm?", "What is the heart rate?", "Is there a bundle branch block?")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("bundles", nargs="*", default=["embedded", "embedded"])
parser.add_argument("--page", type=Path, default=SAMPLE)
arguments = parser.parse_args()

answers: dict[str, list[str]] = {question: [] for question in QUESTIONS}
for name in arguments.bundles:
    model = pulse_edge.load() if name == "embedded" else pulse_edge.load(name)
    for question in QUESTIONS:
        answers[question].append(model.ask(arguments.page, question, max_new_tokens=64).text)
    del model  # two models need not fit into memory together

for question, texts in answers.items():
    print(f"{'same  ' if len(set(texts)) == 1 else 'DIFFER'}  {question}")
    for name, text in zip(arguments.bundles, texts, strict=True):
        print(f"        {name}: {text}")
