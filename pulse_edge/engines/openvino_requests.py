"""Compiled OpenVINO models, run so that another thread can end a run early."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.openvino_library import load_openvino, openvino_reason
from pulse_edge.errors import EngineError

DEVICE = "CPU"
EXECUTION = "INFERENCE_PRECISION_HINT"  # the plugin's name of the float type that a model runs in

_open_requests: WeakSet[StoppableRequest] = WeakSet()


def _keep_requests() -> None:
    """Never destroy the requests that a forked child inherits.

    Their threads exist only in the parent, and the destructor would wait for them, so that the
    child's exit hangs.
    """
    for request in list(_open_requests):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(request))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_requests)


def native_type() -> str:
    """The float type that the plugin prefers on this CPU, in its words: bf16 with AMX, else f32."""
    name: str = load_openvino().Core().get_property(DEVICE, EXECUTION).get_type_name()
    return name


def compiled(model: Any, threads: int, properties: dict[str, Any]) -> Any:
    """`openvino.CompiledModel` for one request at a time.

    Args:
        model: `openvino.Model`.
        threads: of the CPU; 0 leaves the number to OpenVINO.
        properties: besides those that every model has.

    Raises:
        EngineError: the plugin cannot compile it.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return load_openvino().Core().compile_model(model, DEVICE, settings | properties)
    except Exception as error:  # pybind's exceptions share no base below Exception
        raise EngineError(f"OpenVINO cannot compile a graph ({openvino_reason(error)})") from None


class StoppableRequest:
    """Runs a compiled model.

    Args:
        model: `openvino.CompiledModel`.
        weights: the memory of its weights, to be kept alive.

    Attributes:
        model: see above.
    """

    def __init__(self, model: Any, weights: list[NDArray[Any]]) -> None:
        self.model = model
        self._weights = weights
        self._request = model.create_infer_request()
        # A cancellation may come late, or from a finalizer in this very thread.
        self._lock = threading.RLock()
        self._run = 0  # number of the run in progress, or of the last one
        self._running = False
        self._stopped = -1  # number of the last run that was to stop
        _open_requests.add(self)

    def run(self, inputs: list[Any], cancellation: Cancellation | None = None) -> Floats:
        """The first output, as a copy.

        Args:
            inputs: arrays in the order of the model's inputs.
            cancellation: may end the run early.

        Raises:
            Cancelled: by the cancellation.
            RuntimeError: the run failed.
        """
        with self._interruptible(cancellation):
            try:
                with self._lock:
                    self._request.start_async(inputs, share_inputs=True)
                    self._running = True
                    if self._stopped == self._run:
                        self._request.cancel()
                self._request.wait()
            finally:
                with self._lock:
                    self._running = False
                    self._run += 1
            output: Floats = np.array(self._request.get_output_tensor(0).data)
        return output

    def _interruptible(self, cancellation: Cancellation | None) -> AbstractContextManager[None]:
        if cancellation is None:
            return nullcontext()
        number = self._run

        def cancel() -> None:
            with self._lock:
                self._stopped = number
                if self._running and self._run == number:
                    self._request.cancel()

        return cancellation.interrupting(cancel)

    def states(self) -> dict[str, Any]:
        """`openvino.VariableState` by name."""
        return {state.name: state for state in self._request.query_state()}

    def forget(self) -> None:
        """Empty all states."""
        self._request.reset_state()

    def trim(self) -> None:
        """Give back the memory of intermediate results."""
        self.model.release_memory()
