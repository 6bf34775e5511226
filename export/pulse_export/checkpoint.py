"""A checkpoint directory -> `ModelSpec` and tensors, one at a time.

Tensors get canonical names. Three layouts are read, each a row of `layouts.LAYOUTS`: LLaVA as its
authors publish it (`llava_llama`) and the two Hugging Face conversions. Problems are found before
any work is done, and named: config fields that this export does not implement; another tokenizer or
chat template; missing, surplus, misshapen or truncated tensors.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.limits import model_problem
from pulse_edge.bundle.manifest import CheckpointInfo
from pulse_edge.errors import CheckpointError
from pulse_export.config import (
    architecture,
    check_attention,
    hf_spec,
    is_tied,
    published_spec,
    tower_fields,
    tower_name,
)
from pulse_export.families import PUBLISHED_FAMILIES
from pulse_export.fields import Fields
from pulse_export.layouts import (
    LAYOUTS,
    TensorLayout,
    expected_tensors,
    foreign_hint,
    stored_names,
)
from pulse_export.network.optimum.config import OPTIMUM, OWN
from pulse_export.strict_json import read_json
from pulse_export.threads import over_rows
from pulse_export.tokenizer_files import fitted_to_tokenizer, tokenizer_name
from pulse_export.weight_files import IGNORED, index_tensors, refuse_foreign_files

Floats = NDArray[np.float32]
Tensors = Callable[[str], Floats]  # canonical name -> tensor

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}  # bytes
CONVERTED = 1 << 21  # elements a thread converts at a time
HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"


class Checkpoint:
    """An opened and checked checkpoint directory.

    Args:
        path: the directory.
        template: the conversation format, whatever the checkpoint's chat templates say; None to
            refuse foreign ones.
        network: who writes the vision tower, of `NETWORKS`.
        context: of the bundle, in tokens; None for the model's own.

    Attributes:
        tokenizer: name of its file.
        tower: the vision tower's config.
        strategy: whether the tower's first token is dropped ("default") or all are kept ("full").

    Raises:
        CheckpointError: the checkpoint cannot be exported. The message says what to do.
    """

    def __init__(
        self,
        path: str | Path,
        template: str | None = None,
        network: str = OWN,
        context: int | None = None,
    ) -> None:
        self.path = Path(path)
        config = _read_config(self.path)
        self.architecture = architecture(config)
        if self.architecture not in LAYOUTS:
            raise CheckpointError(
                f"{self.path}: architecture {self.architecture!r:.60} is not supported; "
                f"supported are {', '.join(LAYOUTS)}"
            )
        published = self.architecture in PUBLISHED_FAMILIES
        self.network = network
        self.tower = tower_fields(config, self.path)
        self.strategy: str = config.get("vision_feature_select_strategy", "default")
        spec = (published_spec if published else hf_spec)(config, self.path, template, network)
        self.tokenizer = tokenizer_name(self.path)
        text = fitted_to_tokenizer(spec, self.path)
        self.spec = replace(spec, text=text)
        if problem := model_problem(self.spec):  # no bundle with it would load
            raise CheckpointError(f"{self.path}: {problem}; expected a LLaVA checkpoint's values")
        check_attention(config, context or text.context)
        self.tied = is_tied(config)
        self._where = index_tensors(self.path)
        layout = LAYOUTS[self.architecture]
        if not any(name.startswith(layout.vision) for name in self._where):
            raise CheckpointError(f"{self.path}: {_missing_tower(config)}")
        self._names = self._resolve(layout)
        if self.tied:
            self._check_tied_head(layout)
        self._digests: dict[str, Future[bytes]] = {}
        self._hasher = ThreadPoolExecutor(1)

    def _resolve(self, layout: TensorLayout) -> dict[str, str]:
        """Canonical name -> stored name; refuses what is missing, surplus or misshapen."""
        names: dict[str, str] = {}
        missing, wrong = [], []
        for name, shape in expected_tensors(self.spec, self.tied):
            if self.network == OPTIMUM and name.startswith("vision."):
                continue  # the torch module says what it needs
            stored = next((c for c in stored_names(name, layout) if c in self._where), None)
            if stored is None:
                missing.append(name)
            elif self._where[stored].shape != shape:
                wrong.append(
                    f"{stored} is {list(self._where[stored].shape)}, config.json says {list(shape)}"
                )
            else:
                names[name] = stored
        if self.network == OPTIMUM:
            names |= self._tower_names(layout)
        used = set(names.values())
        surplus = sorted(n for n in self._where.keys() - used if not self._ignorable(n, layout))
        for problem, found in (("missing", missing), ("misshapen", wrong), ("unknown", surplus)):
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                raise CheckpointError(
                    f"{self.path}: {problem} tensors: {', '.join(found[:3])}{more}"
                    f"{foreign_hint(surplus, self.path)}"
                )
        bad = sorted(
            {f"{s} ({self._where[s].dtype})" for s in used if self._where[s].dtype not in DTYPES}
        )
        if bad:
            raise CheckpointError(
                f"{self.path}: tensors must be {', '.join(DTYPES)}, but: {', '.join(bad[:3])}"
            )
        return names

    def _tower_names(self, layout: TensorLayout) -> dict[str, str]:
        """Canonical name -> stored name of all of a tower's tensors, whatever its family."""
        names: dict[str, str] = {}
        for stored in self._where:
            prefix = next((p for p in layout.vision if stored.startswith(p)), None)
            if prefix is not None and not IGNORED.search(stored):
                names[f"vision.{stored.removeprefix(prefix)}"] = stored
        return names

    def _check_tied_head(self, layout: TensorLayout) -> None:
        """Refuse a stored head that is not the embedding table that the config ties it to.

        transformers 4 drops such a head; transformers 5 uses it and drops the tie.
        """
        stored = next((name for name in layout.head if name in self._where), None)
        if stored is None:
            return
        head, table = self._where[stored], self._where[self._names[EMBEDDING]]
        same = head.shape == table.shape and head.dtype == table.dtype
        if same:
            same = np.array_equal(self._read(stored), self._read(self._names[EMBEDDING]))
        if not same:
            raise CheckpointError(
                f"{self.path}: tie_word_embeddings is true, but {stored} differs from the "
                "embeddings; set the flag to false if the stored head is the model's, "
                "or remove the tensor"
            )

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
        tied = name == HEAD and HEAD not in self._names
        return _float32(self._raw(self._names[EMBEDDING if tied else name]))

    def elements(self, name: str) -> int:
        return math.prod(self._where[self._names[name]].shape)

    def stored_size(self, name: str) -> int:
        """Bytes in the checkpoint. A tied head has none of its own."""
        stored = self._names.get(name)
        return WIDTHS[self._where[stored].dtype] * self.elements(name) if stored else 0

    def _read(self, stored: str) -> NDArray[Any]:
        import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
        from safetensors import safe_open

        # Opened for each tensor: a mapping that stays open keeps every page that was read resident.
        with safe_open(self._where[stored].file, "numpy") as file:
            array: NDArray[Any] = file.get_tensor(stored)
        return array

    def _raw(self, stored: str) -> NDArray[Any]:
        array = self._read(stored)
        if stored not in self._digests:
            if self._digests:  # no more than one is kept for its hash
                next(reversed(self._digests.values())).result()
            self._digests[stored] = self._hasher.submit(_tensor_digest, array)
            if array.dtype == np.float32:
                # Hash it now: the caller gets this array, not a copy, and may write to it.
                self._digests[stored].result()
        return array

    def info(self) -> CheckpointInfo:
        """Identity. Tensors that were not read yet are read now, for their hash."""
        total = hashlib.sha256()
        for file in ("config.json", self.tokenizer):
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


def _tensor_digest(array: NDArray[Any]) -> bytes:
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


def _read_config(path: Path) -> Fields:
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: not a directory")
    refuse_foreign_files(path)
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path}: no config.json, so not a checkpoint directory")
    tokenizer_name(path)  # there must be one
    return Fields(read_json(path / "config.json"), str(path / "config.json"))


def _missing_tower(config: Fields) -> str:
    """What to do about weights without a vision tower."""
    tower = tower_name(config) or "its vision tower"
    parts = config.get("mm_tunable_parts") or ""
    if config.get("unfreeze_mm_vision_tower") or "vision_tower" in str(parts):
        return (
            f"no vision tower, although it was trained here (from {tower:.60}); "
            "get the checkpoint that holds model.vision_tower"
        )
    return (
        f"no vision tower: {tower:.60} was frozen and lies elsewhere; load the model with LLaVA's "
        "code, which fetches the tower, and save_pretrained it with model.vision_tower"
    )
