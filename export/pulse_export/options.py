"""The options of an export, their legal values and their help text.

The legal values come from the tables in `quantize.precision` and `targets.registry`. Validation,
error messages and the command's options read them from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

from pulse_edge.bundle.manifest import PREFILLS, TURNS
from pulse_edge.errors import ExportError
from pulse_export.chat_template import TEMPLATES
from pulse_export.network.optimum.config import NETWORKS, OPTIMUM, OWN
from pulse_export.quantize.precision import (
    BLOCK_SIZES,
    CACHES,
    HEADS,
    PRECISIONS,
    RECIPE_STORAGE,
    STORAGES,
    TOWERS,
    Precision,
)
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.rounding import DAMPING, ROWS, Rounding
from pulse_export.targets.registry import TARGETS, get_target

if TYPE_CHECKING:
    from pulse_export.targets.target import Target


def _about(help_text: str, choices: Sequence[str | int] = ()) -> dict[str, Any]:
    """A field's metadata. `choices` lists the legal values; () if any of the type is legal."""
    return {"help": help_text} | ({"choices": tuple(choices)} if choices else {})


@dataclass(frozen=True)
class ExportOptions:
    """How to export. Checked when it is made, apart from what only the checkpoint can tell.

    Every field's metadata holds a `help` text and, if the legal values are listed, `choices`.

    Args:
        precision: what the weights are stored as, a name in `PRECISIONS`.
        target: what the graphs are written for, a name in `TARGETS`.
        block_size: inputs that share a scale, of `BLOCK_SIZES`; None is the precision's own.
        context: tokens that the KV cache holds at most; None is the model's own. A plan's cache
            always has this length.
        cache: what the KV cache holds, of `CACHES`. int8 takes a quarter of float32's memory.
        head: storage of the output matrix, of `HEADS`; None is the precision's own.
        network: who writes the vision tower, of `NETWORKS`: this project, which knows CLIP's, or
            Optimum from transformers' module of any tower. Projector and decoder are this
            project's either way.
        tower: storage of vision tower and projector, of `TOWERS`; None is the precision's own, but
            fp16 for int8 and int4 on cuda.
        prefill: storage of a second set of decoder weights, for prompts, of `PREFILLS`; None uses
            one set for prompts and steps. It takes the disk and memory of both.
        template: conversation format of the prompts, of `TEMPLATES`; None is the decoder's, and
            refuses a checkpoint whose own chat template is of another format.
        recipe: how weights become 4-bit codes, a name in `ROWS`; None rounds to nearest by the
            largest weight of each block.
        damping: of GPTQ's Hessian, as a share of the mean of its diagonal; None is the paper's.
        act_order: whether GPTQ rounds the inputs with the largest activations first.
        budget_mib: what the decoder's matrices may take: as many as fit get 8 bits, those first
            whose outputs gain most for each byte. None keeps all of them in 4 bits.
        calibration: the samples for a recipe, or for the scales of 8-bit activations, if the export
            has either; None is the default.
        self_test: run the bundle once it is written, and record a token that it says
            (`pulse_export.self_test`). It takes ONNX Runtime and the memory of a load.
        turns: what conversations the model was trained on, of `TURNS`; None if that is not known.
        force: replace a bundle that is already there.

    Raises:
        ExportError: a value is not legal, or values do not go together. It names the legal ones.
    """

    precision: str = field(
        default="int8", metadata=_about("What the weights are stored as.", tuple(PRECISIONS))
    )
    target: str = field(
        default="cpu",
        metadata=_about(
            "What the bundle is for: ONNX Runtime on cpu or cuda; standard: TensorRT.",
            tuple(TARGETS),
        ),
    )
    block_size: int | None = field(
        default=None,
        metadata=_about("Inputs that share a scale [default: 32 for int4, else 128].", BLOCK_SIZES),
    )
    context: int | None = field(
        default=None,
        metadata=_about("Longest prompt + answer, in tokens [default: the model's]."),
    )
    cache: str = field(default="float", metadata=_about("KV cache.", CACHES))
    head: str | None = field(
        default=None,
        metadata=_about("Output matrix of a quantized model [default: int8].", HEADS),
    )
    tower: str | None = field(
        default=None,
        metadata=_about(
            "Vision tower and projector "
            "[default: the precision's; fp16 for int8 and int4 on cuda].",
            TOWERS,
        ),
    )
    network: str = field(
        default=OWN,
        metadata=_about(
            "Who writes the vision tower: this project, which knows CLIP's, or Optimum, which "
            "knows transformers' and needs torch.",
            NETWORKS,
        ),
    )
    prefill: str | None = field(
        default=None,
        metadata=_about(
            "A second set of decoder weights, for prompts: whole bytes are faster there, "
            "4 bits in steps [default: one set for both].",
            PREFILLS,
        ),
    )
    template: str | None = field(
        default=None,
        metadata=_about(
            "Conversation format, whatever the checkpoint's chat template says "
            "[default: the decoder's, llava_v1 for Llama, and other templates are refused].",
            tuple(TEMPLATES),
        ),
    )
    recipe: str | None = field(
        default=None,
        metadata=_about(
            "How int4's weights are rounded; auto: GPTQ after scaling "
            "[default: to nearest, without data].",
            tuple(ROWS),
        ),
    )
    damping: float | None = field(
        default=None,
        metadata=_about(f"gptq, auto: share of the Hessian's mean diagonal [default: {DAMPING}]."),
    )
    act_order: bool = field(
        default=False,
        metadata=_about("gptq, auto: round the inputs with large activations first."),
    )
    budget_mib: float | None = field(
        default=None,
        metadata=_about("With --recipe: the decoder's matrices may take this, some in 8 bits."),
    )
    calibration: Recipe | None = field(
        default=None, metadata=_about("The samples of a calibration.")
    )
    self_test: bool = field(
        default=False,
        metadata=_about("Run the bundle and record its first token, which devices then compare."),
    )
    turns: str | None = field(
        default=None,
        metadata=_about(
            "Record what the model was trained on: first questions only, or several turns.", TURNS
        ),
    )
    force: bool = field(default=False, metadata=_about("Replace OUT if it is a bundle."))

    def __post_init__(self) -> None:
        self.resolve()

    @classmethod
    def choices(cls, name: str) -> tuple[str | int, ...]:
        """Legal values of a field, () if they are not listed."""
        return next(f.metadata.get("choices", ()) for f in fields(cls) if f.name == name)

    def resolve(self) -> Resolved:
        """These options with every default filled in. Raises `ExportError`."""
        precision = PRECISIONS.get(self.precision)
        if precision is None:
            legal = ", ".join(PRECISIONS)
            raise ExportError(f"precision {self.precision!r} is not one of {legal}")
        if self.template is not None and self.template not in TEMPLATES:
            legal = ", ".join(TEMPLATES)
            raise ExportError(f"template {self.template!r:.60} is not one of {legal}")
        if self.network not in NETWORKS:
            legal = ", ".join(NETWORKS)
            raise ExportError(f"network {self.network!r:.60} is not one of {legal}")
        if self.turns is not None and self.turns not in TURNS:
            raise ExportError(f"turns {self.turns!r:.60} is not one of {', '.join(TURNS)}")
        if self.head is not None:
            precision = _with_head(precision, self.head)
        target = get_target(self.target, precision)
        if self.cache not in target.caches:
            raise ExportError(_illegal_cache(self.cache))
        adapted = adapt(target, precision, self.tower)
        self._check_network(target, adapted)
        prefill = _prefill(target, adapted, self.prefill)
        recipe = self.calibration
        quantized = bool(calibrated_parts(adapted, self.network))
        block = self._block(target, adapted)
        rounding = self._rounding(adapted)
        if rounding is not None:
            recipe = None  # the samples are the weights' alone
        if recipe and not quantized:
            raise ExportError(
                f"precision {self.precision} quantizes no activations, "
                "so it takes no calibration data"
            )
        if self.context is not None and self.context < 1:
            raise ExportError(f"context {self.context} must be a whole number from 1")
        if recipe is None and quantized and target.calibrated:
            recipe = Recipe()
        return Resolved(target, adapted, block, recipe, prefill, rounding, self.network)

    def _check_network(self, target: Target, precision: Precision) -> None:
        """Refuse 8-bit activations of a tower whose scales nobody can calibrate."""
        if (
            self.network == OPTIMUM
            and target.calibrated
            and STORAGES[precision.vision].rounds_inputs
        ):
            raise ExportError(
                f"network {OPTIMUM} takes no {self.precision} tower on target {target.name}, which "
                "needs scales that only our own tower is calibrated for; add --tower int8 or fp16"
            )

    def _rounding(self, precision: Precision) -> Rounding | None:
        """The recipe with its options. Raises `ExportError` for options that it does not take."""
        extra = {
            "damping": self.damping,
            "act-order": self.act_order or None,
            "budget-mib": self.budget_mib,
        }
        given = [name for name, value in extra.items() if value is not None]
        if self.recipe is None:
            if given:
                raise ExportError(f"{given[0]} needs a recipe: {', '.join(ROWS)}")
            return None
        if self.recipe not in ROWS:
            raise ExportError(f"recipe {self.recipe!r:.60} is not one of {', '.join(ROWS)}")
        if precision.decoder != RECIPE_STORAGE:
            raise ExportError(
                f"recipe {self.recipe} needs precision {RECIPE_STORAGE}, not {self.precision}"
            )
        row = ROWS[self.recipe]
        if not row.compensates and given and given[0] != "budget-mib":
            raise ExportError(f"recipe {self.recipe} has no {given[0]}; gptq and auto have it")
        if self.budget_mib is not None and not 0 < self.budget_mib < 1 << 24:
            raise ExportError(
                f"budget-mib {self.budget_mib:g} must be over 0 and below {1 << 24:,}"
            )
        return self._with_data(
            Rounding(
                self.recipe,
                damping=DAMPING if self.damping is None else float(self.damping),
                act_order=self.act_order,
                budget=None if self.budget_mib is None else int(self.budget_mib * (1 << 20)),
            )
        )

    def _with_data(self, rounding: Rounding) -> Rounding:
        """The recipe with its calibration samples."""
        if not rounding.takes_data:
            if self.calibration is not None:
                raise ExportError(
                    f"recipe {rounding.recipe} takes no calibration data without budget-mib"
                )
            return rounding
        data = self.calibration or Recipe()
        if data.alpha != Recipe.alpha:
            raise ExportError("SmoothQuant's alpha goes with precision w8a8, not with a recipe")
        return replace(rounding, data=data)

    def _block(self, target: Target, precision: Precision) -> int:
        blocked = bool(target.blocked & precision.storages)
        if self.block_size is None:
            return precision.block_size if blocked else 0
        if not blocked:
            raise ExportError(
                f"block size {self.block_size} must be left out "
                f"for {self.precision} on {self.target}"
            )
        if self.block_size not in BLOCK_SIZES:
            legal = ", ".join(map(str, BLOCK_SIZES))
            raise ExportError(f"block size {self.block_size} must be one of {legal}")
        return self.block_size


class OptionValues(TypedDict, total=False):
    """The fields of `ExportOptions` as keywords of `export`, for the type checker.

    A test keeps the two equal.
    """

    precision: str
    target: str
    block_size: int | None
    context: int | None
    cache: str
    head: str | None
    tower: str | None
    network: str
    prefill: str | None
    template: str | None
    recipe: str | None
    damping: float | None
    act_order: bool
    budget_mib: float | None
    calibration: Recipe | None
    self_test: bool
    turns: str | None
    force: bool


@dataclass(frozen=True)
class Resolved:
    """Options with every default filled in.

    Attributes:
        precision: the row as the target runs it, with the head and tower that were asked for.
        block: inputs that share a scale; 0 if no storage has blocks.
        recipe: the calibration to make, None for none.
        prefill: of the decoder that prompts run through; None if it is the same one.
        rounding: how the decoder's weights become codes; None rounds them to nearest.
        network: who writes the vision tower.
    """

    target: Target
    precision: Precision
    block: int
    recipe: Recipe | None
    prefill: Precision | None = None
    rounding: Rounding | None = None
    network: str = OWN


def calibrated_parts(precision: Precision, network: str) -> tuple[str, ...]:
    """Of `vision` and `decoder`, those whose activations a calibration has scales for.

    Args:
        precision: the row.
        network: who writes the vision tower. The numpy reference, which sees the activations, runs
            our own.
    """
    parts = precision.parts_that_round_inputs()
    return parts if network == OWN else tuple(part for part in parts if part != "vision")


def options_from_keywords(options: ExportOptions | None, values: OptionValues) -> ExportOptions:
    """`options`, or the defaults, with these values instead.

    Raises:
        TypeError: a keyword is no option. The message lists the options.
    """
    names = [f.name for f in fields(ExportOptions)]
    unknown = sorted(values.keys() - set(names))
    if unknown:
        raise TypeError(f"export has no option {unknown[0]!r}; its options are {', '.join(names)}")
    return replace(options or ExportOptions(), **values)


def adapt(target: Target, precision: Precision, tower: str | None) -> Precision:
    """The precision as the target runs it, with this storage of the tower. Raises `ExportError`."""
    if tower is None:
        return target.adapted(precision)
    legal = [storage for storage in TOWERS if storage in target.storages]
    if tower not in legal:
        raise ExportError(
            f"tower {tower!r} must be {' or '.join(legal)}, or left out, "
            f"for {precision.name} on target {target.name}"
        )
    if STORAGES[tower].quantized and not STORAGES[precision.vision].quantized:
        own = PRECISIONS[tower]  # nothing else of the model is quantized
        precision = replace(precision, block_size=own.block_size, recipe=own.recipe)
    return target.adapted(precision, tower)


def _with_head(precision: Precision, head: str) -> Precision:
    if head not in HEADS or not STORAGES[precision.decoder].quantized:
        raise ExportError(
            f"head {head!r} is not one of {', '.join(HEADS)}, "
            f"or {precision.name} quantizes no weights"
        )
    return replace(precision, head=head)


def _prefill(target: Target, precision: Precision, storage: str | None) -> Precision | None:
    """The row of the decoder that prompts run through. It has no head."""
    if storage is None:
        return None
    if storage not in PREFILLS:
        raise ExportError(f"prefill {storage!r:.60} is not one of {', '.join(PREFILLS)}")
    bits = STORAGES[precision.decoder]
    if target.name != "cpu" or not bits.quantized or bits.rounds_inputs:
        raise ExportError(
            f"prefill {storage} needs target cpu and precision int4 or int8, "
            f"not {precision.name} on {target.name}"
        )
    return replace(precision, decoder=storage)


def _illegal_cache(cache: str) -> str:
    special = CACHES[1:]
    row = PRECISIONS["int8"]  # which every target runs
    needs = [
        f"{name} needs target "
        + " or ".join(target for target in TARGETS if name in get_target(target, row).caches)
        for name in special
    ]
    return f"cache {cache!r} is not one of {', '.join(CACHES)}, of which {', '.join(needs)}"
