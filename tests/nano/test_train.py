"""A few steps of the training's stages, and the checkpoint they write. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
CliRunner = pytest.importorskip("click.testing").CliRunner
safetensors_numpy = pytest.importorskip("safetensors.numpy")

from pulse_edge.simulation.ecg import EcgSpec  # noqa: E402
from pulse_edge.simulation.pages import make_ecg  # noqa: E402
from pulse_edge.simulation.questions import Findings  # noqa: E402
from pulse_nano import checkpoint, data, language, loop, pretrain, train  # noqa: E402
from pulse_nano.checkpoint import (  # noqa: E402
    SYSTEM,
    load_published,
    load_start,
    save_start,
    tensors,
)
from pulse_nano.data import Pages  # noqa: E402
from pulse_nano.lessons import Talk, random_findings, training_talks  # noqa: E402
from pulse_nano.model import CLASSES, Nano, Size  # noqa: E402
from pulse_nano.optim import make_optimizers, set_rate  # noqa: E402
from pulse_nano.shards import CANVAS, EVENT_COLUMNS, SIDE, Page, draw_training_page, write_shard  # noqa: E402
from pulse_nano.targets import FIRST_CLASS, class_at, dense_target, find_beats, losses, rr_turns  # noqa: E402

COMMON = ["--shards", "1", "--batch", "2", "--workers"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    state = tmp_path_factory.mktemp("state")
    (state / "pages").mkdir()
    write_shard(state / "pages" / "0000.shard", 1, 0, 4)
    for command, where in (
        (pretrain.main, [str(state), *COMMON]),
        (language.main, [str(state), "--batch", "2", "--workers"]),
        (train.main, [str(state), str(state / "out"), *COMMON]),
    ):
        result = CliRunner().invoke(command, [*where, "1", "--steps", "2"])
        assert result.exit_code == 0, result.exception
    return state, state / "out"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupted_training_is_the_same_training(
    trained: tuple[Path, Path], tmp_path: Path, workers: str
) -> None:
    """Four steps in one call, and in several: the same weights to the bit.

    Another seed: other weights.
    """

    def run(name: str, seed: str, *limit: str) -> dict[str, Any]:
        state = tmp_path / name
        if not state.exists():
            state.mkdir()
            (state / "pages").symlink_to(trained[0] / "pages")
        options = [*COMMON, workers, "--steps", "4", "--seed", seed]
        result = CliRunner().invoke(pretrain.main, [str(state), *options, *limit])
        assert result.exit_code == 0, result.exception
        saved = torch.load(state / "tower.pt", weights_only=True)
        return {**saved["module"], "step": torch.tensor(saved["step"])}

    whole, other = run("whole", "1"), run("other", "2")
    for step in range(1, 5):
        parts = run("parts", "1", "--minutes", "0")  # a call has time for one step
        assert int(parts["step"]) == step
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [
        (tmp_path / name / "tower.jsonl").read_text().splitlines() for name in ("whole", "parts")
    ]
    digests = [[row["weights"] for row in map(json.loads, log) if "weights" in row] for log in logs]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 4  # one a step
    assert not torch.equal(
        whole["tower.patch_embedding.weight"], other["tower.patch_embedding.weight"]
    )


def test_one_writer(trained: tuple[Path, Path]) -> None:
    import fcntl

    with (trained[0] / "tower.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = CliRunner().invoke(pretrain.main, [str(trained[0]), *COMMON, "1", "--steps", "3"])
    assert "is being trained by another process" in str(result.exception)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a worker has. With more, sums are made in another order, which is a lot in bfloat16."""
    had = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(had)


@pytest.mark.usefixtures("one_thread")
def test_workers_average_their_gradients(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """A step of two workers with a page each is a step along the mean of the two
    pages' gradients.
    """
    (tmp_path / "pages").symlink_to(trained[0] / "pages")
    options = [*COMMON, "2", "--steps", "1", "--seed", "3", "--peak", "0.003"]
    result = CliRunner().invoke(pretrain.main, [str(tmp_path), *options])
    assert result.exit_code == 0, result.exception
    stepped = torch.load(tmp_path / "tower.pt", weights_only=True)["module"]

    loop.prepare(3)
    seeing = pretrain.Seeing(Size())
    optimizers = make_optimizers([(seeing.tower, 1.0), (seeing.heads, 1.0)], 0.003)
    set_rate(optimizers, loop.rate_at(0, 1, 0.003))
    pages = Pages(tmp_path / "pages", 1, 1, Size().patch, 3)
    for number in (0, 1):
        data = pages.make(number)
        (
            torch.stack(list(losses(seeing(data.views), data.dense, data.heads).values())).sum() / 2
        ).backward()
    torch.nn.utils.clip_grad_norm_(seeing.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    # AdamW's first step is the gradient's sign: where it is near zero, rounding decides.
    close = [
        torch.isclose(value, stepped[name], atol=1e-6).float().mean()
        for name, value in seeing.named_parameters()
    ]
    assert min(close) > 0.98


@pytest.mark.parametrize("backwards", [False, True])
def test_every_epoch_has_each_page_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """The first epoch goes through the shards in order, or from the last one on, four shuffled
    together.
    """
    for number in range(8):
        data.shard_path(tmp_path, number).touch()
    monkeypatch.setattr(data, "Shard", lambda path: [(int(path.stem), page) for page in range(5)])
    pages = Pages(tmp_path, 8, 1, Size().patch, 3, backwards=backwards)
    seen: list[Any] = [pages.page(position) for position in range(80)]
    assert {shard for shard, _ in seen[:20]} == ({4, 5, 6, 7} if backwards else {0, 1, 2, 3})
    for epoch in (seen[:40], seen[40:]):
        assert sorted(epoch) == [(shard, page) for shard in range(8) for page in range(5)]
    assert seen[40:] != seen[:40]


def test_layout(trained: tuple[Path, Path]) -> None:
    Checkpoint = pytest.importorskip("pulse_export.checkpoint").Checkpoint

    _, out = trained
    checkpoint = Checkpoint(out)
    assert checkpoint.spec.vision.grid == 12
    assert json.loads((out / "config.json").read_text())["model_type"] == "llava_llama"
    assert sum(file.stat().st_size for file in out.iterdir()) < 12e6


def test_the_start_of_stage_b_is_at_hand(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The committed weights are of today's sizes; STATE's own come first; another size
    is refused.
    """
    kept, own = load_start(tmp_path, Size()), load_start(trained[0], Size())
    assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in own.items()}
    for name in ("tower.class_embedding", "decoder.norm.weight"):
        assert not torch.equal(kept[name], own[name])
    Nano(Size()).load_state_dict(own)
    for other in (Size(vision_mlp=640), Size(ffn=512)):
        with pytest.raises(ValueError, match="the stages before this one trained"):
            load_start(tmp_path, other)


def test_a_published_checkpoint_is_read_back(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the names and shapes of training, and the same weights when it is written again."""
    weights = load_published(trained[1], Size())
    joint = torch.load(trained[0] / "joint.pt", weights_only=True)["module"]
    assert set(weights) == {name for name in joint if not name.startswith("heads.")}
    for name, value in weights.items():
        torch.testing.assert_close(value, joint[name], atol=2e-3, rtol=1e-3)
    again = Nano(Size())
    again.load_state_dict(weights, strict=False)
    file = safetensors_numpy.load_file(trained[1] / "model.safetensors")
    for name, value in tensors(again).items():
        np.testing.assert_allclose(value.astype(np.float32), file[name], atol=2e-3, err_msg=name)
    save_start(trained[0] / "joint.pt", Size(), tmp_path / "start.safetensors")
    assert (tmp_path / "start.safetensors").stat().st_size < 7e6
    monkeypatch.setattr(checkpoint, "START", tmp_path / "start.safetensors")
    start = load_start(tmp_path / "none", Size())
    torch.testing.assert_close(start["decoder.norm.weight"], weights["decoder.norm.weight"])
    assert set(start) == set(joint)  # the heads, too


def test_a_training_can_begin_with_the_start(trained: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "pages").symlink_to(trained[0] / "pages")
    options = [*COMMON, "1", "--steps", "1", "--peak", "1e-9", "--photos", "0.5"]
    result = CliRunner().invoke(pretrain.main, [str(tmp_path), *options, "--begin"])
    assert result.exit_code == 0, result.exception
    module = torch.load(tmp_path / "tower.pt", weights_only=True)["module"]
    start = load_start(tmp_path / "none", Size())
    for name, value in module.items():
        torch.testing.assert_close(value, start[name], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def premature() -> tuple[np.ndarray, Page]:
    """QRS onsets of a recording with premature atrial beats, and its page."""
    from pulse_edge.ecg.layout import PageStyle

    ecg = make_ecg(3, 0, spec=EcgSpec(ectopy="premature atrial contractions"))
    assert (ecg.kind == 2).any()
    return ecg.qrs, draw_training_page(ecg, PageStyle())


def test_turns_are_log_ratios_of_the_intervals_around_a_beat(
    premature: tuple[np.ndarray, Page],
) -> None:
    onsets, page = premature
    rr = np.diff(onsets)
    expected = np.log(rr[1:] / rr[:-1])
    turns = rr_turns(page.events)
    shown = turns[np.isfinite(turns)]
    assert len(shown) > len(expected)  # the strip shows nearly all, the leads some of them again
    assert np.abs(shown[:, None] - expected).min(1).max() < 1e-4
    kinds = page.events[:, EVENT_COLUMNS.index("kind")]
    early = turns[(kinds == 2) & np.isfinite(turns)]
    assert early.min() > 0.3
    assert np.isnan(turns[kinds > 4]).all()  # P waves


def test_targets_lie_where_the_views_show_them(premature: tuple[np.ndarray, Page]) -> None:
    """In the tile that a beat is in, and in the base view, which is the page squashed to
    a square.
    """
    _, page = premature
    patch, grid = 28, SIDE // 28
    target = dense_target(page, patch).reshape(5, grid, grid, -1)
    beats = [event for event in page.events if event[2] < 5 and event[0] < CANVAS]
    for x, y, *_ in beats:
        small = x / 2, (y - page.top) * SIDE / page.ink.shape[0]
        for view, (left, down) in (
            (1 + 2 * int(y // SIDE) + int(x // SIDE), (x % SIDE, y % SIDE)),
            (0, small),
        ):
            cell = target[view, int(down) // patch, int(left) // patch]
            assert cell[int(left % patch) // 2] == 1  # bins of two pixels
    assert (target[1:, ..., :14] == 1).sum() <= len(beats)


def test_intervals_are_classes_where_a_tile_shows_both_ends(
    premature: tuple[np.ndarray, Page],
) -> None:
    """RR and its change at every QRS complex whose neighbours are in its tile, and nowhere else."""
    _, page = premature
    patch, grid = 28, SIDE // 28
    tiles = dense_target(page, patch).reshape(5, grid, grid, -1)[1:]
    column = EVENT_COLUMNS.index("rr_s")
    turns, beats = rr_turns(page.events), find_beats(page.events)
    tile_of = page.events[:, :2] // SIDE
    told: dict[str, set[tuple[int, int, int]]] = {
        "rr": set(),
        "turn": set(),
    }  # patches that have a target
    for before, beat, after in zip([-1, *beats], beats, [*beats[1:], -1], strict=False):
        x, y = page.events[beat, :2]
        place = int(2 * (y // SIDE) + x // SIDE), int(y % SIDE) // patch, int(x % SIDE) // patch
        near = (tile_of[beat] == tile_of[before]).all()
        for name, value, shown in (
            ("rr", page.events[beat, column], near),
            ("turn", turns[beat], near and (tile_of[beat] == tile_of[after]).all()),
        ):
            if np.isfinite(value) and shown:
                first = FIRST_CLASS[name]
                told[name].add(place)
                part = tiles[place][first : first + CLASSES[name]]
                assert part.sum() == pytest.approx(1)
                expected = np.clip(class_at(name, value), 0, CLASSES[name] - 1)
                assert part @ np.arange(CLASSES[name]) == pytest.approx(expected, abs=0.5)
    for name, places in told.items():
        assert len(places) > 10
        first = FIRST_CLASS[name]
        assert (tiles[..., first : first + CLASSES[name]].sum(-1) > 0).sum() == len(places)


def test_findings_are_told_apart() -> None:
    """Each finding changes its own vector, and no other."""
    told = language.Told(Size())
    base = Findings(75, "sinus rhythm", 160, 90, (), "none", "none", False, "normal axis")
    other: dict[str, Any] = {
        "rhythm": "atrial fibrillation",
        "conduction": ("first-degree AV block",),
        "ectopy": "premature ventricular contractions",
        "st": "ST depression",
        "axis": "left axis deviation",
        "lvh": True,
        "rate": 76,
        "pr": None,
        "qrs": 100,
    }
    with torch.no_grad():
        first = told([base])[0]
        for slot, (name, value) in enumerate(other.items()):
            changed = (told([replace(base, **{name: value})])[0] != first).any(1)
            assert changed.nonzero().flatten().tolist() == [slot], name
        assert not torch.isclose(told([None])[0], first).any(1).all()


def test_prompt_is_the_runtimes(trained: tuple[Path, Path]) -> None:
    from pulse_edge.bundle.spec import PromptSpec
    from pulse_edge.text.template import IMAGE, PromptBuilder
    from pulse_edge.text.tokenizer import Tokenizer

    path = trained[1] / "tokenizer.model"
    prompts = train.Prompts(path)
    builder = PromptBuilder(
        PromptSpec("llava_v1", SYSTEM, "USER", "ASSISTANT", True), Tokenizer(path, True), 1, 2
    )
    rng = np.random.default_rng(0)
    for talk in [t for _ in range(8) for t in training_talks(random_findings(rng), rng)]:
        runtime = builder.first_turn(talk[0].question)
        ids = [*prompts.head, IMAGE]
        for turn, item in enumerate(talk):
            question, answer = prompts.later(item) if turn else prompts.question(item)
            if turn:
                runtime += builder.next_turn(item.question)
            runtime += builder.given_answer(item.answer)
            ids += question + answer
        assert ids[:-1] == runtime  # an answer's end belongs to the next turn


def test_packing_equals_single_turns(trained: tuple[Path, Path]) -> None:
    """Each conversation of a packed sequence gets the logits that it gets alone."""
    torch.manual_seed(0)
    prompts = train.Prompts(trained[1] / "tokenizer.model")
    nano, size = Nano(Size()).eval(), Size()
    rng = np.random.default_rng(1)
    talks = training_talks(random_findings(rng), rng)[:8]
    features = torch.randn(1, 5, size.vision_width)

    def hidden(page: list[Talk]) -> Any:
        packed = train.pack(prompts, [page], 5)
        head = torch.tensor(prompts.head)[None]
        x = torch.cat(
            [
                nano.decoder.embed_tokens(head),
                nano.projector(features),
                nano.decoder.embed_tokens(packed.ids),
            ],
            1,
        )
        prefix = head.shape[1] + 5
        positions = torch.cat([torch.arange(prefix)[None], packed.positions], 1)
        return nano.decoder(x, positions, train.packed_mask(packed.block, prefix))[0, prefix:]

    with torch.no_grad():
        together, alone = hidden(talks), torch.cat([hidden([talk]) for talk in talks])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_letters_weigh_more(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter of each multiple choice, and nothing else, is marked, also where a question is
    left out or refused.
    """
    torch.manual_seed(0)
    prompts, size = train.Prompts(trained[1] / "tokenizer.model"), Size()
    rng = np.random.default_rng(3)
    pages = [training_talks(random_findings(rng) if n % 4 else None, rng) for n in range(8)]
    packed = train.pack(prompts, pages, 5)
    spoken = [
        [
            prompts.sp.id_to_piece(int(i)).strip("\u2581")
            for i in packed.labels[r][packed.letters[r]]
        ]
        for r in range(8)
    ]
    seen = [set(row.tolist()) for row in packed.block]
    wanted = [
        [i.key for n, t in enumerate(p, 1) if n in seen[r] for i in t if i.task == "choice"]
        for r, p in enumerate(pages)
    ]
    assert spoken == [letters if n % 4 else [] for n, letters in enumerate(wanted)]
    assert sum(map(len, spoken)) > 5

    monkeypatch.setattr(train, "VERDICT", 1.0)
    decoder, image = Nano(size).decoder, torch.randn(8, 5, size.width)
    with torch.no_grad():
        plain, weighted = [], []
        for letter in (1.0, 8.0):
            monkeypatch.setattr(train, "LETTER", letter)
            loss, shown = train.text_loss(decoder, prompts, image, packed)
            plain.append(shown["text"].item())
            weighted.append(loss.item())
    share = packed.letters.sum().item() / (packed.labels != train.IGNORE).sum().item()
    assert plain[0] == plain[1] == pytest.approx(weighted[0], rel=1e-5)
    letters = (weighted[1] * (1 + 7 * share) - weighted[0]) / (
        7 * share
    )  # their mean loss, out of the weighted one
    assert 0.5 < letters / np.log(size.vocab) < 2
    assert letters != pytest.approx(plain[0], rel=1e-3)


def test_what_is_marked_as_a_verdict_is_yes_or_no(trained: tuple[Path, Path]) -> None:
    """The first token of each such answer, in every turn."""
    prompts, rng = train.Prompts(trained[1] / "tokenizer.model"), np.random.default_rng(3)
    talks = training_talks(random_findings(rng), rng)
    packed = train.pack(prompts, [talks], 5)
    seen = set(packed.block[0].tolist())
    answers = [i.answer for n, talk in enumerate(talks, 1) if n in seen for i in talk]
    verdicts = [text for text in answers if text.startswith(("Yes,", "No,", "No "))]
    assert len(verdicts) > 5
    first = [prompts.sp.encode(text)[0] for text in verdicts]
    assert packed.labels[packed.verdicts].tolist() == first


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
