"""A few steps of both training stages, and the checkpoint they write. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
CliRunner = pytest.importorskip("click.testing").CliRunner

from pulse_nano import data, pretrain, train  # noqa: E402
from pulse_nano.checkpoint import SYSTEM  # noqa: E402
from pulse_nano.model import Nano, Size  # noqa: E402
from pulse_nano.pages import write_shard  # noqa: E402
from pulse_nano.questions import random_findings, training_items  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    state = tmp_path_factory.mktemp("state")
    (state / "pages").mkdir()
    data.SHARD_PAGES, kept = 4, data.SHARD_PAGES
    write_shard(state / "pages" / "0000.shard", 1, 0, 4)
    common = ["--shards", "1", "--batch", "2", "--steps", "2"]
    for command, where in (
        (pretrain.main, [str(state), "--no-compile"]),
        (train.main, [str(state), str(state / "out")]),
    ):
        result = CliRunner().invoke(command, [*where, *common])
        assert result.exit_code == 0, result.exception
    data.SHARD_PAGES = kept
    return state, state / "out"


def test_interrupted_training_is_the_same_training(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps in one call, and in several: the same weights to the bit. Another seed: other weights."""
    monkeypatch.setattr(data, "SHARD_PAGES", 4)

    def run(name: str, seed: str, *limit: str) -> dict[str, torch.Tensor]:
        state = tmp_path / name
        if not state.exists():
            state.mkdir()
            (state / "pages").symlink_to(trained[0] / "pages")
        common = ["--no-compile", "--shards", "1", "--batch", "2", "--steps", "4", "--seed", seed]
        result = CliRunner().invoke(pretrain.main, [str(state), *common, *limit])
        assert result.exit_code == 0, result.exception
        saved = torch.load(state / "tower.pt", weights_only=True)
        return {**saved["tower"], "step": torch.tensor(saved["step"])}

    whole, other = run("whole", "1"), run("other", "2")
    ticks = iter(range(10**9))
    monkeypatch.setattr(pretrain.time, "time", lambda: 6.0 * next(ticks))  # a call has time for a step or two
    parts = run("parts", "1", "--minutes", "0.4")
    assert 0 < int(parts["step"]) < 4
    while int(parts["step"]) < 4:
        parts = run("parts", "1", "--minutes", "0.4")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["patch_embedding.weight"], other["patch_embedding.weight"])


def test_layout(trained: tuple[Path, Path]) -> None:
    Checkpoint = pytest.importorskip("pulse_edge.export.checkpoint").Checkpoint

    _, out = trained
    checkpoint = Checkpoint(out)
    assert checkpoint.spec.vision.grid == 8
    assert json.loads((out / "config.json").read_text())["model_type"] == "llava_llama"
    assert sum(file.stat().st_size for file in out.iterdir()) < 12e6


def test_prompt_is_the_runtimes(trained: tuple[Path, Path]) -> None:
    from pulse_edge.bundle import PromptSpec
    from pulse_edge.prompt import IMAGE, PromptBuilder, Tokenizer

    path = trained[1] / "tokenizer.model"
    prompts = train.Prompts(path)
    builder = PromptBuilder(PromptSpec("llava_v1", SYSTEM, "USER", "ASSISTANT", True), Tokenizer(path, True), 1, 2)
    for item in training_items(random_findings(np.random.default_rng(0)), np.random.default_rng(0)):
        assert builder.first_turn(item.question) == [*prompts.head, IMAGE, *prompts.question(item)[0]]


def test_packing_equals_single_turns(trained: tuple[Path, Path]) -> None:
    """Each question of a packed sequence gets the logits that it gets alone."""
    torch.manual_seed(0)
    prompts = train.Prompts(trained[1] / "tokenizer.model")
    nano, size = Nano(Size()).eval(), Size()
    items = training_items(random_findings(np.random.default_rng(1)), np.random.default_rng(1))
    features = torch.randn(1, 5, size.vision_width)

    def hidden(page: list[object]) -> torch.Tensor:
        packed = train.pack(prompts, [page], 5)
        head = torch.tensor(prompts.head)[None]
        x = torch.cat(
            [nano.decoder.embed_tokens(head), nano.projector(features), nano.decoder.embed_tokens(packed.ids)], 1
        )
        prefix = head.shape[1] + 5
        positions = torch.cat([torch.arange(prefix)[None], packed.positions], 1)
        return nano.decoder(x, positions, train.packed_mask(packed.block, prefix))[0, prefix:]

    with torch.no_grad():
        together, alone = hidden(items), torch.cat([hidden([item]) for item in items])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_positions_take_the_sheet() -> None:
    """The saved tower, which subtracts nothing, sees what the trained one sees."""
    torch.manual_seed(0)
    tower = Nano(Size()).tower
    pixels = torch.randn(1, 3, 336, 336)
    with torch.no_grad():
        expected = tower(pixels)
        tower.position_embedding.copy_(tower.folded_positions())
        tower.sheet.zero_()
        torch.testing.assert_close(tower(pixels), expected, atol=1e-4, rtol=1e-4)
