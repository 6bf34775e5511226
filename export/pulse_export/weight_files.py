"""A checkpoint's safetensors files -> which file holds which tensor.

The rule is transformers': `model.safetensors`, or else the shards that
`model.safetensors.index.json` lists. Other files in the directory are not read. The index decides
for each tensor; where a shard and the index disagree, nothing is guessed. Files may be links:
Hugging Face's cache consists of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pulse_edge.errors import CheckpointError
from pulse_export.adapters import ADAPTER_CONFIG, LLAVA_PART, merge_advice
from pulse_export.strict_json import parse_json, read_json

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
FORMATS = ("pt", None)  # others store matrices turned, or in an order of their own
# Buffers that real checkpoints hold and the network does without.
IGNORED = re.compile(r"(position_ids|rotary_emb\.inv_freq|post_layernorm\.(weight|bias))$")
UNQUANTIZED = "export from the checkpoint before its quantization; this export quantizes itself"
MERGE = ""  # stands for `merge_advice`
# Files that make a directory something else than a whole, unquantized model.
FOREIGN_FILES = {
    LLAVA_PART: ("LLaVA's LoRA training", MERGE),
    ADAPTER_CONFIG: ("an adapter (LoRA)", MERGE),
    "adapter_model.safetensors": ("an adapter (LoRA)", MERGE),
    "adapter_model.bin": ("an adapter (LoRA)", MERGE),
    "quantize_config.json": ("a quantized model (GPTQ)", UNQUANTIZED),
    "quant_config.json": ("a quantized model (AWQ)", UNQUANTIZED),
    "hf_quant_config.json": ("a quantized model (ModelOpt)", UNQUANTIZED),
}
CONVERT = (
    'python -c "import glob, torch, safetensors.torch as s; '
    "[s.save_file({{k: v.clone().contiguous() for k, v in "
    "torch.load(f, weights_only=True).items()}}, f[:-3] + 'safetensors') "
    "for f in glob.glob('{path}/*.bin')]\""
)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is, and what it is there."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def refuse_foreign_files(path: Path) -> None:
    """Refuse a directory that is something else than a whole, unquantized model.

    Args:
        path: the directory.

    Raises:
        CheckpointError: it is. The message names the file that says so, and what to do.
    """
    for name, (kind, advice) in FOREIGN_FILES.items():
        if (path / name).exists():
            advice = advice or merge_advice(path)
            raise CheckpointError(f"{path}: {name} says that this is {kind}; {advice}")


def index_tensors(path: Path) -> dict[str, StoredTensor]:
    """Stored name -> place, of one file or of the shards that the index lists.

    Args:
        path: the checkpoint's directory.

    Returns:
        All tensors of the files that transformers would read.

    Raises:
        CheckpointError: there are no such files, one is damaged, or index and files disagree.
    """
    index = path / INDEX
    single = path / SINGLE
    if not index.exists():
        if not single.exists():
            raise CheckpointError(_nothing_to_read(path))
        return dict(_tensors(single))
    weight_map = _weight_map(index)
    if single.exists() and set(weight_map.values()) != {SINGLE}:
        raise CheckpointError(
            f"{path}: both {SINGLE} and {INDEX}; transformers would read {SINGLE}; "
            "delete the one that is not of this model"
        )
    holders: dict[str, dict[str, StoredTensor]] = {}
    for file in sorted(set(weight_map.values())):
        for name, tensor in _tensors(path / file, INDEX):
            holders.setdefault(name, {})[file] = tensor
    for name, held in holders.items():
        _check_place(path, name, sorted(held), weight_map.get(name))
    lost = sorted(weight_map.keys() - holders.keys())
    if lost:
        raise CheckpointError(
            f"{path}: {INDEX} lists tensors that no shard holds: {', '.join(lost[:3])}"
        )
    return {name: holders[name][file] for name, file in weight_map.items()}


def _check_place(path: Path, name: str, files: list[str], stated: str | None) -> None:
    """Refuse a tensor that lies elsewhere than the index says, or not only there."""
    if files == [stated] or (stated is None and IGNORED.search(name)):
        return
    says = f"says {stated}" if stated else "does not list it"
    raise CheckpointError(
        f"{path}: tensor {name} is in {' and in '.join(files[:3])}, but {INDEX} {says}; "
        "get the files again, all of one version"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """The index: stored name -> name of a file beside it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no weight_map that names the shards")
    for file in weight_map.values():
        plain = isinstance(file, str) and file.isprintable() and Path(file).name == file
        if not plain or file in ("", ".", "..") or "\\" in file:
            raise CheckpointError(f"{index}: {file!r:.60} is not the name of a file beside it")
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {file!r:.60} is no safetensors file")
    return weight_map


def _tensors(file: Path, listed_in: str = "") -> Iterator[tuple[str, StoredTensor]]:
    """Name and place of each tensor in a file."""
    from safetensors import SafetensorError, safe_open

    if file.exists() and not file.is_file():
        raise CheckpointError(f"{file}: not a file; put the weights there")
    try:
        with safe_open(file, "numpy") as opened:  # checks that the tensors fill the file
            metadata = opened.metadata() or {}
            _check_header(file)
            for name in opened.keys():  # noqa: SIM118 - a handle, not a dict
                part = opened.get_slice(name)
                yield name, StoredTensor(file, str(part.get_dtype()), tuple(part.get_shape()))
    except FileNotFoundError:
        reason = f"though {listed_in} lists it" if listed_in else "or a link that leads nowhere"
        raise CheckpointError(f"{file}: missing, {reason}; get it again") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: truncated or not safetensors ({error!s:.200})") from None
    if metadata.get("format") not in FORMATS:
        raise CheckpointError(
            f"{file}: its format is {metadata['format']!r:.60}, supported is 'pt'; "
            "save the model from PyTorch"
        )


def _check_header(file: Path) -> None:
    """Refuse a header with two equal names: safetensors takes the last without a word."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        parse_json(opened.read(min(size, LARGEST_HEADER)), f"{file}: header")


def _nothing_to_read(path: Path) -> str:
    """Why there is nothing that transformers would read."""
    pickled = sorted(p.name for p in path.glob("*.bin")) + sorted(
        p.name for p in path.glob("*.pth")
    )
    strange = sorted(p.name for p in path.glob("*.safetensors"))
    if strange:
        return (
            f"{path}: no {SINGLE} and no {INDEX}, so nothing says that {strange[0]} is the model; "
            f"rename it if it is the whole model, or get {INDEX}"
        )
    if pickled:
        return (
            f"{path}: only pickled weights ({pickled[0]}), "
            "which can run code when loaded, so they are not read; "
            f"convert them where torch is installed: {CONVERT.format(path=path)}"
        )
    return f"{path}: no *.safetensors"
