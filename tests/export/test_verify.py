"""`compare` and its command: every verdict, on bundles that compute something else than they say.

A bundle is made from a checkpoint with one altered tensor, and its manifest then names the sound
checkpoint, under a new seal. So everything that is checked before the comparison holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.cli import main
from pulse_edge.errors import BundleError, ContextError, EngineError, ParameterError
from pulse_edge.page import views

from support import tiny
from support.fixture_types import Bundles, Checkpoints
from support.manifests import edit_manifest

pytest.importorskip("onnx", reason="verify --against needs pulse-edge[export]")
from pulse_export import verify
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.verify import FP32_BAR, Report, compare, kl_divergence, prompt_ids

Change = Callable[[tiny.Tensors], None]
Forge = Callable[..., Path]
EMBEDDINGS = "model.embed_tokens.weight"
PROJECTOR = "model.mm_projector.2.bias"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"
TOKENS = 6
PAGE = "44413f2cca94b0b02d99e4b9f957ad6036f09bb0e04ea9edf83b6eb065b813c5"  # SHA-256 of its pixels


def checkpoint_with(folder: Path, source: Path, change: Change) -> Path:
    """A copy of the checkpoint with changed tensors."""
    shutil.copytree(source, folder)
    tensors = tiny.llava_weights()
    change(tensors)
    tiny.write_weights(folder, tensors)
    return folder


@pytest.fixture
def forge(checkpoint: Path, tmp_path: Path) -> Forge:
    """`forge(change, against)`: a bundle with changed tensors that claims to be of `against`."""

    def make(change: Change, against: Path = checkpoint, precision: str = "fp32") -> Path:
        identity = dataclasses.asdict(Checkpoint(against).info())
        forged = tmp_path / "forged"
        export(checkpoint_with(tmp_path / "altered", checkpoint, change), forged,
               precision=precision)  # fmt: skip
        edit_manifest(forged, lambda data: data.update(checkpoint=identity))
        return forged

    return make


def report(bundle: Path, against: Path, tokens: int = TOKENS) -> Report:
    return compare(open_bundle(bundle), against, None, tokens, 1)


def errors(found: Report) -> dict[str, float]:
    return {stage.name: stage.relative for stage in found.stages}


def exit_code(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run `pulse-edge verify`: its exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def scaled(name: str, factor: float) -> Change:
    def change(tensors: tiny.Tensors) -> None:
        tensors[name] *= np.float32(factor)

    return change


# -- passed


def test_a_sound_bundle_passes(bundle: Path, checkpoint: Path) -> None:
    found = report(bundle, checkpoint)
    assert found.passed
    assert found.verdict == "features and logits are within 0.0001"
    assert (found.diverged_at, found.margin, found.tokens_compared) == (None, None, TOKENS)
    assert found.top1_agreement == 1
    assert found.logits_cosine_min > 0.999999
    assert found.kl_divergence_mean < 1e-6
    assert errors(found)["pixels"] == 0
    assert found.bundle == json.loads((bundle / MANIFEST).read_bytes())["seal"]
    assert found.checkpoint == str(checkpoint)
    assert "all equal" in str(found)
    assert str(found).splitlines()[-1].startswith("PASSED (fp32): ")


def test_the_command_ends_with_0(
    bundle: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = exit_code(capsys, bundle, "--against", checkpoint, "--tokens", 2)
    assert (code, err) == (0, "")
    assert "PASSED (fp32): features and logits are within 0.0001" in out


def test_a_sound_bundle_with_newlines_passes(bundles: Bundles, checkpoints: Checkpoints) -> None:
    """`spatial_unpad` puts a learned row behind each row of patches."""
    found = report(bundles(merge="spatial_unpad"), checkpoints(merge="spatial_unpad"))
    assert (found.passed, found.diverged_at) == (True, None)


@pytest.mark.parametrize("factor", [1 + 1e-5, 1 - 1e-5])
def test_an_error_below_the_bar_passes(forge: Forge, checkpoint: Path, factor: float) -> None:
    found = report(forge(scaled(HEAD, factor)), checkpoint)
    assert found.passed
    assert errors(found)["prefill logits"] == pytest.approx(abs(factor - 1), rel=0.5)


@pytest.mark.parametrize("change", [scaled(PROJECTOR, 1.5), scaled(NORM, 1.5), scaled(HEAD, -1)])
def test_another_precision_has_no_bar(forge: Forge, checkpoint: Path, change: Change) -> None:
    """What rounding costs is shown, and not judged."""
    found = report(forge(change, precision="int8"), checkpoint)
    assert max(errors(found).values()) > 10 * FP32_BAR
    assert found.passed
    assert found.verdict.startswith("pixels are equal; the other figures are what this precision")
    assert str(found).splitlines()[-1].startswith("PASSED (int8): pixels are equal")


def test_tokens_that_differ_at_a_tie_pass(
    checkpoint: Path, forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens 2k and 2k + 1 have equal rows in the head, so the reference takes the even one. In the
    bundle every odd row is longer by 3e-6 of its length, so it takes the odd one."""

    def tie(tensors: tiny.Tensors) -> None:
        tensors[HEAD][1::2] = tensors[HEAD][::2]

    def broken(tensors: tiny.Tensors) -> None:
        tie(tensors)
        tensors[HEAD][1::2] *= np.float32(1 + 3e-6)

    tied = checkpoint_with(tmp_path / "tied", checkpoint, tie)
    forged = forge(broken, against=tied)
    found = report(forged, tied)
    assert found.diverged_at == 0
    assert found.margin == pytest.approx(0, abs=1e-5)
    assert found.passed
    assert found.verdict == "features and logits are within 0.0001, tokens differ only at a tie"
    assert "first difference at 0, where the reference's margin is" in str(found)
    assert exit_code(capsys, forged, "--against", tied, "--tokens", 2)[0] == 0


# -- failed


def another_pixel(original: Any) -> Any:
    def preprocess(*arguments: Any) -> Any:
        pixels = original(*arguments).copy()
        pixels.flat[-1] = np.nextafter(pixels.flat[-1], np.float32(9))
        return pixels

    return preprocess


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8a8"])
def test_one_pixel_that_differs_by_a_bit_fails(
    bundles: Bundles, checkpoint: Path, precision: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(views, "preprocess", another_pixel(views.preprocess))
    found = report(bundles(precision), checkpoint, 1)
    assert (found.passed, found.verdict) == (False, "pixels must be equal to the bit")
    assert 0 < found.stages[0].max_error < 1e-6
    assert exit_code(capsys, bundles(precision), "--against", checkpoint, "--tokens", 1)[0] == 1


@pytest.mark.parametrize(
    ("name", "factor", "worst"),
    [
        (PROJECTOR, 1.01, "features"),
        (PROJECTOR, 0.9, "features"),
        ("model.mm_projector.0.weight", 0.99, "features"),
        (NORM, 1.001, "prefill logits"),
        (HEAD, 1.0003, "prefill logits"),
        (HEAD, -1.0, "prefill logits"),
        ("model.layers.0.self_attn.v_proj.weight", 1.01, "prefill logits"),
        ("model.layers.1.mlp.down_proj.weight", 1.01, "prefill logits"),
    ],
)
def test_an_error_over_the_bar_fails(
    forge: Forge, checkpoint: Path, name: str, factor: float, worst: str
) -> None:
    found = report(forge(scaled(name, factor)), checkpoint)
    assert not found.passed
    assert found.verdict.startswith("features and logits must be within 0.0001, but err by ")
    assert errors(found)[worst] > FP32_BAR
    if worst != "features":
        assert errors(found)["features"] < FP32_BAR
    shown = float(found.verdict.rpartition(" ")[2])
    assert shown == pytest.approx(max(errors(found).values()), rel=1e-2)


def without_first_answer(bundle: Path, checkpoint: Path, tensors: tiny.Tensors) -> None:
    """Change the embedding of the first token of the answer, which no prompt position reads."""
    prompt = set(prompt_ids(open_bundle(bundle)))
    rows = [row for row in range(len(tensors[EMBEDDINGS])) if row not in prompt]
    tensors[EMBEDDINGS][rows] = -tensors[EMBEDDINGS][rows]


def test_tokens_that_differ_without_a_tie_fail(
    bundle: Path, checkpoint: Path, forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prefill agrees, because only embeddings that the prompt does not use differ."""
    forged = forge(lambda tensors: without_first_answer(bundle, checkpoint, tensors))
    found = report(forged, checkpoint)
    assert max(errors(found).values()) < FP32_BAR
    assert found.diverged_at is not None
    assert found.diverged_at >= 1
    assert found.margin is not None
    assert found.margin > 2 * found.stages[2].max_error
    assert not found.passed
    assert found.verdict == "tokens differ where the reference does not see a tie"
    assert f"first difference at {found.diverged_at}," in str(found)
    assert str(found).splitlines()[-1] == (
        "FAILED (fp32): tokens differ where the reference does not see a tie"
    )
    code, out, err = exit_code(capsys, forged, "--against", checkpoint, "--tokens", TOKENS)
    assert code == 1
    assert "FAILED (fp32)" in out
    assert err.startswith("error: ")
    assert "does not agree with" in err
    assert err.count("\n") == 1


def test_a_failure_as_json_ends_with_1_too(
    forge: Forge, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = forge(scaled(NORM, 1.1))
    code, out, _ = exit_code(capsys, forged, "--against", checkpoint, "--tokens", 2, "--json")
    record = json.loads(out)
    assert code == 1
    assert record["passed"] is False
    assert record["verdict"].startswith("features and logits must be within")


# -- the figures


def test_figures_of_logits_of_another_length(forge: Forge, checkpoint: Path) -> None:
    """Logits of twice the length: their direction is the same, their distribution is not."""
    found = report(forge(scaled(HEAD, 2.0)), checkpoint)
    pixels, features, logits = found.stages
    assert (pixels.name, features.name, logits.name) == ("pixels", "features", "prefill logits")
    assert (pixels.max_error, pixels.relative) == (0, 0)
    assert logits.relative == pytest.approx(1, rel=1e-5)  # |2 x - x| / |x| at the largest
    assert found.logits_cosine_min == pytest.approx(1, abs=1e-5)
    assert found.logits_cosine_mean == pytest.approx(1, abs=1e-5)
    assert (found.top1_agreement, found.diverged_at) == (1, None)
    assert found.kl_divergence_mean > 0.1
    assert features.shape[1:] == (16, 64)  # 56 / 14 squared patches, of the decoder's width
    assert logits.shape[1] == tiny.VOCAB


def test_figures_of_logits_turned_round(forge: Forge, checkpoint: Path) -> None:
    found = report(forge(scaled(HEAD, -1.0)), checkpoint)
    assert found.stages[2].relative == pytest.approx(2, rel=1e-4)
    assert found.logits_cosine_min == pytest.approx(-1, abs=1e-5)
    assert found.logits_cosine_mean == pytest.approx(-1, abs=1e-5)
    assert (found.top1_agreement, found.diverged_at) == (0, 0)


def test_kl_divergence_by_hand() -> None:
    """Of (1/2, 1/2) against (1/4, 3/4): ln 2 - (ln 3) / 2. Of (3/4, 1/4) against the same:
    (ln 3) / 2. A constant on all logits changes nothing."""
    expected = np.log(np.array([[1, 1], [3, 1], [1, 3]], np.float32))
    got = np.log(np.array([[1, 3]] * 3, np.float32)) + 1000
    values = kl_divergence(expected, got)
    hand = [np.log(2) - np.log(3) / 2, np.log(3) / 2, 0]
    assert values == pytest.approx(hand, abs=1e-4)
    assert values.dtype == np.float64


# -- refused


@pytest.mark.parametrize("tokens", [0, -1])
def test_no_tokens(bundle: Path, checkpoint: Path, tokens: int) -> None:
    with pytest.raises(ParameterError, match=f"tokens is {tokens}, but must be a whole number"):
        report(bundle, checkpoint, tokens)


def test_more_tokens_than_the_context_holds(bundle: Path, checkpoint: Path) -> None:
    room = 512 - len(prompt_ids(open_bundle(bundle))) + 1 - 5 * 16
    assert report(bundle, checkpoint, room).tokens_compared == room
    with pytest.raises(ContextError, match=f"with {room + 1} more it exceeds 512"):
        report(bundle, checkpoint, room + 1)


def test_a_checkpoint_with_other_weights(bundle: Path, checkpoints: Checkpoints) -> None:
    with pytest.raises(BundleError, match=r"was not made from .*: their weights differ"):
        report(bundle, checkpoints(seed=7))


@pytest.mark.parametrize(
    "options",
    [{"merge": "spatial_unpad"}, {"aspect": "pad"}, {"rms_eps": 1e-6}, {"rope_theta": 5e5}],
)
def test_a_checkpoint_with_another_specification(
    bundle: Path, checkpoints: Checkpoints, options: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match="their model specifications differ"):
        report(bundle, checkpoints(**options))


def test_a_shorter_context_is_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "short", precision="fp32", context=300)
    assert report(tmp_path / "short", checkpoint).passed


def test_another_engine(bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(EngineError, match="engine tensorrt does not run"):
        compare(open_bundle(bundle), checkpoint, None, 2, 1, engine="tensorrt")


def test_the_page_that_is_drawn_for_it() -> None:
    """Fixed, so that figures of two days compare."""
    page = verify.test_page()
    assert (page.size, page.mode) == ((550, 425), "RGB")
    colours = {colour: count for count, colour in page.getcolors() or []}
    assert colours.keys() == {(255, 255, 255), (255, 200, 200), (0, 0, 0)}
    assert hashlib.sha256(page.tobytes()).hexdigest() == PAGE


def test_a_page_of_ones_own_and_progress(bundle: Path, checkpoint: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = compare(open_bundle(bundle), checkpoint, str(SAMPLE_PAGE), 2, 1,
                    lambda *call: told.append(call))  # fmt: skip
    assert found.passed
    assert told == [("reference", 1, 3)] * 3
