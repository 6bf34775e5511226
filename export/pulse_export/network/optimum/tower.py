"""A vision tower as transformers' torch module, and its graph by Optimum's ONNX export.

Optimum exports every tower that transformers has, also those that `network.vision` does not write.
The module is made from transformers' class and filled with the checkpoint's tensors, so that
nothing is looked up elsewhere. Its graph is compared with it before anything is made of the graph.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pulse_edge.bundle.manifest import TowerInfo
from pulse_edge.errors import CheckpointError, ExportError
from pulse_export.checkpoint import Checkpoint, Floats, Tensors
from pulse_export.network.optimum.config import (
    PIXELS,
    optimum_config,
    optimum_constructor,
    tower_family,
)
from pulse_export.network.optimum.graph import write_traced
from pulse_export.network.optimum.library import (
    library_versions,
    onnxruntime_library,
    optimum_export,
    torch_library,
    transformers_library,
)

if TYPE_CHECKING:
    from pulse_export.network.writer import NetworkWriter

BOUND = 1e-4  # largest error of a graph in fp32, relative to the module's largest value
OPSET = 18  # Optimum's own; torch's tracing exporter goes up to 20
VIEWS = 2  # that a tower is traced with; their number stays free


class OptimumTower:
    """The tower of a checkpoint.

    Args:
        source: the checkpoint, opened for `--network optimum`.
        tensors: its tensors as float32, by canonical name. Each of the tower's is read once.

    Raises:
        CheckpointError: the tensors are not those of the tower's module, or its tokens are not one
            for each patch.
        ExportError: torch, transformers or Optimum is missing.
    """

    def __init__(self, source: Checkpoint, tensors: Tensors) -> None:
        self._where = source.tower.where
        self._vision = source.spec.vision
        self._dropped = 1 if source.strategy == "default" else 0  # tokens before the patches
        self._family = tower_family(source.tower)
        self._config = optimum_config(source.tower)
        self._torch = torch_library()
        self._module: Any = None
        try:
            self._module = _module(self._config)
        except Exception as error:  # whatever a class of transformers does with a config
            raise CheckpointError(
                f"{self._where}: transformers cannot make {self._family}: {_first_line(error)}"
            ) from None
        self._fill(source, tensors)
        self._check_tokens(source.strategy)

    def _fill(self, source: Checkpoint, tensors: Tensors) -> None:
        """Give the module the checkpoint's tensors, and NaN where the checkpoint has none.

        A hidden state that depends on such a parameter is NaN.
        """
        own = {_bare(name): tensor for name, tensor in self._module.state_dict().items()}
        stored = [name for name in source.names if name.startswith("vision.")]
        surplus = [name for name in stored if _bare(name.removeprefix("vision.")) not in own]
        if surplus:
            raise CheckpointError(
                f"{source.path}: unknown tensors of the vision tower: {', '.join(surplus[:3])}; "
                f"{self._family} has none of these names"
            )
        missing = own.keys() - {_bare(name.removeprefix("vision.")) for name in stored}
        for name in stored:
            value, target = tensors(name), own[_bare(name.removeprefix("vision."))]
            if value.shape != tuple(target.shape):
                raise CheckpointError(
                    f"{source.path}: misshapen tensors: {name} is {list(value.shape)}, "
                    f"config.json says {list(target.shape)}"
                )
            with _quiet():  # torch warns of arrays that are read-only
                target.copy_(self._torch.from_numpy(value))
        for name in missing:
            if own[name].is_floating_point():
                own[name].fill_(float("nan"))
        self._missing = sorted(missing)

    def _check_tokens(self, strategy: str) -> None:
        side, patches = self._vision.image_size, self._vision.grid**2
        try:
            hidden = self._states(np.zeros((1, 3, side, side), np.float32))
        except Exception as error:  # whatever a module does with a view
            raise CheckpointError(
                f"{self._where}: transformers' {self._family} cannot run: {_first_line(error)}"
            ) from None
        if np.isnan(hidden).any():
            named = ", ".join(self._missing[:3]) or "none, but its values are not finite"
            raise CheckpointError(f"{self._where}: missing tensors of the vision tower: {named}")
        tokens = hidden.shape[1]
        if hidden.ndim != 3 or tokens - self._dropped != patches:
            raise CheckpointError(
                f"{self._where}: vision_feature_select_strategy is {strategy!r}, which keeps "
                f"{tokens - self._dropped} tokens a view of {self._family}, but a view has "
                f"{patches} patches; 'default' drops one class token, 'full' is for towers "
                "without one"
            )

    def hidden(self, pixels: Floats) -> Floats:
        """Hidden states of the patches, as the torch module has them.

        Args:
            pixels: float32 [views, 3, side, side].

        Returns:
            float32 [views, patches, width].
        """
        return self._states(pixels)[:, self._dropped :]

    def _states(self, pixels: Floats) -> Floats:
        with self._torch.inference_mode(), _quiet():
            out = self._module(self._torch.from_numpy(pixels), output_hidden_states=True)
        states: Floats = out.hidden_states[self._vision.feature_layers].numpy()
        return states

    def release(self) -> None:
        """Free the module; nothing else can be asked afterwards."""
        self._module = None

    def exported(self, scratch: Path) -> TracedTower:
        """The graph that Optimum writes, compared with the module.

        Args:
            scratch: an existing directory on the disk that has room for the tower in fp32. What is
                written there is removed.

        Raises:
            ExportError: Optimum cannot export it, or the graph computes something else.
        """
        with tempfile.TemporaryDirectory(prefix="optimum-", dir=scratch) as folder:
            path = Path(folder) / "tower.onnx"
            try:
                self._export(path)
                error = self._error(path)
            except ExportError:
                raise
            except Exception as failure:  # of any of the four libraries
                raise ExportError(
                    f"{self._where}: Optimum cannot export {self._family}: {_first_line(failure)}"
                ) from None
            if not error <= BOUND:  # also NaN
                raise ExportError(
                    f"{self._where}: Optimum's graph of {self._family} errs by {error:.2g} of the "
                    f"torch module's largest value, over the {BOUND:g} accepted; "
                    "install another version of optimum-onnx or torch"
                )
            model = onnx.load(path)
        versions = library_versions()
        info = TowerInfo(self._family, versions["optimum-onnx"], float(f"{error:.2g}"))
        return TracedTower(model, self._output, self._dropped, info, versions)

    @property
    def _output(self) -> str:
        return f"hidden_states.{self._vision.feature_layers}"

    def _export(self, path: Path) -> None:
        side = self._vision.image_size
        module, layers = self._module, self._vision.layers
        if self._vision.feature_layers == layers:
            module, layers = self._longer(), layers + 1
        constructor = optimum_constructor(self._family, self._where)
        example = {PIXELS: self._torch.zeros(VIEWS, 3, side, side)}

        class Hidden(constructor.func):  # type: ignore[misc, name-defined]
            """The family's export, with hidden states as outputs and views of one size."""

            @property
            def inputs(self) -> dict[str, dict[int, str]]:
                return {PIXELS: {0: "views"}}

            @property
            def outputs(self) -> dict[str, dict[int, str]]:
                return {f"hidden_states.{i}": {0: "views"} for i in range(layers + 1)}

            def generate_dummy_inputs(self, *_: Any, **__: Any) -> dict[str, Any]:
                """Some families' own look for a processor's files by the model's name."""
                return dict(example)

        with _quiet():
            optimum_export()(
                module,
                Hidden(module.config, **constructor.keywords),
                path,
                opset=OPSET,
                disable_dynamic_axes_fix=True,
                model_kwargs={"output_hidden_states": True},
            )

    def _longer(self) -> Any:
        """The module with one layer more, which no used hidden state depends on.

        optimum-onnx 0.1 gives the normalised output in place of the last hidden state.
        """
        config = copy.deepcopy(self._config)
        config.num_hidden_layers += 1
        module = _module(config)
        module.load_state_dict(self._module.state_dict(), strict=False)
        return module

    def _error(self, path: Path) -> float:
        """Largest error of an exported graph, relative to the module's largest value."""
        session = onnxruntime_library().InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        rng = np.random.default_rng(0)
        side = self._vision.image_size
        worst = 0.0
        for views in (1, VIEWS + 1):
            pixels = rng.normal(0, 1, (views, 3, side, side)).astype(np.float32)
            expected = self._states(pixels)
            (got,) = session.run([self._output], {PIXELS: pixels})
            if got.shape != expected.shape:
                return float("nan")
            if not np.isfinite(got).all():
                return float("nan")
            largest = np.abs(expected).max()
            worst = max(worst, float(np.abs(got - expected).max() / largest))
        return worst


@dataclass(frozen=True)
class TracedTower:
    """A tower's graph as Optimum wrote it.

    Attributes:
        model: with its weights.
        output: name of the hidden state that is used.
        dropped: tokens before the patches, which are not used.
        versions: of the packages that made it.
    """

    model: onnx.ModelProto
    output: str
    dropped: int
    info: TowerInfo
    versions: dict[str, str]

    def write(self, net: NetworkWriter, pixels: str) -> str:
        """Write the tower to a graph.

        Args:
            net: the graph, target and precision.
            pixels: name of the pixels in the target's float type.

        Returns:
            Name of the hidden states [views, patches, width].
        """
        x = write_traced(net, self.model, {PIXELS: pixels}, self.output)
        if not self.dropped:
            return x
        ends = net.ints(self.dropped), net.ints(2**31), net.ints(1)
        return net.node("Slice", x, *ends, name="vision.patches")


def _module(config: Any) -> Any:
    """transformers' module of a tower, with random weights."""
    with _quiet():
        module = transformers_library().AutoModel.from_config(config, trust_remote_code=False)
    return module.float().eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _bare(name: str) -> str:
    """A parameter's name without the prefix that only some versions of transformers have."""
    return name.removeprefix("vision_model.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every branch in Python, and torch of its exporter's age."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
