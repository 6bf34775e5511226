"""The config of a vision tower that Optimum exports -> `VisionSpec`.

The module that runs is transformers' own, so transformers' own class reads the config, with its
defaults. What is read here is what the bundle says about the tower.
"""

from __future__ import annotations

from typing import Any, Literal

from pulse_edge.bundle.spec import VisionSpec
from pulse_edge.errors import CheckpointError
from pulse_export.fields import Fields
from pulse_export.network.optimum.library import optimum_tasks, transformers_library
from pulse_export.network_fields import CLIP_TOWER, COMMON, used_layers

NETWORKS = ("own", "optimum")  # who writes the vision tower
OWN, OPTIMUM = NETWORKS
TASK = "feature-extraction"  # Optimum's name of an export without a head
PIXELS = "pixel_values"  # the only input of a tower

# Fields of a file, not of the module.
NO_ARGUMENTS = frozenset({"model_type", "architectures", "transformers_version"})
SIZES = (
    "image_size",
    "patch_size",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "intermediate_size",
    "layer_norm_eps",
)


def tower_family(tower: Fields) -> str:
    """A tower's `model_type`. Raises `CheckpointError` if it is no text."""
    family = tower.get("model_type", CLIP_TOWER)
    if not isinstance(family, str):
        raise CheckpointError(f"{tower.where}: model_type is {family!r:.60}, must be a text")
    return family


def optimum_config(tower: Fields) -> Any:
    """transformers' config object of a tower.

    Args:
        tower: the checkpoint's `vision_config`.

    Raises:
        CheckpointError: the config is of no tower that transformers and Optimum know.
        ExportError: Optimum is not installed.
    """
    for field, (allowed, advice) in COMMON.items():
        tower.only(field, *allowed, advice=advice)
    tower.only("num_channels", 3, None, advice="a page has three")
    family = tower_family(tower)
    constructor = optimum_constructor(family, tower.where)
    values = {
        name: value
        for name, value in tower.values.items()
        if name not in NO_ARGUMENTS and not name.startswith("_")
    }
    classes = transformers_library().CONFIG_MAPPING
    try:
        config = classes[family](**values)
        inputs = list(constructor(config).inputs)
    except Exception as error:  # whatever a class of transformers does with a value
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{tower.where}: transformers refuses it as {family}: {reason:.200}"
        ) from None
    if inputs != [PIXELS]:
        raise CheckpointError(
            f"{tower.where}: model_type {family!r} reads {', '.join(inputs)}, "
            f"a vision tower reads {PIXELS}"
        )
    return config


def optimum_constructor(family: str, where: str) -> Any:
    """Optimum's class that says how a family is exported.

    Args:
        family: `model_type`.
        where: the config, for messages.

    Raises:
        CheckpointError: Optimum has none.
        ExportError: Optimum is not installed.
    """
    tasks = optimum_tasks()
    try:
        return tasks.get_exporter_config_constructor(
            "onnx", model_type=family, task=TASK, library_name="transformers"
        )
    except (KeyError, ValueError):
        raise CheckpointError(
            f"{where}: model_type is {family!r:.60}, which Optimum exports no tower of; "
            f"it exports {CLIP_TOWER}, siglip_vision_model, dinov2, vit and others"
        ) from None


def optimum_spec(tower: Fields, select: int) -> VisionSpec:
    """What the bundle says about a tower.

    Args:
        tower: the checkpoint's `vision_config`.
        select: `vision_feature_layer`.

    Raises:
        CheckpointError: the config is of no such tower, or its sizes cannot be.
        ExportError: Optimum is not installed.
    """
    config = optimum_config(tower)
    sizes = Fields({name: getattr(config, name, None) for name in SIZES}, tower.where)
    layers = sizes.whole("num_hidden_layers", most=1000)
    width = sizes.whole("hidden_size")
    ratio = getattr(config, "mlp_ratio", None)  # of DINOv2, which states no intermediate_size
    return VisionSpec(
        image_size=sizes.whole("image_size"),
        patch_size=sizes.whole("patch_size"),
        width=width,
        heads=sizes.whole("num_attention_heads"),
        layers=layers,
        feature_layers=used_layers(tower.where, select, layers),
        mlp=sizes.whole("intermediate_size", None if ratio is None else int(ratio * width)),
        activation=_activation(getattr(config, "hidden_act", None)),
        eps=sizes.positive("layer_norm_eps", 1e-6),
    )


def _activation(name: Any) -> Literal["quick_gelu", "gelu", "other"]:
    if name == "quick_gelu":
        return "quick_gelu"
    return "gelu" if name == "gelu" else "other"
