"""The command as a user types it: output, exit codes, one line for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from pulse_edge.bundle.manifest import MANIFEST, NOTICE
from pulse_edge.cli import cli
from pulse_edge.cli.registry import COMMANDS

from support.paths import DOCS, PROGRAM

Bundles = Callable[..., Path]
SCHEMA = json.loads((DOCS / "answer.schema.json").read_text())


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(a) for a in (PROGRAM, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def mistake(code: int, *arguments: object, **options: Any) -> str:
    """Run something that must fail with `code`, one line on stderr, nothing on stdout; return that
    line.
    """
    done = run(*arguments, **options)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (170, 220, 3), dtype=np.uint8)).save(
        path
    )
    return path


def test_version() -> None:
    assert run("--version").stdout.startswith("pulse-edge, version 0.")


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_help(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    options = cli.commands[command].params if command else []
    for option in options:
        if option.param_type_name == "option":
            assert option.opts[0] in done.stdout
        else:
            assert (option.metavar or option.name.upper()) in done.stdout


def test_the_table_of_commands_is_the_group() -> None:
    """Each row has a module with its command, and none is left out."""
    assert list(cli.commands) == list(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--build",), "--build goes with --target standard"),
        (("--device", "t4"), "--device goes with --target tensorrt, or --build"),
        (("--target", "tpu"), "'cpu', 'cuda', 'standard', 'tensorrt'"),
        (("--context", "0"), "not in the range x>=1"),
    ],
)
def test_options_of_an_export_that_make_no_sense(arguments: tuple[str, ...], message: str) -> None:
    done = run("export", "checkpoint", "out", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_an_engine_can_be_named(bundle: Path, page: Path) -> None:
    assert "'none' is not one of auto" in mistake(2, "ask", page, "-m", bundle, "--engine", "none")


def test_answer_on_the_terminal(bundle: Path, page: Path) -> None:
    streamed = run("ask", page, "-m", bundle, "-q", "Is it regular?", "--max-new-tokens", 12)
    assert streamed.returncode == 0
    assert all(line.startswith("warning: ") for line in streamed.stderr.splitlines())
    text, _, footer = streamed.stdout.rpartition("\n[")
    assert "fp32" in footer
    assert "onnxruntime" in footer
    assert footer.endswith(NOTICE + "\n")
    whole = run(
        "ask", page, "-m", bundle, "-q", "Is it regular?", "--max-new-tokens", 12, "--no-stream"
    )
    assert whole.stdout.rpartition("\n[")[0] == text


def test_answer_as_json(bundle: Path, page: Path) -> None:
    done = run(
        "ask",
        page,
        "-m",
        bundle,
        "--json",
        "--max-new-tokens",
        5,
        "--temperature",
        0.5,
        "--seed",
        3,
    )
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    assert answer["usage"]["new_tokens"] == len(answer["token_ids"]) <= 5
    assert answer["provenance"]["bundle"] == json.loads((bundle / MANIFEST).read_text())["seal"]
    assert answer["provenance"]["parameters"]["seed"] == 3
    assert answer["notice"] == NOTICE


def test_info_and_verify(bundle: Path, checkpoint: Path) -> None:
    assert "LlavaLlamaForCausalLM" in run("info", bundle).stdout
    manifest = json.loads(run("info", bundle, "--json").stdout)
    assert manifest == json.loads((bundle / MANIFEST).read_text())
    assert "intact" in run("verify", bundle).stdout
    assert json.loads(run("verify", bundle, "--json").stdout)["intact"] is True
    done = run("verify", bundle, "--against", checkpoint, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["passed"]
    assert report["diverged_at"] is None
    assert report["tokens_compared"] == 64
    assert {s["name"]: s["relative"] < 1e-4 for s in report["stages"]} == {
        "pixels": True, "features": True, "prefill logits": True,
    }  # fmt: skip
    assert "PASSED (fp32)" in run("verify", bundle, "--against", checkpoint, "--tokens", 4).stdout


def test_verify_finds_a_bundle_of_another_checkpoint(bundles: Bundles) -> None:
    other = bundles(seed=7)
    assert "their weights differ" in mistake(
        4, "verify", bundles(), "--against", Path(_source(other))
    )


def _source(bundle: Path) -> Path:
    """The checkpoint that a bundle of the fixtures was made from, found by its hash."""
    from pulse_edge.bundle.bundle import open_bundle
    from pulse_export.checkpoint import Checkpoint

    wanted = open_bundle(bundle).manifest.checkpoint.sha256
    candidates = bundle.parent.parent.glob("checkpoint*/tiny")
    return next(c for c in candidates if Checkpoint(c).info().sha256 == wanted)


def test_export_says_what_it_wrote(checkpoint: Path, tmp_path: Path) -> None:
    done = run("export", checkpoint, tmp_path / "out", "--precision", "int4", "--block-size", 64)
    assert done.returncode == 0
    assert "decoder.onnx.data" in done.stdout
    assert "peak memory" in done.stdout
    done = run("export", checkpoint, tmp_path / "out", "--force", "--json")
    assert json.loads(done.stdout)["precision"] == "int8"


def test_mistakes_have_their_codes(
    bundle: Path, checkpoint: Path, page: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    assert "cannot be read" in mistake(3, "ask", tmp_path / "none.png", "-m", bundle)
    assert "not an image" in mistake(3, "ask", text, "-m", bundle)
    assert "no bundle at" in mistake(4, "ask", page, "-m", tmp_path / "none")
    assert "looks like a checkpoint" in mistake(4, "info", checkpoint)
    assert "more" in mistake(5, "ask", page, "-m", bundle, "-q", "rate " * 2000)
    assert "'npu' is not one of auto, cpu, cuda" in mistake(
        2, "ask", page, "-m", bundle, "--device", "npu"
    )
    assert "no checkpoint at" in mistake(7, "export", tmp_path / "none", tmp_path / "out")
    assert "exists" in mistake(8, "export", checkpoint, bundle)
    assert "top_p is 3.0" in mistake(2, "ask", page, "-m", bundle, "--top-p", 3)
    assert "the question is empty" in mistake(2, "ask", page, "-m", bundle, "-q", " ")
    assert run("ask", page, "--no-such-option").returncode == 2


def test_a_damaged_bundle_gives_one_line_and_no_answer(
    bundle: Path, page: Path, tmp_path: Path
) -> None:
    """One byte in each file; and the manifest's other ways to be wrong, through every command that
    opens a bundle.
    """
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for number, file in enumerate(sorted(copy.iterdir())):
        whole = file.read_bytes()
        at = len(whole) // 2
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        commands = (
            ("ask", page, "-m", copy),
            ("info", copy),
            ("verify", copy),
            ("chat", page, "-m", copy),
        )
        assert str(file) in mistake(4, *commands[number % 4])
        file.write_bytes(whole)
    manifest = json.loads((copy / MANIFEST).read_text())
    for fields, message in (
        ({"schema_version": 2}, "schema version 2, this pulse-edge reads 1"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"target": "tpu"}, "'tpu' is not one of cpu, cuda"),
        ({"notice": ""}, "edited by hand or damaged"),
    ):
        (copy / MANIFEST).write_text(json.dumps(manifest | fields))
        assert message in mistake(4, "ask", page, "-m", copy)
    (copy / MANIFEST).unlink()
    assert f"no {MANIFEST}" in mistake(4, "info", copy)


def test_an_error_is_one_line_whatever_the_user_typed(tmp_path: Path) -> None:
    assert "no bundle at" in mistake(4, "info", tmp_path / "a\nb\r\nc")
    assert "no checkpoint at" in mistake(7, "export", "a\nb", tmp_path / "out")


def test_a_terminal_that_cannot_show_a_character(bundle: Path, tmp_path: Path) -> None:
    western = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = run("info", bundle, env=western)
    assert done.returncode == 0, done.stderr
    assert "\\u2026" in done.stdout  # the ellipsis after a hash
    assert "\\u5fc3" in mistake(4, "info", tmp_path / "\u5fc3", env=western)


def test_the_context_error_says_the_numbers(bundle: Path, page: Path) -> None:
    line = mistake(5, "ask", page, "-m", bundle, "--context", 100)
    assert "80 of the image" in line
    assert "the context 100" in line


@pytest.mark.parametrize(
    ("blocked", "code", "arguments", "message"),
    [
        ("onnxruntime", 6, ("ask", "{page}", "-m", "{bundle}"), "pip install 'pulse-edge[cpu]'"),
        ("onnx", 8, ("export", "{checkpoint}", "{out}"), "pip install 'pulse-edge[export]'"),
        ("rich", 8, ("export", "{checkpoint}", "{out}"), "pip install 'pulse-edge[export]'"),
        ("pydicom", 3, ("draw", "{recording}", "{out}.png"), "pip install 'pulse-edge[ecg]'"),
    ],
)
def test_missing_packages_are_named_with_the_command(
    blocked: str, code: int, arguments: tuple[str, ...], message: str,
    bundle: Path, checkpoint: Path, page: Path, tmp_path: Path,
) -> None:  # fmt: skip
    recording = tmp_path / "recording.dcm"
    recording.write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{blocked!r}] = None")
    places = {
        "bundle": bundle,
        "checkpoint": checkpoint,
        "page": page,
        "out": tmp_path / "out",
        "recording": recording,
    }
    line = mistake(
        code,
        *(a.format(**places) for a in arguments),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert message in line


def test_a_reader_that_leaves_is_no_error_to_talk_about(bundle: Path, page: Path) -> None:
    ask = f"{PROGRAM} ask {page} -m {bundle} --max-new-tokens 300 --json"
    done = subprocess.run(
        ["bash", "-c", f"{ask} | head -c 1"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_interrupt_while_answering(bundle: Path, page: Path, tmp_path: Path) -> None:
    """SIGINT at the third decode step."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        # a shell's background job has it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import pulse_edge.decode.loop as g\n"
        "calls, after = [], g.Verifier.after\n"
        "def call(self, token):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return after(self, token)\n"
        "g.Verifier.after = call\n"
    )
    done = run("ask", page, "-m", bundle, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted"  # click puts a newline after the terminal's ^C


def test_chat(bundles: Bundles, page: Path) -> None:
    roomy = bundles("int8", context=2048)
    done = run(
        "chat", page, "-m", roomy, "--max-new-tokens", 6, input="What is the rate?\nAnd the axis?\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[tiny int8") == 2
    assert done.stdout.count(NOTICE) == 2
    assert NOTICE in done.stderr
    assert run("chat", page, "-m", roomy, input="").returncode == 0


def test_draw_and_ask_a_recording(bundle: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    recording = pydicom.data.get_testdata_file("waveform_ecg.dcm")
    done = run("draw", recording, tmp_path / "page.png", "--layout", "6x2", "--header", "test")
    assert done.stdout.endswith("2200 x 1700 pixels, 10.0 s at 1000 Hz\n")
    assert Image.open(tmp_path / "page.png").size == (2200, 1700)
    assert "cannot be written" in mistake(1, "draw", recording, tmp_path / "page.nothing")
    answer = json.loads(run("ask", recording, "-m", bundle, "--json", "--max-new-tokens", 2).stdout)
    assert (answer["provenance"]["image"]["width"], answer["provenance"]["image"]["height"]) == (
        2200,
        1700,
    )
