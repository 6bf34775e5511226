"""A checkpoint directory -> `ModelSpec` and tensors under canonical names, one at a time.

Three layouts are read, each a row of `LAYOUTS`: LLaVA as its authors publish it (`llava_llama`) and the two
Hugging Face conversions. Everything that could go wrong is found before any work is done: config fields this
export does not implement, missing, surplus, misshapen or truncated tensors, each refused by name.

Canonical names: `vision.` + CLIP's name below `vision_model.`; `projector.{0,2,…}.`; `image_newline`; and the Llama
names below `model.` (`embed_tokens.weight`, `layers.N.…`, `norm.weight`), `lm_head.weight`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle import TOKENIZER, CheckpointInfo, ImageSpec, ModelSpec, PromptSpec, TextSpec, VisionSpec
from pulse_edge.errors import CheckpointError

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}  # bytes

# openai/clip-vit-large-patch14-336: what upstream downloads beside a published LLaVA checkpoint.
CLIP_L_336 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
KNOWN_TOWERS = {"openai/clip-vit-large-patch14-336": CLIP_L_336}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

VICUNA = {
    "name": "llava_v1",
    "system": "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "user": "USER",
    "assistant": "ASSISTANT",
}


@dataclass(frozen=True)
class Layout:
    """Where a family keeps its tensors: for each part the prefixes in use, newest last."""

    vision: tuple[str, ...]
    projector: tuple[str, ...]
    projector_names: dict[int, str]  # index in mlp2x_gelu's Sequential -> name
    newline: tuple[str, ...]
    text: tuple[str, ...]
    head: tuple[str, ...]


_HF = Layout(
    vision=("vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower."),
    projector=("multi_modal_projector.", "model.multi_modal_projector."),
    projector_names={0: "linear_1.", 2: "linear_2."},
    newline=("image_newline", "model.image_newline"),
    text=("language_model.model.", "model.language_model."),
    head=("language_model.lm_head.weight", "lm_head.weight"),
)
LAYOUTS = {
    "LlavaLlamaForCausalLM": Layout(
        vision=("model.vision_tower.vision_tower.vision_model.", "model.vision_tower.vision_tower."),
        projector=("model.mm_projector.",),
        projector_names={i: f"{i}." for i in range(0, 16, 2)},
        newline=("model.image_newline",),
        text=("model.",),
        head=("lm_head.weight",),
    ),
    "LlavaNextForConditionalGeneration": _HF,
    "LlavaForConditionalGeneration": _HF,
}
# Present in real checkpoints, not part of the network we run.
IGNORED = re.compile(r"(position_ids|rotary_emb\.inv_freq|post_layernorm\.(weight|bias))$")


class Checkpoint:
    """An opened and checked checkpoint directory. Raises `CheckpointError` from the constructor."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        config = _read_config(self.path)
        architecture = (config.get("architectures") or [None])[0]
        if architecture == "LlavaLlamaForCausalLM" or config.get("model_type") in ("llava_llama", "llava"):
            architecture = architecture or "LlavaLlamaForCausalLM"
        if architecture not in LAYOUTS:
            raise CheckpointError(
                f"{self.path}: architecture {architecture!r} is not supported; supported are {', '.join(LAYOUTS)}"
            )
        self.architecture: str = architecture
        published = architecture == "LlavaLlamaForCausalLM"
        self.spec = (_published_spec if published else _hf_spec)(config, self.path)
        self.tied = bool((config if published else config.get("text_config", {})).get("tie_word_embeddings", False))
        self._where = _index_tensors(self.path)
        self._names = self._resolve(LAYOUTS[architecture])
        self._digests: dict[str, bytes] = {}

    def _resolve(self, layout: Layout) -> dict[str, str]:
        """Canonical name -> stored name; refuses what is missing, surplus or misshapen."""
        names: dict[str, str] = {}
        missing, wrong = [], []
        expected = dict(_expected(self.spec, self.tied))
        for name, shape in expected.items():
            stored = next((c for c in _candidates(name, layout) if c in self._where), None)
            if stored is None:
                missing.append(name)
            elif self._where[stored].shape != shape:
                wrong.append(f"{stored} is {list(self._where[stored].shape)}, config.json says {list(shape)}")
            else:
                names[name] = stored
        used = set(names.values())
        surplus = sorted(n for n in self._where.keys() - used if not self._ignorable(n, layout))
        for problem, found in (("missing", missing), ("misshapen", wrong), ("unknown", surplus)):
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise CheckpointError(f"{self.path}: {problem} tensors: {', '.join(found[:3])}{more}")
        bad = sorted({f"{s} ({self._where[s].dtype})" for s in used if self._where[s].dtype not in DTYPES})
        if bad:
            raise CheckpointError(f"{self.path}: tensors must be {', '.join(DTYPES)}, but: {', '.join(bad[:3])}")
        return names

    def _ignorable(self, stored: str, layout: Layout) -> bool:
        """Known not to be needed: buffers, the tower's layers behind the feature layer, an unused newline or head."""
        if IGNORED.search(stored) or stored in layout.newline or (self.tied and stored in layout.head):
            return True
        layer = re.search(r"encoder\.layers\.(\d+)\.", stored)
        vision = self.spec.vision
        return layer is not None and stored.startswith(layout.vision) and (
            vision.feature_layers <= int(layer[1]) < vision.layers
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the tensors there are."""
        return tuple(self._names)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32, read now and not kept. Tied checkpoints give the embeddings for `lm_head.weight`."""
        array = self._raw(self._names["embed_tokens.weight" if name not in self._names else name])
        return np.asarray(array, np.float32)

    def elements(self, name: str) -> int:
        return math.prod(self._where[self._names[name]].shape)

    def stored_size(self, name: str) -> int:
        """Bytes in the checkpoint; a tied head has none of its own."""
        stored = self._names.get(name)
        return WIDTHS[self._where[stored].dtype] * self.elements(name) if stored else 0

    def _raw(self, stored: str) -> NDArray[Any]:
        import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
        from safetensors import safe_open

        # Opened for each tensor: a mapping that stays open would keep every page that was read resident.
        with safe_open(self._where[stored].file, "numpy") as file:
            array: NDArray[Any] = file.get_tensor(stored)
        if stored not in self._digests:
            self._digests[stored] = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).digest()
        return array

    def info(self) -> CheckpointInfo:
        """Identity. Tensors that were not read yet are read now, for their hash."""
        total = hashlib.sha256()
        for file in ("config.json", TOKENIZER):
            total.update(hashlib.sha256((self.path / file).read_bytes()).digest())
        dtypes: dict[str, int] = {}
        for name, stored in sorted(self._names.items()):
            where = self._where[stored]
            if stored not in self._digests:
                self._raw(stored)
            total.update(f"{name} {where.dtype} {where.shape} ".encode() + self._digests[stored])
            dtypes[where.dtype] = dtypes.get(where.dtype, 0) + math.prod(where.shape)
        return CheckpointInfo(
            name=self.path.resolve().name,
            architecture=self.architecture,
            dtype=DTYPES[max(dtypes, key=lambda d: dtypes[d])],
            parameters=sum(dtypes.values()),
            sha256=total.hexdigest(),
        )

    @property
    def size(self) -> int:
        """Bytes of the tensors that are used."""
        return sum(map(self.stored_size, self._names))


@dataclass(frozen=True)
class _Stored:
    file: Path
    dtype: str
    shape: tuple[int, ...]


def _candidates(name: str, layout: Layout) -> list[str]:
    """Stored names that a canonical name may have."""
    if name == "image_newline":
        return list(layout.newline)
    if name == "lm_head.weight":
        return list(layout.head)
    part, _, rest = name.partition(".")
    if part == "vision":
        return [prefix + rest for prefix in layout.vision]
    if part == "projector":
        index, _, leaf = rest.partition(".")
        stored = layout.projector_names.get(int(index), f"{index}.") + leaf
        # A single Linear is stored without an index.
        return [prefix + n for prefix in layout.projector for n in ((stored, leaf) if index == "0" else (stored,))]
    return [prefix + name for prefix in layout.text]


def _expected(spec: ModelSpec, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Canonical name and shape of every tensor the network needs."""
    v, t = spec.vision, spec.text
    yield "vision.embeddings.class_embedding", (v.width,)
    yield "vision.embeddings.patch_embedding.weight", (v.width, 3, v.patch_size, v.patch_size)
    yield "vision.embeddings.position_embedding.weight", (v.grid**2 + 1, v.width)
    yield from _affine("vision.pre_layrnorm", (v.width,))
    for i in range(v.feature_layers):
        layer = f"vision.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _affine(f"{layer}.{norm}", (v.width,))
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{layer}.self_attn.{proj}", (v.width, v.width))
        yield from _affine(f"{layer}.mlp.fc1", (v.mlp, v.width))
        yield from _affine(f"{layer}.mlp.fc2", (v.width, v.mlp))
    for depth in range(spec.projector_depth):
        yield from _affine(f"projector.{2 * depth}", (t.hidden, t.hidden if depth else v.width))
    if spec.image.merge == "spatial_unpad":
        yield "image_newline", (t.hidden,)
    yield "embed_tokens.weight", (t.vocab, t.hidden)
    heads, kv = t.heads * t.head_size, t.kv_heads * t.head_size
    for i in range(t.layers):
        layer = f"layers.{i}"
        yield f"{layer}.input_layernorm.weight", (t.hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (t.hidden,)
        for proj, shape in (("q", (heads, t.hidden)), ("k", (kv, t.hidden)), ("v", (kv, t.hidden)), ("o", (t.hidden, heads))):
            yield f"{layer}.self_attn.{proj}_proj.weight", shape
        for proj, shape in (("gate", (t.ffn, t.hidden)), ("up", (t.ffn, t.hidden)), ("down", (t.hidden, t.ffn))):
            yield f"{layer}.mlp.{proj}_proj.weight", shape
    yield "norm.weight", (t.hidden,)
    if not tied:
        yield "lm_head.weight", (t.vocab, t.hidden)


def _affine(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: not a directory")
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path}: no config.json, so not a checkpoint directory")
    if not (path / TOKENIZER).exists():
        hint = "; tokenizer.json alone is not enough, copy tokenizer.model from the original checkpoint" if (
            (path / "tokenizer.json").exists()) else ""
        raise CheckpointError(f"{path}: no {TOKENIZER} (SentencePiece){hint}")
    return _read_json(path / "config.json")


def _index_tensors(path: Path) -> dict[str, _Stored]:
    """Stored name -> file, dtype, shape, for one file or the shards that the index lists."""
    from safetensors import SafetensorError, safe_open

    index = path / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index).get("weight_map", {})
        files = sorted({path / str(f) for f in weight_map.values()})
    else:
        weight_map, files = {}, sorted(path.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for p in path.glob("*.bin")) + sorted(p.name for p in path.glob("*.pth"))
        if pickled:
            raise CheckpointError(
                f"{path}: only pickled weights ({pickled[0]}), which can run code when loaded, so they are not read; "
                f"convert them where you trust them: python -c \"import glob,torch; from safetensors.torch import save_file; "
                f"[save_file({{k: v.contiguous().clone() for k, v in torch.load(f, weights_only=True).items()}}, "
                f"f[:-4] + '.safetensors') for f in glob.glob('{path}/*.bin')]\""
            )
        raise CheckpointError(f"{path}: no *.safetensors")
    where: dict[str, _Stored] = {}
    for file in files:
        try:
            with safe_open(file, "numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 - a handle, not a dict
                    part = opened.get_slice(name)
                    where[name] = _Stored(file, str(part.get_dtype()), tuple(part.get_shape()))
        except FileNotFoundError:
            raise CheckpointError(f"{file}: missing, though {index.name} lists it") from None
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: truncated or not safetensors ({error})") from None
    lost = sorted(weight_map.keys() - where.keys())
    if lost:
        raise CheckpointError(f"{path}: {index.name} lists tensors that no shard holds: {', '.join(lost[:3])}")
    return where


def _field(config: dict[str, Any], key: str, where: str) -> Any:
    if config.get(key) is None:
        raise CheckpointError(f"{where}: no {key!r}")
    return config[key]


def _only(config: dict[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> None:
    """Refuse a config field whose value this export does not implement; absent is fine."""
    if key in config and config[key] not in allowed:
        raise CheckpointError(
            f"{where}: {key} is {config[key]!r}, supported is {' or '.join(map(repr, allowed))}"
        )


def _text_spec(config: dict[str, Any], path: Path, where: str) -> TextSpec:
    _only(config, "hidden_act", ("silu",), where)
    _only(config, "attention_bias", (False, None), where)
    _only(config, "mlp_bias", (False, None), where)
    _only(config, "pretraining_tp", (1, None), where)
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{where}: RoPE scaling {kind!r} is not supported, only plain RoPE")
    hidden, heads = int(_field(config, "hidden_size", where)), int(_field(config, "num_attention_heads", where))
    generation = _read_json(path / "generation_config.json") if (path / "generation_config.json").exists() else {}
    eos = [e for source in (config, generation) for e in _as_list(source.get("eos_token_id"))] or [2]
    return TextSpec(
        hidden=hidden,
        layers=int(_field(config, "num_hidden_layers", where)),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        ffn=int(_field(config, "intermediate_size", where)),
        vocab=int(_field(config, "vocab_size", where)),
        eps=float(_field(config, "rms_norm_eps", where)),
        rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        context=int(_field(config, "max_position_embeddings", where)),
        bos=int(config["bos_token_id"] if config.get("bos_token_id") is not None else 1),
        eos=tuple(dict.fromkeys(eos)),
    )


def _as_list(value: Any) -> list[int]:
    return [] if value is None else [int(v) for v in value] if isinstance(value, list) else [int(value)]


def _vision_spec(config: dict[str, Any], select_layer: int, where: str) -> VisionSpec:
    layers = int(_field(config, "num_hidden_layers", where))
    # hidden_states[0] is the embeddings' output, so hidden_states[k] needs k layers; -1 is hidden_states[layers].
    used = select_layer if select_layer >= 0 else layers + 1 + select_layer
    if not 0 < used <= layers:
        raise CheckpointError(f"{where}: feature layer {select_layer} of a tower with {layers} layers")
    _only(config, "hidden_act", ("quick_gelu", "gelu"), where)
    spec = VisionSpec(
        image_size=int(_field(config, "image_size", where)),
        patch_size=int(_field(config, "patch_size", where)),
        width=int(_field(config, "hidden_size", where)),
        heads=int(_field(config, "num_attention_heads", where)),
        layers=layers,
        feature_layers=used,
        mlp=int(_field(config, "intermediate_size", where)),
        activation=config.get("hidden_act", "quick_gelu"),
        eps=float(config.get("layer_norm_eps", 1e-5)),
    )
    if spec.image_size % spec.patch_size or spec.width % spec.heads:
        raise CheckpointError(f"{where}: image {spec.image_size} / patch {spec.patch_size} or width {spec.width} / "
                              f"heads {spec.heads} does not divide")
    return spec


def _published_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """`llava_llama`: one flat config; the tower's own config is known by name, or lies beside the weights."""
    where = str(path / "config.json")
    _only(config, "mm_vision_select_feature", ("patch",), where)
    _only(config, "mm_use_im_start_end", (False, None), where)
    _only(config, "mm_use_im_patch_token", (False, None), where)
    kind = str(config.get("mm_projector_type", "linear"))
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(f"{where}: mm_projector_type {kind!r} is not supported, only linear and mlpNx_gelu")
    tower = str(config.get("mm_vision_tower", config.get("vision_tower", "")))
    beside = path / "vision_config.json"
    vision = _read_json(beside) if beside.exists() else KNOWN_TOWERS.get(tower)
    if vision is None:
        raise CheckpointError(
            f"{where}: vision tower {tower!r} is not one of {', '.join(KNOWN_TOWERS)}; "
            "put its config as vision_config.json beside the weights"
        )
    side = _vision_spec(vision.get("vision_config", vision), int(config.get("mm_vision_select_layer", -2)), where)
    aspect = config.get("image_aspect_ratio") or "square"
    grids = config.get("image_grid_pinpoints") or []
    image = _image_spec(path, where, side.image_size, aspect, grids, config.get("mm_patch_merge_type") or "flat")
    return ModelSpec(side, int(match[1]) if match else 1, _text_spec(config, path, where), image, _prompt_spec(path))


def _hf_spec(config: dict[str, Any], path: Path) -> ModelSpec:
    """The Hugging Face conversions: nested configs; grids as (height, width)."""
    where = str(path / "config.json")
    _only(config, "vision_feature_select_strategy", ("default",), where)
    _only(config, "projector_hidden_act", ("gelu",), where)
    _only(config, "multimodal_projector_bias", (True,), where)
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    _only(text, "model_type", ("llama",), f"{where} text_config")
    _only(vision, "model_type", ("clip_vision_model",), f"{where} vision_config")
    text = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "intermediate_size": 11008,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "vocab_size": 32000} | text  # LlamaConfig's defaults
    side = _vision_spec(CLIP_L_336 | vision, int(config.get("vision_feature_layer", -2)), f"{where} vision_config")
    following = config["architectures"][0] == "LlavaNextForConditionalGeneration"
    grids = [(w, h) for h, w in config.get("image_grid_pinpoints") or []] if following else []
    preprocessor = path / "preprocessor_config.json"
    processing = _read_json(preprocessor) if preprocessor.exists() else {}
    aspect = "anyres" if following else "pad" if processing.get("do_pad") else "square"
    image = _image_spec(path, where, side.image_size, aspect, grids, "spatial_unpad" if following else "flat")
    return ModelSpec(side, 2, _text_spec(text, path, f"{where} text_config"), image, _prompt_spec(path))


def _image_spec(path: Path, where: str, side: int, aspect: Any, grids: Any, merge: Any) -> ImageSpec:
    if aspect not in ("anyres", "pad", "square"):
        raise CheckpointError(f"{where}: image_aspect_ratio {aspect!r} is not supported, only anyres, pad and square")
    if merge not in ("flat", "spatial_unpad"):
        raise CheckpointError(f"{where}: mm_patch_merge_type {merge!r} is not supported, only flat and spatial_unpad")
    if isinstance(grids, str):  # some configs hold the list as text
        grids = json.loads(grids.replace("(", "[").replace(")", "]"))
    pairs = tuple((int(w), int(h)) for w, h in grids)
    if aspect == "anyres" and (not pairs or any(edge % side for pair in pairs for edge in pair)):
        raise CheckpointError(f"{where}: image_grid_pinpoints {list(pairs)} must be multiples of {side}, and not empty")
    preprocessor = path / "preprocessor_config.json"
    p = _read_json(preprocessor) if preprocessor.exists() else {}
    _only(p, "resample", (3,), str(preprocessor))  # PIL's bicubic
    _only(p, "rescale_factor", (1 / 255,), str(preprocessor))
    for flag in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        _only(p, flag, (True,), str(preprocessor))
    mean, std = (tuple(float(x) for x in p.get(k, d)) for k, d in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD)))
    return ImageSpec(aspect, pairs if aspect == "anyres" else (), mean, std, merge)  # type: ignore[arg-type]


def _prompt_spec(path: Path) -> PromptSpec:
    config = path / "tokenizer_config.json"
    legacy = _read_json(config).get("legacy") if config.exists() else None
    return PromptSpec(**VICUNA, legacy=legacy is not False)  # HF's slow tokenizer takes an absent flag as true
