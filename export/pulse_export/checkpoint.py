"""A checkpoint directory -> `ModelSpec` and tensors, one at a time.

Tensors get canonical names. Three layouts are read, each a row of `LAYOUTS`: LLaVA as its authors
publish it (`llava_llama`) and the two Hugging Face conversions. Problems are found before any work
is done, and named: config fields that this export does not implement; missing, surplus, misshapen
or truncated tensors.

Canonical names: `vision.` + CLIP's name below `vision_model.`; `projector.{0,2,…}.`;
`image_newline`; and the Llama names below `model.` (`embed_tokens.weight`, `layers.N.…`,
`norm.weight`), `lm_head.weight`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.manifest import TOKENIZER, CheckpointInfo
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import BundleError, CheckpointError
from pulse_edge.text.tokenizer import Tokenizer
from pulse_export.config import architecture, hf_spec, is_tied, published_spec, read_json
from pulse_export.threads import over_rows

Floats = NDArray[np.float32]
Tensors = Callable[[str], Floats]  # canonical name -> tensor

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}  # bytes
CONVERTED = 1 << 21  # elements a thread converts at a time


@dataclass(frozen=True)
class TensorLayout:
    """The prefixes of each part's tensors in a family of checkpoints, newest last."""

    vision: tuple[str, ...]
    projector: tuple[str, ...]
    projector_names: dict[int, str]  # index in mlp2x_gelu's Sequential -> name
    newline: tuple[str, ...]
    text: tuple[str, ...]
    head: tuple[str, ...]


_HF = TensorLayout(
    vision=(
        "vision_tower.vision_model.",
        "model.vision_tower.vision_model.",
        "model.vision_tower.",
    ),
    projector=("multi_modal_projector.", "model.multi_modal_projector."),
    projector_names={0: "linear_1.", 2: "linear_2."},
    newline=("image_newline", "model.image_newline"),
    text=("language_model.model.", "model.language_model."),
    head=("language_model.lm_head.weight", "lm_head.weight"),
)
LAYOUTS = {
    "LlavaLlamaForCausalLM": TensorLayout(
        vision=(
            "model.vision_tower.vision_tower.vision_model.",
            "model.vision_tower.vision_tower.",
        ),
        projector=("model.mm_projector.",),
        projector_names={i: f"{i}." for i in range(0, 16, 2)},
        newline=("model.image_newline",),
        text=("model.",),
        head=("lm_head.weight",),
    ),
    "LlavaNextForConditionalGeneration": _HF,
    "LlavaForConditionalGeneration": _HF,
}
CONVERT = (
    'python -c "import glob, torch, safetensors.torch as s; '
    "[s.save_file({{k: v.clone().contiguous() for k, v in "
    "torch.load(f, weights_only=True).items()}}, f[:-3] + 'safetensors') "
    "for f in glob.glob('{path}/*.bin')]\""
)
# Present in real checkpoints, not part of the network we run.
IGNORED = re.compile(r"(position_ids|rotary_emb\.inv_freq|post_layernorm\.(weight|bias))$")


class Checkpoint:
    """An opened and checked checkpoint directory. Raises `CheckpointError` from the constructor."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        config = _read_config(self.path)
        where = str(self.path / "config.json")
        self.architecture = architecture(config, where)
        if self.architecture not in LAYOUTS:
            raise CheckpointError(
                f"{self.path}: architecture {self.architecture!r:.60} is not supported; "
                f"supported are {', '.join(LAYOUTS)}"
            )
        published = self.architecture == "LlavaLlamaForCausalLM"
        self.spec = (published_spec if published else hf_spec)(config, self.path)
        self.tied = is_tied(config, where)
        _check_tokenizer(self.path / TOKENIZER, self.spec)
        self._where = _index_tensors(self.path)
        self._names = self._resolve(LAYOUTS[self.architecture])
        self._digests: dict[str, Future[bytes]] = {}
        self._hasher = ThreadPoolExecutor(1)

    def _resolve(self, layout: TensorLayout) -> dict[str, str]:
        """Canonical name -> stored name; refuses what is missing, surplus or misshapen."""
        names: dict[str, str] = {}
        missing, wrong = [], []
        expected = dict(_expected(self.spec, self.tied))
        for name, shape in expected.items():
            stored = next((c for c in _candidates(name, layout) if c in self._where), None)
            if stored is None:
                missing.append(name)
            elif self._where[stored].shape != shape:
                wrong.append(
                    f"{stored} is {list(self._where[stored].shape)}, config.json says {list(shape)}"
                )
            else:
                names[name] = stored
        used = set(names.values())
        surplus = sorted(n for n in self._where.keys() - used if not self._ignorable(n, layout))
        for problem, found in (("missing", missing), ("misshapen", wrong), ("unknown", surplus)):
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise CheckpointError(
                    f"{self.path}: {problem} tensors: {', '.join(found[:3])}{more}"
                )
        bad = sorted(
            {f"{s} ({self._where[s].dtype})" for s in used if self._where[s].dtype not in DTYPES}
        )
        if bad:
            raise CheckpointError(
                f"{self.path}: tensors must be {', '.join(DTYPES)}, but: {', '.join(bad[:3])}"
            )
        return names

    def _ignorable(self, stored: str, layout: TensorLayout) -> bool:
        """Whether the network does without a stored tensor: buffers, the tower's layers behind the
        feature layer, an unused newline or head."""
        if (
            IGNORED.search(stored)
            or stored in layout.newline
            or (self.tied and stored in layout.head)
        ):
            return True
        layer = re.search(r"encoder\.layers\.(\d+)\.", stored)
        vision = self.spec.vision
        return (
            layer is not None
            and stored.startswith(layout.vision)
            and (vision.feature_layers <= int(layer[1]) < vision.layers)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the tensors there are."""
        return tuple(self._names)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32, read now and not kept.

        A tied checkpoint gives the embeddings for `lm_head.weight`.
        """
        return _float32(
            self._raw(self._names["embed_tokens.weight" if name not in self._names else name])
        )

    def elements(self, name: str) -> int:
        return math.prod(self._where[self._names[name]].shape)

    def stored_size(self, name: str) -> int:
        """Bytes in the checkpoint. A tied head has none of its own."""
        stored = self._names.get(name)
        return WIDTHS[self._where[stored].dtype] * self.elements(name) if stored else 0

    def _raw(self, stored: str) -> NDArray[Any]:
        import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
        from safetensors import safe_open

        # Opened for each tensor: a mapping that stays open keeps every page that was read resident.
        with safe_open(self._where[stored].file, "numpy") as file:
            array: NDArray[Any] = file.get_tensor(stored)
        if stored not in self._digests:
            if self._digests:  # no more than one is kept for its hash
                next(reversed(self._digests.values())).result()
            self._digests[stored] = self._hasher.submit(_digest, array)
            if array.dtype == np.float32:
                # Hash it now: the caller gets this array, not a copy, and may write to it.
                self._digests[stored].result()
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
            total.update(
                f"{name} {where.dtype} {where.shape} ".encode() + self._digests[stored].result()
            )
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


def _digest(array: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).digest()


def _float32(array: NDArray[Any]) -> Floats:
    """The same values as float32.

    bfloat16 is converted by its bits, which are float32's upper half. numpy's own cast would hold
    the interpreter's lock, so that threads would not help.
    """
    if array.dtype == np.float32:
        return array
    out = np.empty(array.shape, np.float32)
    wide, narrow = out.reshape(-1), array.reshape(-1)
    by_bits = array.dtype.name == "bfloat16"

    def convert(at: slice) -> None:
        if by_bits:
            np.left_shift(
                narrow[at].view(np.uint16), 16, out=wide[at].view(np.uint32), dtype=np.uint32
            )
        else:
            wide[at] = narrow[at]

    over_rows(convert, wide.size, CONVERTED)
    return out


@dataclass(frozen=True)
class _Stored:
    file: Path
    dtype: str
    shape: tuple[int, ...]


def _candidates(name: str, layout: TensorLayout) -> list[str]:
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
        return [
            prefix + n
            for prefix in layout.projector
            for n in ((stored, leaf) if index == "0" else (stored,))
        ]
    return [prefix + name for prefix in layout.text]


def _expected(spec: ModelSpec, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Canonical name and shape of every tensor the network needs."""
    v, t = spec.vision, spec.text
    yield "vision.embeddings.class_embedding", (v.width,)
    yield "vision.embeddings.patch_embedding.weight", (v.width, 3, v.patch_size, v.patch_size)
    yield "vision.embeddings.position_embedding.weight", (v.grid**2 + 1, v.width)
    yield from _affine_shapes("vision.pre_layrnorm", (v.width,))
    for i in range(v.feature_layers):
        layer = f"vision.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _affine_shapes(f"{layer}.{norm}", (v.width,))
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine_shapes(f"{layer}.self_attn.{proj}", (v.width, v.width))
        yield from _affine_shapes(f"{layer}.mlp.fc1", (v.mlp, v.width))
        yield from _affine_shapes(f"{layer}.mlp.fc2", (v.width, v.mlp))
    for depth in range(spec.projector_depth):
        yield from _affine_shapes(
            f"projector.{2 * depth}", (t.hidden, t.hidden if depth else v.width)
        )
    if spec.image.merge == "spatial_unpad":
        yield "image_newline", (t.hidden,)
    yield "embed_tokens.weight", (t.vocab, t.hidden)
    heads, kv = t.heads * t.head_size, t.kv_heads * t.head_size
    for i in range(t.layers):
        layer = f"layers.{i}"
        yield f"{layer}.input_layernorm.weight", (t.hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (t.hidden,)
        for proj, rows in (("q", heads), ("k", kv), ("v", kv)):
            yield f"{layer}.self_attn.{proj}_proj.weight", (rows, t.hidden)
        yield f"{layer}.self_attn.o_proj.weight", (t.hidden, heads)
        for proj, shape in (
            ("gate", (t.ffn, t.hidden)),
            ("up", (t.ffn, t.hidden)),
            ("down", (t.hidden, t.ffn)),
        ):
            yield f"{layer}.mlp.{proj}_proj.weight", shape
    yield "norm.weight", (t.hidden,)
    if not tied:
        yield "lm_head.weight", (t.vocab, t.hidden)


def _affine_shapes(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: not a directory")
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path}: no config.json, so not a checkpoint directory")
    if not (path / TOKENIZER).exists():
        hint = (
            "; tokenizer.json alone is not enough, "
            "copy tokenizer.model from the original checkpoint"
            if ((path / "tokenizer.json").exists())
            else ""
        )
        raise CheckpointError(f"{path}: no {TOKENIZER} (SentencePiece){hint}")
    return read_json(path / "config.json")


def _check_tokenizer(path: Path, spec: ModelSpec) -> None:
    try:
        pieces = Tokenizer(path, spec.prompt.legacy).size
    except BundleError as error:
        raise CheckpointError(str(error)) from None
    if pieces > spec.text.vocab:
        raise CheckpointError(
            f"{path}: {pieces} pieces, but config.json says vocab_size {spec.text.vocab}"
        )


def _index_tensors(path: Path) -> dict[str, _Stored]:
    """Stored name -> file, dtype, shape, for one file or the shards that the index lists."""
    from safetensors import SafetensorError, safe_open

    index = path / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index}: no weight_map that names the shards")
        odd = [
            f
            for f in weight_map.values()
            if not isinstance(f, str) or not f.isprintable() or Path(f).name != f
        ]
        if odd:
            raise CheckpointError(f"{index}: {odd[0]!r:.60} is not the name of a file beside it")
        files = sorted({path / f for f in weight_map.values()})
    else:
        weight_map, files = {}, sorted(path.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for p in path.glob("*.bin")) + sorted(
            p.name for p in path.glob("*.pth")
        )
        if pickled:
            raise CheckpointError(
                f"{path}: only pickled weights ({pickled[0]}), "
                "which can run code when loaded, so they are not read; "
                f"convert them where torch is installed: {CONVERT.format(path=path)}"
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
        raise CheckpointError(
            f"{path}: {index.name} lists tensors that no shard holds: {', '.join(lost[:3])}"
        )
    return where
