"""pulse-nano on public recordings of carts, as a page: what it says, and which of it is wrong.

    python -m benchmarks.real_recordings FOLDER... [--out docs/real-recordings.md]

Files are known by their content (`known.py`), whatever they are called here; pydicom's example is
found by itself. Needs `pulse-edge[cpu,formats]`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pulse_edge
from benchmarks.real_recordings.judgement import (
    TOLERANCES,
    WrongStatement,
    heart_rate,
    wrong_statements,
)
from benchmarks.real_recordings.known import KNOWN, KnownRecording
from pulse_edge.assets import EMBEDDED
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.ecg.readers.registry import read_recording
from pulse_edge.ecg.recording import Recording
from pulse_edge.known import QUANTITIES

SHOWN = ("PR interval", "QRS duration", "QT interval", "QRS axis")
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Section:
    """A recording, and what the model says of it.

    Attributes:
        known: of the recording.
        names: of its files that were at hand.
        rate: beats a minute, and who says so.
        measured: the cart's values and the rate.
        answers: text by question of the panel.
        said_rate: beats a minute, as the model says; None if it says none.
        wrong: what contradicts what is known.
    """

    known: KnownRecording
    names: tuple[str, ...]
    rate: tuple[float, str]
    measured: dict[str, float]
    answers: dict[str, str]
    said_rate: float | None
    wrong: list[WrongStatement]


def files_of(folders: Iterable[Path]) -> dict[str, Path]:
    """Files by their SHA-256, of folders and of pydicom's package."""
    places = [path for folder in folders for path in sorted(folder.rglob("*"))]
    package = importlib.util.find_spec("pydicom")
    if package is not None and package.origin is not None:
        places += sorted(Path(package.origin).parent.glob("data/test_files/waveform_ecg.dcm"))
    readable = [path for path in places if path.is_file() and path.stat().st_size <= MOST_BYTES]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in readable}


def ask_about_recording(
    model: pulse_edge.Model, known: KnownRecording, paths: dict[str, Path]
) -> list[Section]:
    """A section for each set of answers: files of one recording mostly give the same.

    Args:
        model: that is asked.
        known: of the recording.
        paths: its files by their public names.
    """
    sections: list[tuple[list[str], dict[str, str], Recording]] = []
    for name, path in paths.items():
        recording = read_recording(path)
        questions = model.panel(recording).to_dict()["panel"]["questions"]
        answers = {question["id"]: question["text"] for question in questions}
        same = next((names for names, texts, _ in sections if texts == answers), None)
        if same is None:
            sections.append(([name], answers, recording))
        else:
            same.append(name)
    return [_section(known, tuple(names), texts, first) for names, texts, first in sections]


def _section(
    known: KnownRecording, names: tuple[str, ...], answers: dict[str, str], recording: Recording
) -> Section:
    rate, source = heart_rate(recording)
    measured = {**recording.cart.measurements, "heart rate": rate}
    digits = "".join(each for each in answers["rate"] if each.isdigit())
    wrong = wrong_statements(answers.values(), known, measured)
    said = float(digits) if digits else None
    return Section(known, names, (rate, source), measured, answers, said, wrong)


def page_of(sections: list[Section], model: str) -> str:
    """The page in Markdown.

    Args:
        sections: of the recordings.
        model: a line that names the model.
    """
    return "\n".join([*_head(sections, model), *_table(sections), *_details(sections)])


def _head(sections: list[Section], model: str) -> Iterator[str]:
    near = sum(_rate_is_right(section) for section in sections)
    stated = [section for section in sections if section.known.rhythm is not None]
    rhythms = sum(_rhythm_is_right(section) for section in stated)
    yield f"""# Real recordings

**{NOTICE}**

What pulse-nano, the demonstration model, says of public recordings of carts. It was trained on
simulated pages only, and these are far too few to measure it. They show which of its statements not
to expect on a cart's ECG. Nothing here is about PULSE-7B.

Each recording was drawn as `pulse-edge ask` draws it, and asked the panel `pulse-nano`. *Known* is
what the file holds: the cart's statements and values, which no physician has confirmed. A sentence
is *wrong* if it contradicts them: another rhythm, a finding that the cart does not list, a value
further off than {_tolerances()}.
What nobody states is not judged.

Model: {model}. Written by

```
python -m benchmarks.real_recordings FOLDER...
```

from a folder with the files below.

Of {len(sections)} recordings the rate is within 5 bpm in {near}. The rhythm is as stated in
{rhythms} of the {len(stated)} where it is stated.
"""


def _tolerances() -> str:
    texts = []
    for name, value in TOLERANCES.items():
        unit = QUANTITIES[name].unit
        texts.append(f"{value:.0f} {'bpm' if unit == '/min' else unit} ({name})")
    return ", ".join(texts)


def _table(sections: list[Section]) -> Iterator[str]:
    yield "| recording | rate: known, said | rhythm: known, said | wrong sentences |"
    yield "| --- | --- | --- | --- |"
    for section in sections:
        said = "none" if section.said_rate is None else f"{section.said_rate:.0f}"
        yield (
            f"| {section.known.title} | {section.rate[0]:.0f}, {said} "
            f"| {section.known.rhythm or 'not stated'}, {_rhythm_of(section)} "
            f"| {len(section.wrong)} |"
        )


def _details(sections: list[Section]) -> Iterator[str]:
    for section in sections:
        rate, source = section.rate
        values = [
            f"{name} {section.measured[name]:.0f} {QUANTITIES[name].unit}"
            for name in SHOWN
            if name in section.measured
        ]
        yield f"\n## {section.known.title}\n"
        yield f"* Files: {', '.join(section.names)}; from {section.known.source}."
        yield f"* Stated: {section.known.label}."
        yield f"* Measured: rate {rate:.0f} bpm ({source}), {', '.join(values)}."
        yield f"* pulse-nano's report: {section.answers['report'].strip()}"
        others = {
            name: text for name, text in section.answers.items() if name not in ("report", "rate")
        }
        yield f"* Its other answers: {' '.join(text.strip() for text in others.values())}"
        if not section.wrong:
            yield "* Wrong: nothing that the file could contradict."
            continue
        yield "* Wrong:"
        yield from (f'  * "{each.sentence}": {each.reason}.' for each in section.wrong)


def _rate_is_right(section: Section) -> bool:
    said = section.said_rate
    return said is not None and abs(said - section.rate[0]) <= TOLERANCES["heart rate"]


def _rhythm_is_right(section: Section) -> bool:
    return section.known.rhythm == _rhythm_of(section)


def _rhythm_of(section: Section) -> str:
    return section.answers["rhythm"].strip().removeprefix("The rhythm is ").removesuffix(".")


def main(arguments: list[str] | None = None) -> None:
    """Ask about the files that are at hand, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, help="Markdown file [default: stdout].")
    options = parser.parse_args(arguments)
    paths = files_of(options.folders)
    model = pulse_edge.load(EMBEDDED)
    sections: list[Section] = []
    for known in KNOWN:
        here = {name: paths[digest] for digest, name in known.files.items() if digest in paths}
        missing = [name for name in known.files.values() if name not in here]
        if missing:
            print(f"not at hand: {', '.join(missing)}")
        sections += ask_about_recording(model, known, here)
    bundle = model.bundle
    name = f"{bundle.manifest.checkpoint.name} {bundle.manifest.precision.name}"
    page = page_of(sections, f"{name}, bundle {bundle.digest[:12]}") + "\n"
    if options.out is None:
        print(page, end="")
    else:
        options.out.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
