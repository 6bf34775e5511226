"""Checkpoints whose configuration or files were changed.

A changed field that describes the model makes another specification, or it is refused; it is not
ignored. Files that are cut off or whose headers are wrong are refused. What is accepted can be
exported, and what was exported answers.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pulse_edge
from pulse_edge.errors import ContextError, PulseEdgeError
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export

from fuzz.bytes_ import DAMAGE, truncate
from fuzz.campaign import SILENT, Counts, Finding, attempt
from fuzz.json_ import Place, change, find
from support import tiny

EXPORTED = 8  # one in so many checkpoints that are accepted is exported, which takes longest
TINY: dict[str, Any] = {"layers": 1, "vision_layers": 2, "context": 256}
FORMS: tuple[dict[str, Any], ...] = (
    TINY,
    TINY | {"layout": "hf_next", "shards": 2, "merge": "spatial_unpad"},
    TINY | {"layout": "hf_llava", "dtype": "bfloat16"},
    TINY | {"tied": True, "kv_heads": 2, "dtype": "float16"},
)
# Fields that describe how a model was trained, stored or shown, and not what it computes.
HARMLESS = {
    *("_name_or_path", "torch_dtype", "dtype", "transformers_version", "use_cache", "name_or_path"),
    *("initializer_range", "attention_dropout", "pretraining_tp", "pad_token_id", "ignore_index"),
    *("freeze_mm_mlp_adapter", "freeze_mm_vision_resampler", "mm_projector_lr", "use_mm_proj"),
    *("mm_vision_tower_lr", "tune_mm_mlp_adapter", "unfreeze_mm_vision_tower", "padding_side"),
    *("mm_vision_tower", "tokenizer_padding_side", "tokenizer_model_max_length", "projection_dim"),
    *("image_crop_resolution", "image_split_resolution", "image_processor_type", "pad_token"),
    *("model_max_length", "clean_up_tokenization_spaces", "use_default_system_prompt"),
    *("sp_model_kwargs", "image_seq_length", "use_image_newline_parameter", "do_pad"),
    *("tokenizer_class", "unk_token", "bos_token", "eos_token", "metadata", "architectures"),
    *("image_token_index", "do_center_crop"),  # the slot is ours; views are squares already
    # of tokens that stand in no prompt but at its start and between turns, without spaces
    *("lstrip", "rstrip", "normalized", "single_word", "special"),
}
# Tensors that the model does not use: the tower's features are those of the layer before the last.
UNUSED = ("post_layernorm", f"encoder.layers.{TINY['vision_layers'] - 1}.", "image_newline")


class Checkpoints:
    """The campaign. A case works on a copy of one of its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seeds = []
        for number, options in enumerate(FORMS):
            path = tiny.make_checkpoint(folder / f"checkpoint{number}", **options)
            self._seeds.append((path, Checkpoint(path)))

    def case(self, number: int, rng: random.Random) -> Counts:
        path, sound = self._seeds[number % len(self._seeds)]
        copy = Path(shutil.copytree(path, self._folder / "copy"))
        try:
            match rng.randrange(8):
                case 0:
                    return _damaged(copy, rng, sound)
                case 1:
                    return _weights(copy, rng, sound)
                case 2:
                    return _entry(copy, rng, sound)
            return _field(copy, rng, sound)
        finally:
            shutil.rmtree(self._folder / "copy")
            shutil.rmtree(self._folder / "bundle", ignore_errors=True)


def _open(path: Path) -> Checkpoint | PulseEdgeError:
    """The checkpoint with all its tensors read."""

    def read() -> Checkpoint:
        checkpoint = Checkpoint(path)
        checkpoint.info()
        return checkpoint

    return attempt(read)


def _same(found: Checkpoint, sound: Checkpoint) -> bool:
    return (found.spec, found.tied) == (sound.spec, sound.tied)


def _field(path: Path, rng: random.Random, sound: Checkpoint) -> Counts:
    """One value of a JSON file."""
    file = rng.choice(sorted(path.glob("*.json")))
    data = json.loads(file.read_text())
    changed, place = change(data, rng)
    try:
        file.write_text(json.dumps(changed), "utf-8")
    except (TypeError, ValueError):
        return {"not JSON": 1}
    found = _open(path)
    if isinstance(found, PulseEdgeError):
        return {"field refused": 1}
    if changed != data and _same(found, sound) and not _harmless(file.name, changed, data, place):
        shown = f"{file.name}: {'.'.join(map(str, place))}: {_shown(data, place)}"
        raise Finding(SILENT, f"{shown} -> {_shown(changed, place)} changes nothing")
    if rng.randrange(EXPORTED) == 0:
        _must_answer(path)
    return {"field, the same": 1} if _same(found, sound) else {"field, another model": 1}


def _harmless(file: str, changed: Any, data: Any, place: Place) -> bool:
    """Whether a change says nothing of what the model computes."""
    value, before = _value(changed, place), _value(data, place)
    default = value is None or before is None or value == before
    # A field under a name that nobody knows, or one that is not there, says nothing.
    unknown = isinstance(changed, dict) and set(map(str, changed)) - set(map(str, data))
    if default or unknown or HARMLESS & set(map(str, place)):
        return True
    if place[-1] in ("vision_feature_layer", "mm_vision_select_layer"):
        # Layers are counted from either end: of 3 states, 1 and -2 are the same.
        states = TINY["vision_layers"] + 1
        return all(type(layer) is int for layer in (value, before)) and value % states == (
            before % states
        )
    return "added_tokens_decoder" in place and _contents(changed) <= _contents(data)


def _contents(tokenizer: Any) -> set[tuple[str, str]]:
    """(id, text) of the added tokens. Fewer say nothing: the tokenizer's model has them too."""
    added = _value(tokenizer, ("added_tokens_decoder",))
    tokens = added if isinstance(added, dict) else {}
    return {
        (key, repr(token["content"]))
        for key, token in tokens.items()
        if isinstance(token, dict) and "content" in token
    }


def _must_answer(path: Path) -> None:
    """Export it; what was exported must load and answer."""
    out = path.with_name("bundle")
    done = attempt(lambda: export(path, out, precision="fp32"))
    if isinstance(done, PulseEdgeError):
        return
    found = attempt(
        lambda: pulse_edge.load(out, threads=1).ask(None, "Rate?", max_new_tokens=2).text
    )
    # A context that is too short for the question is the question's fault.
    if isinstance(found, PulseEdgeError) and not isinstance(found, ContextError):
        raise Finding(SILENT, f"exported, but the bundle does not answer: {found}")


def _damaged(path: Path, rng: random.Random, sound: Checkpoint) -> Counts:
    """The bytes of a JSON file or of the tokenizer."""
    names = sorted(p for p in path.iterdir() if p.suffix in (".json", ".model"))
    file = rng.choice(names)
    before = file.read_bytes()
    changed = DAMAGE[rng.choice(list(DAMAGE))](before, rng)
    file.write_bytes(changed)
    found = _open(path)
    if isinstance(found, PulseEdgeError):
        return {"damage refused": 1}
    if file.suffix == ".model" and found.info() == sound.info() and changed != before:
        raise Finding(SILENT, "another tokenizer has the same identity")
    return {"damage accepted": 1}


def _weights(path: Path, rng: random.Random, sound: Checkpoint) -> Counts:
    """The header or the length of a file of weights, or a bit of a tensor."""
    file = rng.choice(sorted(path.glob("*.safetensors")))
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    at = rng.randrange(8 + length, len(data))
    kind = rng.choice(("header", "fields", "length", "cut", "tensor"))
    match kind:
        case "header":
            text = DAMAGE[rng.choice(list(DAMAGE))](data[8 : 8 + length], rng)
            changed = struct.pack("<Q", len(text)) + text + data[8 + length :]
        case "fields":
            header, _ = change(json.loads(data[8 : 8 + length]), rng)
            try:
                text = json.dumps(header).encode()
            except (TypeError, ValueError):
                return {"not JSON": 1}
            changed = struct.pack("<Q", len(text)) + text + data[8 + length :]
        case "length":
            size = rng.choice((0, 1, length - 1, length + 8, len(data), 2**40, 2**63, 2**64 - 1))
            changed = struct.pack("<Q", size) + data[8:]
        case "cut":
            changed = truncate(data, rng)
        case _:
            changed = data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    file.write_bytes(changed)
    found = _open(path)
    if isinstance(found, PulseEdgeError):
        return {"weights refused": 1}
    if kind == "cut" and changed != data:
        raise Finding(SILENT, f"{file.name} was accepted with {len(changed)} of {len(data)} bytes")
    if kind == "tensor" and found.info().sha256 == sound.info().sha256:
        name = _tensor_at(data, at)
        if not any(part in name for part in UNUSED):
            raise Finding(SILENT, f"another {name} has the same identity")
    return {"weights accepted": 1}


def _tensor_at(data: bytes, at: int) -> str:
    """The name of the tensor that a byte of a file belongs to."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            if start <= at - 8 - length < end:
                return str(name)
    return "byte of no tensor"


def _entry(path: Path, rng: random.Random, sound: Checkpoint) -> Counts:
    """A file more, less, or in the place of another."""
    names = sorted(p.name for p in path.iterdir())
    name, other = rng.choice(names), rng.choice(names)
    match rng.randrange(5):
        case 0:
            (path / name).unlink()
        case 1:
            (path / name).write_bytes((path / other).read_bytes())
        case 2:
            (path / "more.safetensors").write_bytes((path / other).read_bytes())
        case 3:
            (path / rng.choice(("pytorch_model.bin", "adapter_config.json", "x.gguf"))).touch()
        case _:
            (path / name).unlink()
            (path / name).mkdir()
    found = _open(path)
    if isinstance(found, PulseEdgeError):
        return {"entry refused": 1}
    kind = "the same" if _same(found, sound) else "another model"
    return {f"entry, {kind}": 1}


def _value(data: Any, place: Place) -> Any:
    """What is in a place; None if it is not there."""
    try:
        return find(data, place)
    except (KeyError, IndexError, TypeError):
        return None


def _shown(data: Any, place: Place) -> str:
    return f"{_value(data, place)!r:.60}"
