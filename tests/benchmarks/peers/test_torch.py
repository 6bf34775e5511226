"""The peers that run on torch, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import synthetic
from benchmarks.peers import checkpoint as source

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from benchmarks.peers import torch_int4
from benchmarks.peers import transformers as peer

pytestmark = pytest.mark.parity

SIZES = synthetic.Sizes(
    layers=2,
    hidden=256,
    heads=2,
    ffn=512,
    vocab=512,
    context=128,
    vision_layers=2,
    vision_width=32,
    vision_heads=2,
    vision_mlp=48,
    image_size=56,
)
PROMPT = list(range(20, 60))


@pytest.fixture(autouse=True, scope="module")
def torch_settings() -> Iterator[None]:
    """Peers own their process, and set threads and gradients for all of it."""
    threads = torch.get_num_threads()
    gradients = torch.is_grad_enabled()
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(gradients)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peers") / "checkpoint"
    synthetic.write(path, SIZES)
    return path


def session(model: Any) -> Any:
    """Logits [14, vocab] of a prompt, greedy steps, a rewind with steps, and another prompt in two
    parts.
    """
    rows = [model.logits(PROMPT)]
    for _ in range(6):
        rows.append(model.logits([int(rows[-1].argmax())]))
    model.rewind(len(PROMPT))
    rows += [model.logits([token]) for token in (9, 8, 7)]
    model.rewind(len(PROMPT) + 1)
    rows.append(model.logits([8]))
    assert torch.equal(rows[-1], rows[-3])
    model.rewind(0)
    rows += [model.logits(PROMPT[::-1]), model.logits([11, 12, 13]), model.logits([14])]
    return torch.stack(rows)


def relative(got: Any, expected: Any) -> float:
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


@pytest.fixture(scope="module")
def eager(checkpoint: Path) -> Any:
    return session(peer.Transformers(checkpoint, "fp32", 2, SIZES.context))


def test_a_static_cache_gives_the_tokens_of_a_growing_one(checkpoint: Path, eager: Any) -> None:
    static = session(peer.Transformers(checkpoint, "fp32:static", 2, SIZES.context))
    assert relative(static, eager) < 1e-5
    assert torch.equal(static.argmax(-1), eager.argmax(-1))


def test_a_static_cache_is_full_at_its_context(checkpoint: Path, eager: Any) -> None:
    """The last place counts; what a longer run has left behind it is masked."""
    model = peer.Transformers(checkpoint, "fp32:static", 2, SIZES.context)
    tokens = [3 + n % 500 for n in range(SIZES.context)]
    model.feed(tokens[:-1])
    model.feed(tokens[-1:])
    model.rewind(0)
    assert relative(model.logits(PROMPT), eager[0]) < 1e-5
    assert model.logits([int(eager[0].argmax())]) == pytest.approx(eager[1], abs=1e-5)


def test_steps_that_differ_are_not_timed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = peer.Transformers.logits
    monkeypatch.setattr(peer.Transformers, "logits", lambda self, tokens: 2 * real(self, tokens))
    with pytest.raises(RuntimeError, match="differ from eager"):
        peer.Transformers(checkpoint, "fp32:static", 2, SIZES.context)


def test_ways_that_are_none(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="not compiled or static"):
        peer.Transformers(checkpoint, "fp32:fast", 2, SIZES.context)


def test_written_out_it_is_the_same_model(checkpoint: Path, eager: Any) -> None:
    """Without int4: rotation, norms, cache and masks are those of transformers."""
    plain = session(torch_int4.TorchInt4(checkpoint, "bf16:cpu", 2, SIZES.context))
    assert relative(plain, eager) < 1e-5


def test_int4_logits_are_those_of_the_dequantized_weights(checkpoint: Path) -> None:
    """Against transformers in float64, with every matrix in its place replaced by what its codes
    stand for.
    """
    config = transformers.LlamaConfig(**source.config(checkpoint), attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config).double().eval()
    weights = {}
    for name, entry, data in source.tensors(checkpoint):
        weight = torch.frombuffer(bytearray(data), dtype=torch_int4.STORED[entry["dtype"]]).reshape(
            entry["shape"]
        )
        if weight.ndim == 2 and "embed" not in name:
            codes, scales, zeros = torch_int4.quantize(weight)
            weight = torch_int4.dequantize(codes, scales.double(), zeros.double())
        weights[name] = weight.double()
    model.load_state_dict(weights)
    int4 = torch_int4.TorchInt4(checkpoint, "int4:cpu:eager", 2, SIZES.context)
    got = torch.stack([int4.logits(PROMPT), int4.logits([9]), int4.logits([8])])
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[*PROMPT, 9, 8]])).logits[0, -3:]
    assert relative(got, expected) < 1e-4
    assert torch.equal(got.argmax(-1), expected.argmax(-1))


def test_int4_steps_rewind(checkpoint: Path) -> None:
    model = torch_int4.TorchInt4(checkpoint, "int4:cpu", 2, SIZES.context)
    session(model)
    assert model.engine["how"] == "eager"
    with pytest.raises(ValueError, match="holds 128 tokens"):
        model.feed(SIZES.context * [5])


def test_codes_use_all_of_a_group_s_range() -> None:
    weight = torch.randn(8, 2 * torch_int4.GROUP, generator=torch.Generator().manual_seed(0))
    codes, scales, zeros = torch_int4.quantize(weight)
    assert int(codes.min()) == 0
    assert int(codes.max()) == 15
    error = (torch_int4.dequantize(codes, scales, zeros) - weight).abs().reshape(8, 2, -1).amax(-1)
    assert (error <= 0.501 * scales).all()


def test_the_next_way_is_taken_where_one_fails(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CPU has no CUDA graphs."""
    monkeypatch.setitem(torch_int4.FIRST, "cpu", ("eager-graph", "eager"))
    model = torch_int4.TorchInt4(checkpoint, "int4:cpu", 2, SIZES.context)
    assert model.engine["how"] == "eager"
    assert "eager-graph: " in capsys.readouterr().err


def test_a_way_whose_logits_are_wrong_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that gives something else than the eager block."""

    def compiled(block: Any, **_: Any) -> Any:
        def other(*inputs: Any) -> Any:
            stream, addition = block(*inputs)
            return stream, 2 * addition

        return other

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setitem(torch_int4.FIRST, "cpu", ("compiled",))
    with pytest.raises(RuntimeError, match="logits differ from eager ones"):
        torch_int4.TorchInt4(checkpoint, "int4:cpu", 2, SIZES.context)
