"""Checkpoints: every layout gives the same tensors, and others are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import tiny

pytest.importorskip("safetensors", reason="exporting needs pulse-edge[export]")

from pulse_edge.errors import CheckpointError
from pulse_export.checkpoint import Checkpoint

from support.damage import edit, refused
from support.fixture_types import Checkpoints

PUBLISHED = "LlavaLlamaForCausalLM"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The published layout, to damage."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def rewrite(path: Path, change: Callable[[tiny.Tensors], object], **options: Any) -> None:
    """Write the published weights again with a change."""
    tensors = tiny.llava_weights()
    change(tensors)
    tiny.write_weights(path, tensors, **options)


# -- what is read

LAYOUTS = {
    "published": {"layout": "llava"},
    "conversion": {"layout": "hf_next", "merge": "spatial_unpad", "names": "old"},
    "conversion-new": {"layout": "hf_next", "merge": "spatial_unpad", "names": "new"},
    "conversion-1.5": {"layout": "hf_llava", "names": "old"},
    "conversion-1.5-new": {"layout": "hf_llava", "names": "new"},
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_tensors_that_went_in(
    checkpoints: Callable[..., Path], layout: str, shards: int
) -> None:
    path = checkpoints(**LAYOUTS[layout], shards=shards, position_ids=True)
    assert len(list(path.glob("*.safetensors"))) == shards
    source = Checkpoint(path)
    hugging_face = layout != "published"
    weights = tiny.llava_weights(vocab=source.spec.text.vocab, newline="1.5" not in layout)
    assert source.spec.text.vocab == (576 if hugging_face else 512)
    tower = "model.vision_tower.vision_tower.vision_model"
    expected = {
        "vision.pre_layrnorm.bias": f"{tower}.pre_layrnorm.bias",
        "vision.encoder.layers.1.mlp.fc2.weight": f"{tower}.encoder.layers.1.mlp.fc2.weight",
        "projector.0.weight": "model.mm_projector.0.weight",
        "projector.2.bias": "model.mm_projector.2.bias",
        "embed_tokens.weight": "model.embed_tokens.weight",
        "layers.1.self_attn.q_proj.weight": "model.layers.1.self_attn.q_proj.weight",
        "norm.weight": "model.norm.weight",
        "lm_head.weight": "lm_head.weight",
    }
    if source.spec.image.merge == "spatial_unpad":
        expected["image_newline"] = "model.image_newline"
    for name, stored in expected.items():
        np.testing.assert_array_equal(source.tensor(name), weights[stored], strict=True)
    assert source.architecture == json.loads((path / "config.json").read_text())["architectures"][0]
    # Layers behind the feature layer, and buffers, are there but not read.
    assert not [
        n for n in source.names if "layers.2." in n or "position_ids" in n or "post_layernorm" in n
    ]
    assert sum(map(source.elements, source.names)) == source.info().parameters
    assert source.size == 4 * source.info().parameters


def test_layouts_agree_on_the_model(checkpoints: Callable[..., Path]) -> None:
    """Grids are (width, height) in one layout, (height, width) in the others; the tiny ones are
    symmetric: add one.
    """
    grids = (*tiny.Geometry.grids, (224, 56))
    published = Checkpoint(checkpoints(merge="spatial_unpad", grids=grids)).spec
    converted = Checkpoint(checkpoints(layout="hf_next", grids=grids)).spec
    assert published.image == converted.image
    assert published.image.grids[-1] == (224, 56)
    assert published.vision == converted.vision
    assert published.prompt == converted.prompt
    assert published.vision.feature_layers == 2
    assert published.vision.grid == 4


@pytest.mark.parametrize("legacy", [True, False, None])
def test_legacy_tokenizers(checkpoints: Callable[..., Path], legacy: bool | None) -> None:
    assert Checkpoint(checkpoints(legacy=legacy)).spec.prompt.legacy is (legacy is not False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precisions_are_exact(checkpoints: Callable[..., Path], dtype: str) -> None:
    source = Checkpoint(checkpoints(dtype=dtype))
    weights = tiny.llava_weights()
    name = "layers.0.mlp.gate_proj.weight"
    stored = weights["model." + name]
    if dtype == "float16":
        expected = stored.astype(np.float16).astype(np.float32)
    else:
        # By arithmetic, not by bits as the writer does it: 8 significant bits, halves to even.
        exponent = np.floor(np.log2(np.abs(stored.astype(np.float64))))
        unit = 2.0 ** (exponent - 7)
        expected = (np.rint(stored / unit) * unit).astype(np.float32)
    got = source.tensor(name)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    assert np.abs(got - stored).max() > 0
    assert (source.info().dtype, source.size) == (dtype, 2 * source.info().parameters)


def test_grouped_query_attention(checkpoints: Callable[..., Path]) -> None:
    source = Checkpoint(checkpoints(kv_heads=2))
    assert (source.spec.text.heads, source.spec.text.kv_heads, source.spec.text.head_size) == (
        4,
        2,
        16,
    )
    assert source.tensor("layers.0.self_attn.k_proj.weight").shape == (32, 64)


@pytest.mark.parametrize("layout", ["llava", "hf_next"])
def test_tied_embeddings(checkpoints: Callable[..., Path], layout: str) -> None:
    source = Checkpoint(checkpoints(layout=layout, tied=True))
    assert source.tied
    assert "lm_head.weight" not in source.names
    np.testing.assert_array_equal(
        source.tensor("lm_head.weight"), source.tensor("embed_tokens.weight")
    )
    assert source.stored_size("lm_head.weight") == 0


def test_a_tied_checkpoint_may_store_its_head_if_it_is_the_embeddings(copy: Path) -> None:
    """transformers 4 drops another head, transformers 5 drops the tie: neither is guessed."""
    edit(copy, tie_word_embeddings=True)
    message = refused(copy)
    assert "tie_word_embeddings is true, but lm_head.weight differs from the embeddings" in message
    assert "set the flag to false" in message
    rewrite(copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    source = Checkpoint(copy)
    np.testing.assert_array_equal(
        source.tensor("lm_head.weight"), source.tensor("embed_tokens.weight")
    )
    rewrite(copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"][:-1]}))
    assert "differs from the embeddings" in refused(copy)


@pytest.mark.parametrize("places", [("top",), ("text",), ("top", "text")])
def test_a_conversion_is_tied_if_either_flag_says_so(
    checkpoints: Callable[..., Path], tmp_path: Path, places: tuple[str, ...]
) -> None:
    path = Path(shutil.copytree(checkpoints(layout="hf_next", tied=True), tmp_path / "copy"))
    text = json.loads((path / "config.json").read_text())["text_config"]
    flags = {place: place in places for place in ("top", "text")}
    edit(
        path,
        tie_word_embeddings=flags["top"],
        text_config=text | {"tie_word_embeddings": flags["text"]},
    )
    assert Checkpoint(path).tied


def test_one_layer_projector(checkpoints: Callable[..., Path]) -> None:
    source = Checkpoint(checkpoints(projector="linear"))
    assert source.spec.projector_depth == 1
    np.testing.assert_array_equal(
        source.tensor("projector.0.bias"),
        tiny.llava_weights(projector="linear")["model.mm_projector.bias"],
    )


@pytest.mark.parametrize(
    ("aspect", "grids"), [("pad", ()), ("square", ()), ("anyres", tiny.Geometry.grids)]
)
def test_aspects(
    checkpoints: Callable[..., Path], aspect: str, grids: tuple[tuple[int, int], ...]
) -> None:
    image = Checkpoint(checkpoints(aspect=aspect)).spec.image
    assert (image.aspect, image.grids) == (aspect, grids)


# -- identity


def test_identity_depends_on_the_weights_not_on_the_files(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    whole, sharded = Checkpoint(checkpoints()).info(), Checkpoint(checkpoints(shards=4)).info()
    assert whole == sharded
    assert Checkpoint(checkpoints(position_ids=True)).info().sha256 == whole.sha256
    assert Checkpoint(checkpoints(seed=1)).info().sha256 != whole.sha256
    assert Checkpoint(checkpoints(dtype="float16")).info().sha256 != whole.sha256
    path = Path(shutil.copytree(checkpoints(), tmp_path / "renamed"))
    assert Checkpoint(path).info().sha256 == whole.sha256
    rewrite(
        path,
        lambda t: t["model.norm.weight"].__setitem__(
            0, np.nextafter(t["model.norm.weight"][0], np.float32(9))
        ),
    )
    assert Checkpoint(path).info().sha256 != whole.sha256
    rewrite(path, lambda t: None)
    assert Checkpoint(path).info().sha256 == whole.sha256
    edit(path, comment="another")
    assert Checkpoint(path).info().sha256 != whole.sha256


def test_identity_is_the_same_when_tensors_were_read_before(checkpoint: Path) -> None:
    source = Checkpoint(checkpoint)
    for name in source.names:
        source.tensor(name)
    assert source.info() == Checkpoint(checkpoint).info()


# -- weights that are refused


def test_pickled_weights_are_refused_with_the_command_that_converts(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = refused(copy)
    assert "pytorch_model.bin" in message
    assert "save_file" in message
    assert str(copy) in message
    (copy / "pytorch_model.bin").unlink()
    assert "no *.safetensors" in refused(copy)


def test_missing_surplus_and_misshapen_tensors_are_named(copy: Path) -> None:
    rewrite(copy, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    assert "missing tensors: layers.1.mlp.up_proj.weight" in refused(copy)
    rewrite(
        copy, lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)})
    )
    assert "unknown tensors: model.layers.0.self_attn.q_proj.bias" in refused(copy)
    rewrite(copy, lambda t: t.update({"model.norm.weight": np.zeros(63, np.float32)}))
    assert "misshapen tensors: model.norm.weight is [63], config.json says [64]" in refused(copy)
    rewrite(copy, lambda t: t.update({f"extra.{i}": np.zeros(1, np.float32) for i in range(9)}))
    assert refused(copy).endswith("extra.0, extra.1, extra.2 and 6 more")


def test_a_decoder_layer_more_or_less(copy: Path) -> None:
    edit(copy, num_hidden_layers=3)
    assert "missing tensors: layers.2." in refused(copy)
    edit(copy, num_hidden_layers=1)
    assert "unknown tensors: model.layers.1." in refused(copy)


def test_tower_layers_behind_the_feature_layer_may_be_left_out_not_before(copy: Path) -> None:
    last, used = (
        f"model.vision_tower.vision_tower.vision_model.encoder.layers.{i}.layer_norm1.bias"
        for i in (2, 1)
    )
    rewrite(copy, lambda t: t.pop(last))
    Checkpoint(copy)
    rewrite(copy, lambda t: t.pop(used))
    assert "missing tensors: vision.encoder.layers.1.layer_norm1.bias" in refused(copy)


def test_quantized_tensors_are_refused(copy: Path) -> None:
    rewrite(copy, lambda t: t.update({"lm_head.weight": t["lm_head.weight"].astype(np.int64)}))
    assert refused(copy).endswith("tensors must be F32, F16, BF16, but: lm_head.weight (I64)")
    content = (copy / "model.safetensors").read_bytes()
    assert content.count(b'"I64"') == 1
    (copy / "model.safetensors").write_bytes(content.replace(b'"I64"', b'"U64"'))
    assert "lm_head.weight (U64)" in refused(copy)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, -1])
def test_truncated_weights(copy: Path, keep: float) -> None:
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    assert f"{file}: truncated or not safetensors" in refused(copy)


def test_weights_that_are_no_safetensors(copy: Path) -> None:
    file = copy / "model.safetensors"
    for content in (
        b"not at all" * 100,
        b"\x80\x02" + b"pickle" * 50,
        (1 << 62).to_bytes(8, "little") + b"{}",
    ):
        file.write_bytes(content)
        assert f"{file}: truncated or not safetensors" in refused(copy)
    file.unlink()
    file.mkdir()
    assert str(file) in refused(copy)


@pytest.fixture
def sharded(checkpoints: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints(shards=3), tmp_path / "sharded"))


INDEX = "model.safetensors.index.json"


def test_shards(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{shard}: truncated" in refused(sharded)
    shard.unlink()
    assert f"{shard}: missing, though {INDEX} lists it" in refused(sharded)
    shard.write_bytes(content)
    Checkpoint(sharded)
    weight_map = json.loads((sharded / INDEX).read_text())["weight_map"]
    edit(sharded, INDEX, weight_map=weight_map | {"model.absent": shard.name})
    assert f"{INDEX} lists tensors that no shard holds: model.absent" in refused(sharded)


@pytest.mark.parametrize(
    "weight_map",
    [None, ..., [], {}, "x", 1, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": "a\0b"}, {"a": "../x"}],
)
def test_an_index_that_is_none(sharded: Path, weight_map: Any) -> None:
    edit(sharded, INDEX, weight_map=weight_map)
    assert str(sharded) in refused(sharded)


# -- directories and files that are refused


def test_what_is_not_a_checkpoint(copy: Path, bundle: Path) -> None:
    assert "not a directory" in refused(copy / "absent")
    assert "not a directory" in refused(copy / "config.json")
    assert "no config.json" in refused(bundle)
    (copy / "tokenizer.model").unlink()
    assert "no tokenizer.model and no tokenizer.json; copy the tokenizer" in refused(copy)
    for name in ("vocab.json", "merges.txt"):
        (copy / name).write_text("{}")
    assert f"A.from_pretrained('{copy}').save_pretrained('{copy}')" in refused(copy)


def test_a_tokenizer_that_is_none(copy: Path) -> None:
    for content in (b"", b"garbage", b"version https://git-lfs.github.com/spec/v1\n", b"\0"):
        (copy / "tokenizer.model").write_bytes(content)
        assert str(copy / "tokenizer.model") in refused(copy)


def test_a_tokenizer_with_more_pieces_than_the_embedding(copy: Path) -> None:
    """Its last ids would look up rows that are not there."""
    rows = tiny.VOCAB - 1

    def cut(tensors: tiny.Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:rows]

    rewrite(copy, cut)
    edit(copy, vocab_size=rows)
    message = refused(copy)
    assert f"{tiny.VOCAB} pieces" in message
    assert f"vocab_size {rows}" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.mm_projector.2.weight"]
)
def test_weights_that_are_no_numbers_are_refused(
    copy: Path, tmp_path: Path, name: str, value: float
) -> None:
    pipeline = pytest.importorskip("pulse_export.pipeline")
    rewrite(copy, lambda t: t[name].reshape(-1).__setitem__(3, value))
    with pytest.raises(
        CheckpointError, match=r"tensor .* holds values that are not finite"
    ) as caught:
        pipeline.export(copy, tmp_path / "out", precision="int8")
    assert name.removeprefix("model.").replace("mm_projector", "projector") in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight"]
)
def test_weights_too_large_for_half_precision_are_refused(
    copy: Path, tmp_path: Path, name: str
) -> None:
    """They would become infinite; only the embeddings are half precision in an int8 bundle for the
    CPU.
    """
    from pulse_export.pipeline import export

    rewrite(copy, lambda t: t[f"model.{name}"].reshape(-1).__setitem__(3, -70000))
    with pytest.raises(CheckpointError, match=f"tensor {name} holds values over 65504"):
        export(copy, tmp_path / "out", precision="fp16", target="cuda")
    export(copy, tmp_path / "out", precision="fp32")
    if name == "embed_tokens.weight":
        with pytest.raises(CheckpointError, match="65504"):
            export(copy, tmp_path / "int8", precision="int8")
    else:
        export(copy, tmp_path / "int8", precision="int8")


@pytest.mark.parametrize("name", ["image_newlin", "embed_tokens.weightX", "nothing", ""])
@pytest.mark.parametrize("tied", [False, True])
def test_an_unknown_tensor_is_not_the_embeddings(
    checkpoints: Checkpoints, tied: bool, name: str
) -> None:
    """Only a tied head is."""
    checkpoint = Checkpoint(checkpoints(tied=tied))
    with pytest.raises(KeyError):
        checkpoint.tensor(name)
    same = np.array_equal(
        checkpoint.tensor("lm_head.weight"), checkpoint.tensor("embed_tokens.weight")
    )
    assert same == tied


def test_a_model_that_no_bundle_may_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tiny.make_checkpoint(tmp_path / "checkpoint")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    with pytest.raises(CheckpointError, match=r"model\.text\.eps is 0\.5, outside"):
        Checkpoint(path)
