"""One request on real tiny models: what it reuses, what ends it, what it reports."""

from __future__ import annotations

import io
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.errors import ContextError, ImageError, ParameterError
from pulse_edge.page.source import ImageSource, read_page
from pulse_export.pipeline import export

from support import process, soak
from support.fixture_types import Bundles
from support.paths import ROOT
from support.requests import Q1, Q2, encoded, fresh, page

# --- the same answer every way --------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 1.5, "top_k": 50, "top_p": 0.95, "seed": 7}]
)
def test_asking_is_streaming_joined(model: pulse_edge.Model, params: dict[str, Any]) -> None:
    asked = model.ask(page(), Q1, max_new_tokens=60, **params)
    stream = model.stream(page(), Q1, max_new_tokens=60, **params)
    pieces = list(stream)
    assert len(pieces) > 10
    assert all(pieces)
    assert "".join(pieces) == asked.text == stream.text == stream.answer.text == str(asked)
    assert stream.answer.token_ids == asked.token_ids
    assert stream.answer is stream.answer


def test_seeds_give_the_same_answer_and_others_another(model: pulse_edge.Model) -> None:
    seeds = (3, 3, 4)
    answers = [
        model.ask(page(), Q1, max_new_tokens=30, temperature=1.0, seed=seed).token_ids
        for seed in seeds
    ]
    assert answers[0] == answers[1] != answers[2]


SCRIPT = """
import json, sys, numpy as np, pulse_edge
array = np.random.default_rng(0).integers(0, 256, (110, 150, 3), np.uint8)
model = pulse_edge.load(sys.argv[1], threads=1)
ask = lambda t: model.ask(array, "What is the rate?", max_new_tokens=40, temperature=t)
answers = [ask(0), ask(1.0)]
print(json.dumps([[a.text, a.token_ids, a.provenance] for a in answers]))
"""


def test_two_processes_answer_alike(bundle: Path, model: pulse_edge.Model) -> None:
    command = [sys.executable, "-c", SCRIPT, str(bundle)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    here = [model.ask(page(), Q1, max_new_tokens=40, temperature=t) for t in (0, 1.0)]
    assert json.loads(json.dumps([[a.text, a.token_ids, a.provenance] for a in here])) == runs[0]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_prefill_in_chunks_changes_nothing(bundle: Path, chunk: int) -> None:
    chunked = pulse_edge.load(bundle, threads=1, prefill_chunk=chunk).ask(
        page(), Q1, max_new_tokens=64
    )
    whole = pulse_edge.load(bundle, threads=1, prefill_chunk=0).ask(page(), Q1, max_new_tokens=64)
    assert chunked.token_ids == whole.token_ids


# --- what is reused -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_a_known_image_is_not_computed_again(bundles: Bundles, precision: str, merge: str) -> None:
    bundle = bundles(precision, merge=merge)
    model = pulse_edge.load(bundle, threads=1)
    first = model.ask(page(), Q1, max_new_tokens=40)
    second = model.ask(page(), Q2, max_new_tokens=40)
    assert (first.usage.cached_tokens, second.usage.image_tokens) == (0, first.usage.image_tokens)
    template = second.usage.cached_tokens - second.usage.image_tokens
    assert 0 < template < second.usage.prompt_tokens - second.usage.image_tokens
    assert (second.timings.preprocess, second.timings.vision) == (0, 0)
    assert (second.text, second.token_ids) == (
        (expected := fresh(bundle, page(), Q2)).text,
        expected.token_ids,
    )
    again = model.ask(page(), Q2, max_new_tokens=40)
    assert (
        again.usage.cached_tokens == again.usage.prompt_tokens - 1
    )  # one token must run, for its logits
    assert again.token_ids == second.token_ids


@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_switching_images_and_back(bundles: Bundles, precision: str, kept: int) -> None:
    bundle = bundles(precision)
    model = pulse_edge.load(bundle, threads=1, kept_bytes=kept)
    seen = set()
    requests = [
        (page(0), Q1),
        (page(1), Q1),
        (page(0), Q1),
        (None, Q1),
        (page(2, (300, 80)), Q2),
        (page(0), Q2),
    ]
    for image, question in requests:
        answer = model.ask(image, question, max_new_tokens=40)
        assert answer.token_ids == fresh(bundle, image, question).token_ids
        if image is not None:
            known = kept > 0 and image.tobytes() in seen
            # The template before the image at most, or the image too.
            assert (answer.usage.cached_tokens > 80) == known
            seen.add(image.tobytes())


def test_the_same_pixels_from_other_sources(model: pulse_edge.Model, tmp_path: Path) -> None:
    """Told apart in provenance, but not computed again; a file's own bytes are not even decoded
    again.
    """
    path = tmp_path / "page.png"
    path.write_bytes(encoded(page(), "PNG"))
    first = model.ask(path, Q1, max_new_tokens=20)
    sources: list[tuple[ImageSource, str]] = [
        (path.read_bytes(), "PNG"),
        (io.BytesIO(path.read_bytes()), "PNG"),
        (encoded(page(), "BMP"), "BMP"),
        (encoded(page(), "BMP"), "BMP"),
        (page(), "RGB"),
        (Image.open(path), "PNG"),
    ]
    decoded = []
    for source, form in sources:
        answer = model.ask(source, Q1, max_new_tokens=20)
        assert answer.token_ids == first.token_ids
        assert answer.provenance["image"] == first.provenance["image"] | {"format": form}
        assert (answer.usage.cached_tokens, answer.timings.vision) == (
            answer.usage.prompt_tokens - 1,
            0,
        )
        decoded.append(answer.timings.decode_image > 0)
    assert decoded == [False, False, True, False, True, True]
    changed = page()
    changed[0, 0, 0] ^= 255
    assert model.ask(changed, Q1, max_new_tokens=1).timings.vision > 0


def test_the_second_question_is_answered_sooner(bundles: Bundles) -> None:
    big = {
        "image_size": 112,
        "grids": ((112, 224), (224, 112), (224, 224)),
        "hidden": 192,
        "ffn": 512,
        "layers": 4,
    }
    model = pulse_edge.load(bundles(**big), threads=1)
    cold: list[float] = []
    warm: list[float] = []
    for seed in range(6):
        answers = [model.ask(page(seed, (600, 500)), q, max_new_tokens=1) for q in (Q1, Q2)]
        for times, answer in zip((cold, warm), answers, strict=True):
            assert answer.timings.ttft is not None
            times.append(answer.timings.ttft)
    assert answers[0].usage.image_tokens == 320
    assert statistics.median(warm) < 0.7 * statistics.median(cold)


def test_without_an_image(bundle: Path, model: pulse_edge.Model) -> None:
    answer = model.ask(None, Q1, max_new_tokens=20)
    assert (answer.usage.image_tokens, answer.provenance["image"], answer.timings.vision) == (
        0,
        None,
        0,
    )
    assert "<image>" not in answer.provenance["prompt"]
    model.ask(page(), Q1, max_new_tokens=20)
    assert model.ask(None, Q1, max_new_tokens=20).token_ids == answer.token_ids


def test_a_recording_is_drawn_first(bundle: Path, model: pulse_edge.Model) -> None:
    """Handed in as an object or as a file, and by a chat."""
    time = np.arange(5000) / 500
    one, two, *chest = [np.sin(2 * np.pi * time * (1 + i / 5)) for i in range(8)]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    signals = np.stack([*limb, *chest])
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    recording = pulse_edge.Recording(signals.astype(np.float32), 500, leads)
    drawn = pulse_edge.draw_page(recording)
    expected = fresh(bundle, drawn, Q1)
    answer = model.ask(recording, Q1, max_new_tokens=40)
    assert answer.token_ids == expected.token_ids
    facts = answer.provenance["image"]
    assert facts.pop("recording")["layout"] == "3x4"
    assert facts == expected.provenance["image"] | {"format": "array"}
    assert read_page(recording).sha256 == read_page(drawn).sha256
    assert model.chat(recording).ask(Q1, max_new_tokens=40).token_ids == expected.token_ids


def test_the_path_of_a_recording(bundle: Path, model: pulse_edge.Model, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = pydicom.data.get_testdata_file("waveform_ecg.dcm")
    drawn = pulse_edge.draw_page(pulse_edge.read_recording(path))
    for source in (path, Path(path)):
        answer = model.ask(source, Q1, max_new_tokens=9)
        assert answer.token_ids == fresh(bundle, drawn, Q1, max_new_tokens=9).token_ids
    broken = tmp_path / "recording.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(pulse_edge.RecordingError, match=r"recording\.dcm"):
        model.stream(broken, Q1)


# --- what ends an answer --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 17])
def test_length(model: pulse_edge.Model, count: int) -> None:
    answer = model.ask(page(), Q1, max_new_tokens=count)
    assert (answer.finish_reason, len(answer.token_ids), answer.usage.new_tokens) == (
        "length",
        count,
        count,
    )
    assert len(answer.timings.decode_steps) == count - 1


def test_the_end_token(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    """The same weights, with one more end token, which they are known to generate."""
    known = fresh(bundle, page(), Q1).token_ids
    at = next(i for i, token in enumerate(known) if i >= 7 and token not in known[:i])
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    for file in ("config.json", "generation_config.json"):
        config = json.loads((checkpoint / file).read_text())
        (tmp_path / "checkpoint" / file).write_text(
            json.dumps(config | {"eos_token_id": [2, known[at]]})
        )
    export(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    answer = fresh(tmp_path / "bundle", page(), Q1)
    assert (answer.finish_reason, answer.token_ids) == ("eos", known[:at])
    assert len(answer.timings.decode_steps) == at
    assert answer.text == fresh(bundle, page(), Q1, max_new_tokens=at).text


def test_stop_strings(model: pulse_edge.Model) -> None:
    whole = model.ask(page(), Q1, max_new_tokens=40)
    for start, end in ((0, 2), (5, 9), (20, 21), (12, 30)):
        stop = whole.text[start:end]
        stream = model.stream(page(), Q1, max_new_tokens=40, stop=["never", stop])
        answer = stream.answer
        assert (answer.finish_reason, answer.text) == (
            "stop",
            whole.text[: whole.text.index(stop)].strip(),
        )
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
        assert len(answer.token_ids) < 40


@pytest.mark.parametrize("room", [1, 2, 5])
def test_the_end_of_the_context(bundle: Path, room: int) -> None:
    """The last token needs no room: nothing is computed from it."""
    known = fresh(bundle, page(), Q1)
    capacity = known.usage.prompt_tokens + room
    answer = pulse_edge.load(bundle, threads=1, context=capacity).ask(page(), Q1)
    assert (answer.finish_reason, answer.token_ids) == ("context", known.token_ids[: room + 1])


def test_a_prompt_that_does_not_fit_says_the_numbers(bundle: Path) -> None:
    usage = fresh(bundle, page(), Q1).usage
    text = usage.prompt_tokens - 80
    for capacity in (usage.prompt_tokens, 90):
        model = pulse_edge.load(bundle, threads=1, context=capacity)
        message = (
            rf"{usage.prompt_tokens} tokens \(80 of the image, {text} of text\) "
            rf"and the context {capacity}"
        )
        with pytest.raises(ContextError, match=message):
            model.ask(page(), Q1)
        answer = model.ask(None, "a", max_new_tokens=3)
        assert answer.token_ids == fresh(bundle, None, "a", max_new_tokens=3).token_ids


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda m: m.ask(b"nonsense", Q1), ImageError),
        (lambda m: m.ask("missing.png", Q1), ImageError),
        (lambda m: m.ask(page(), " "), ParameterError),
        (lambda m: m.ask(page(), Q1, temperature=-1), ParameterError),
        (lambda m: m.ask(page(1), "rate " * 500), ContextError),
    ],
)
def test_errors_leave_the_model_as_it_was(
    bundle: Path,
    model: pulse_edge.Model,
    ask: Callable[[pulse_edge.Model], Any],
    error: type[Exception],
) -> None:
    first = model.ask(page(), Q1, max_new_tokens=40)
    with pytest.raises(error):
        ask(model)
    assert model.ask(page(), Q1, max_new_tokens=40).token_ids == first.token_ids
    assert (
        model.ask(page(1), Q2, max_new_tokens=40).token_ids == fresh(bundle, page(1), Q2).token_ids
    )


# --- what an answer tells -------------------------------------------------------------------------


def test_provenance(bundle: Path, model: pulse_edge.Model) -> None:
    manifest = open_bundle(bundle).manifest
    file = encoded(page(), "PNG")
    answer = model.ask(file, Q1, max_new_tokens=3, temperature=0.5, stop="x")
    told = json.loads(json.dumps(answer.to_dict()))
    assert told["notice"] == NOTICE
    made = told["provenance"]
    assert (made["bundle"], made["checkpoint"]["sha256"]) == (
        manifest.seal,
        manifest.checkpoint.sha256,
    )
    assert made["image"] == {
        "sha256": read_page(file).sha256,
        "width": 150,
        "height": 110,
        "format": "PNG",
        "exif_orientation": 1,
        "alpha": "none",
        "pages": 1,
        "notes": [],
        "views": 5,
        "tokens": 80,
    }
    assert made["prompt"].endswith(f"USER: <image>\n{Q1} ASSISTANT:")
    assert made["parameters"] == {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "seed": 0,
        "stop": ["x"],
        "speculate": False,
        "logprobs": None,
        "schema": None,
    }
    assert made["engine"]["device"] == "cpu"
    assert {"pulse-edge", "numpy", "pillow", "sentencepiece", "python"} <= made["versions"].keys()
    made_by_others = model.ask(file, Q1, max_new_tokens=3).provenance
    made_by_others["image"]["sha256"] = made_by_others["versions"]["numpy"] = "changed by its owner"
    assert "changed by its owner" not in str(model.ask(file, Q1, max_new_tokens=3).provenance)


def test_memory_does_not_grow(bundles: Bundles) -> None:
    """Some rounds of support/soak.py, in a process that has nothing else to remember or free."""
    done = process.run(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        import pulse_edge
        from support import soak

        model = pulse_edge.load(sys.argv[2], threads=1)
        rng = np.random.default_rng(0)
        for _ in range(12):
            soak.one_round(model, rng)
        before = soak.resident()
        assert sum(soak.one_round(model, rng) for _ in range(12)) > 50
        print(soak.resident() - before)
        """,
        ROOT / "tests",
        bundles("int8", context=1024),
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < soak.BAR
