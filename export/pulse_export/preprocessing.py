"""The files that say how pages become pixels -> `ImageSpec`.

They are read as transformers 5 does: `image_processor` inside of processor_config.json comes before
preprocessor_config.json. What would give other pixels than those of `pulse_edge.page.views` is
refused. Sources: image_processing_base.py `get_image_processor_dict`, and the processors of CLIP,
SigLIP, LLaVA and LLaVA-NeXT.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pulse_edge.bundle.spec import Aspect, ImageSpec, Merge
from pulse_edge.errors import CheckpointError
from pulse_export.fields import LARGEST, Fields
from pulse_export.strict_json import read_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SIGLIP = "Siglip"  # whose processor stretches a page to the tower's size, and crops nothing
SIGLIP_SIDE = 224  # pixels, its default
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
BICUBIC = (3, "bicubic")  # PIL's number
Channels = tuple[float, float, float]

# What the export reads of an image processor, and what has no effect on a page's pixels.
_READ_NAMES = """
    size crop_size default_to_square resample rescale_factor image_mean image_std do_pad
    image_grid_pinpoints image_processor_type feature_extractor_type do_resize do_center_crop
    do_rescale do_normalize do_convert_rgb
"""
READ = frozenset(_READ_NAMES.split())
_WITHOUT_EFFECT_NAMES = """
    processor_class data_format input_data_format return_tensors device disable_grouping backend
    image_seq_length aspect_ratio_setting name_or_path transformers_version
"""
WITHOUT_EFFECT = frozenset(_WITHOUT_EFFECT_NAMES.split())


@dataclass(frozen=True)
class ImageLayout:
    """What a family of checkpoints says about pages outside of the processor's files.

    Attributes:
        processors: names of image processors without their suffix.
        aspect: `image_aspect_ratio`; None if the processor's `do_pad` chooses pad or square.
        grids: (width, height) in pixels.
        side: edge of a view in pixels.
        patch: edge of a patch in pixels.
        strategy: `vision_feature_select_strategy`: "default" drops the class token, "full" is for
            a tower without one.
    """

    processors: tuple[str, ...]
    aspect: Any
    grids: tuple[tuple[int, int], ...]
    merge: Any
    side: int
    patch: int
    strategy: str = "default"


def image_spec(path: Path, where: str, layout: ImageLayout) -> ImageSpec:
    """How pages become pixels and tokens.

    Args:
        path: the checkpoint's directory.
        where: the config that the layout comes from.
        layout: what that config says.

    Returns:
        The specification.

    Raises:
        CheckpointError: a file asks for other pixels than this project makes, or contradicts
            config.json. The message names the field.
    """
    processor = image_processor(path, layout.patch, layout.strategy)
    kind = _kind(processor, layout.processors)
    if not kind and SIGLIP in layout.processors:
        raise CheckpointError(
            f"{processor.where}: no image_processor_type, which says how pages of a tower other "
            "than CLIP's become pixels; copy preprocessor_config.json from the original checkpoint"
        )
    padded = _pads(processor, kind)
    unpadded = "stretch" if kind == SIGLIP else "square"
    aspect = ("pad" if padded else unpadded) if layout.aspect is None else layout.aspect
    if padded and aspect == "square":
        raise CheckpointError(
            f"{processor.where}: do_pad is True, but {where} says image_aspect_ratio 'square'; "
            "make the two agree"
        )
    # A page is stretched by SigLIP's processor, never by a word of config.json.
    stated = tuple(name for name in get_args(Aspect) if name != "stretch")
    for field, value, legal in (
        ("image_aspect_ratio", "square" if layout.aspect is None else layout.aspect, stated),
        ("mm_patch_merge_type", layout.merge, get_args(Merge)),
    ):
        if value not in legal:
            *others, last = legal
            raise CheckpointError(
                f"{where}: {field} {value!r:.60} is not supported, "
                f"only {', '.join(others)} and {last}"
            )
    _check_steps(processor, kind, aspect)
    _check_sizes(processor, aspect, layout.side)
    _check_grids(processor, where, layout)
    std = _channels(processor, "image_std", SIGLIP_STD if kind == SIGLIP else CLIP_STD)
    if min(std) <= 0:
        raise CheckpointError(f"{processor.where}: image_std is {list(std)}, must be over 0")
    mean = _channels(processor, "image_mean", SIGLIP_MEAN if kind == SIGLIP else CLIP_MEAN)
    return ImageSpec(cast(Aspect, aspect), layout.grids, mean, std, layout.merge)


def image_processor(path: Path, patch: int, strategy: str = "default") -> Fields:
    """The image processor's fields, from the file that transformers takes them from.

    Args:
        path: the checkpoint's directory.
        patch: edge of the tower's patches in pixels.
        strategy: `vision_feature_select_strategy` of config.json.

    Raises:
        CheckpointError: the processor around it counts other image tokens than the tower gives.
    """
    preprocessor = path / "preprocessor_config.json"
    flat = Fields(read_json(preprocessor) if preprocessor.exists() else {}, str(preprocessor))
    file = path / "processor_config.json"
    if not file.exists():
        return flat
    processor = Fields(read_json(file), str(file))
    processor.only("patch_size", patch, None, advice="it must be the tower's")
    processor.only("vision_feature_select_strategy", strategy, None)
    dropped = (1, None) if strategy == "default" else (0, None)
    processor.only("num_additional_image_tokens", *dropped, advice="it counts the class token")
    processor.only("image_token", "<image>", None)
    return processor.part("image_processor") if "image_processor" in processor.values else flat


def _kind(processor: Fields, processors: tuple[str, ...]) -> str:
    """The image processor's name without its suffix; "" for none."""
    for key in ("image_processor_type", "feature_extractor_type"):
        name = processor.get(key)
        if name is None:
            continue
        match = re.fullmatch(r"(\w+?)(ImageProcessor(Fast|Pil)?|FeatureExtractor)", str(name))
        if match is None or match[1] not in processors:
            legal = " or ".join(f"{kind}ImageProcessor" for kind in processors)
            raise CheckpointError(
                f"{processor.where}: {key} is {name!r:.60}, supported here is {legal}"
            )
        return match[1]
    return ""


def _pads(processor: Fields, kind: str) -> bool:
    """Whether a page is padded to a square. LLaVA-NeXT's `do_pad` fills up a batch instead."""
    processor.only("do_pad", True, False, None)
    if kind == "LlavaNext" or not processor.get("do_pad"):
        return False
    if kind in ("CLIP", SIGLIP):
        raise CheckpointError(
            f"{processor.where}: do_pad is True, which {kind}ImageProcessor ignores; "
            "remove it, or make image_processor_type LlavaImageProcessor, which pads"
        )
    return True


def _check_steps(processor: Fields, kind: str, aspect: Any) -> None:
    processor.only("resample", *BICUBIC)
    processor.only("rescale_factor", 1 / 255)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        processor.only(step, True)
    # SigLIP's leaves it open. A page is RGB when it comes here.
    processor.only("do_convert_rgb", *((True, None) if kind == SIGLIP else (True,)))
    # Views of the other aspects have their final size already, so that a crop changes nothing.
    processor.only("do_center_crop", *((True,) if aspect == "square" else (True, False)))
    for key, value in processor.values.items():
        if key in READ | WITHOUT_EFFECT or key.startswith("_") or value in (None, False):
            continue
        raise CheckpointError(
            f"{processor.where}: {key!r:.60} is {value!r:.60}, which this export does not know; "
            "remove the field if pixels are the same without it"
        )


def _check_sizes(processor: Fields, aspect: Any, side: int) -> None:
    """`size` and `crop_size` must give views of the tower's size, as the aspect has them.

    SigLIP's processor has a size of its own where the file has none.
    """
    stretched = {"height": side, "width": side}
    shortest = {"shortest_edge": side}
    own = {"height": SIGLIP_SIDE, "width": SIGLIP_SIDE} if aspect == "stretch" else None
    size = processor.get("size", own)
    if type(size) is int:
        size = {"shortest_edge": size}
        if processor.get("default_to_square"):
            size = dict.fromkeys(stretched, size["shortest_edge"])
    alike = (shortest, stretched)  # on views that have their size already
    legal: tuple[dict[str, Any], ...] = {"square": (shortest,), "stretch": (stretched,)}.get(
        aspect, alike
    )
    if size is not None and (not isinstance(size, dict) or _stated(size) not in legal):
        raise CheckpointError(
            f"{processor.where}: size is {size!r:.60}, "
            f"supported for {aspect} pages is {' or '.join(map(str, legal))}"
        )
    crop = processor.get("crop_size")
    if type(crop) is int:
        crop = dict.fromkeys(stretched, crop)
    if crop is not None and (not isinstance(crop, dict) or _stated(crop) != stretched):
        raise CheckpointError(
            f"{processor.where}: crop_size is {crop!r:.60}, supported is {stretched}, "
            "the tower's image_size"
        )


def _stated(size: dict[str, Any]) -> dict[str, Any]:
    """Without the nulls that some versions write."""
    return {edge: pixels for edge, pixels in size.items() if pixels is not None}


def _check_grids(processor: Fields, where: str, layout: ImageLayout) -> None:
    """Tiles come from the processor's grids, and their order from config.json's."""
    if layout.aspect != "anyres" or processor.get("image_grid_pinpoints") is None:
        return
    # LLaVA-NeXT's processor stores (height, width).
    own = tuple((width, height) for height, width in parse_grids(processor, layout.side))
    if own != layout.grids:
        raise CheckpointError(
            f"{processor.where}: image_grid_pinpoints differ from those in {where}; "
            "make the two agree"
        )


def parse_grids(config: Fields, side: int) -> tuple[tuple[int, int], ...]:
    """`image_grid_pinpoints` as they are stored: pairs of edges in pixels.

    Args:
        config: the object that holds them. Some hold the list as text.
        side: edge of a view in pixels, which each edge is a multiple of.

    Raises:
        CheckpointError: they are no such list.
    """
    grids = stored = config.values.get("image_grid_pinpoints")
    if isinstance(stored, str):
        try:
            grids = json.loads(stored.replace("(", "[").replace(")", "]"))
        except (ValueError, RecursionError):
            grids = None
    if (
        not isinstance(grids, list)
        or not 0 < len(grids) <= 1000
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in grids)
        or not all(
            type(edge) is int and 0 < edge <= LARGEST and edge % side == 0
            for pair in grids
            for edge in pair
        )
    ):
        raise CheckpointError(
            f"{config.where}: image_grid_pinpoints is {stored!r:.60}, "
            f"must be pairs of multiples of {side}, at least one"
        )
    return tuple((a, b) for a, b in grids)


def _channels(config: Fields, key: str, default: Channels) -> Channels:
    """Three numbers, for red, green and blue."""
    value = config.get(key, default)
    numbers = isinstance(value, list | tuple) and all(
        type(x) in (int, float) and math.isfinite(x) and abs(x) < 1e6 for x in value
    )
    if not numbers or len(value) != 3:
        raise CheckpointError(f"{config.where}: {key} is {value!r:.60}, must be three numbers")
    return float(value[0]), float(value[1]), float(value[2])
