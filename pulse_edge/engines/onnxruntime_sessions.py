"""Opens a bundle's graphs as ONNX Runtime sessions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.engines.onnxruntime_library import first_line, load_onnxruntime
from pulse_edge.engines.onnxruntime_providers import Provider
from pulse_edge.errors import EngineError

FOLDED_BYTES = 500_000_000  # of the largest standard bundle whose weights become floats once


_open_sessions: WeakSet[Any] = WeakSet()


def _keep_sessions() -> None:
    """Never destroy the sessions that a forked child inherits.

    Their threads exist only in the parent, and the destructor would wait for them, so that the
    child's exit hangs.
    """
    for session in list(_open_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


class SessionFactory:
    """Opens a bundle's graphs as ONNX Runtime sessions, all with the same settings.

    Attributes:
        initializers: OrtValues that the decoder takes instead of its file's tensors, by name.
    """

    def __init__(self, bundle: Bundle, threads: int, provider: Provider, standard: bool) -> None:
        self._bundle = bundle
        self._threads = threads
        self._provider = provider
        self._standard = standard
        self.initializers: Mapping[str, Any] = {}

    def open_decoder(self) -> tuple[Any, bool]:
        """The decoder, and whether its steps can be captured.

        Not every version of a provider runs every node on its device, which capture needs.
        """
        if self._provider.graphs:
            try:
                return self.open(DECODER_GRAPH, self._provider.graphs), True
            except EngineError as error:
                if "graph capture" not in str(error):
                    raise
        return self.open(DECODER_GRAPH), False

    def open(self, graph: str, more: dict[str, str] | None = None) -> Any:
        """A session of a graph. more: provider options besides the provider's own.

        Raises:
            EngineError: ONNX Runtime cannot load the graph, or the provider did not start.
        """
        name = self._provider.name
        options = self._provider.options | (more or {})
        path = self._bundle.file(graph)
        try:
            settings = self._settings()
            for tensor, value in self.initializers.items() if graph == DECODER_GRAPH else ():
                settings.add_initializer(tensor, value)
            session = load_onnxruntime().InferenceSession(
                str(path),
                settings,
                providers=[(name, options)],
            )
        except Exception as error:  # pybind's exceptions share no base below Exception
            why = first_line(error)
            raise EngineError(f"{path}: ONNX Runtime cannot load it ({why})") from None
        if name not in session.get_providers():
            # ONNX Runtime falls back to the CPU in silence if a provider's libraries or driver do
            # not load.
            raise EngineError(
                f"{name} did not start: no NVIDIA GPU, or its driver, CUDA 13 or cuDNN 9 is "
                "missing; see nvidia-smi and pip install 'pulse-edge[gpu]', "
                "or use a bundle exported with --target cpu"
            )
        _open_sessions.add(session)
        return session

    def _settings(self) -> Any:
        ort = load_onnxruntime()
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.enable_mem_pattern = False  # it keeps one for every prompt length that ever ran
        settings.log_severity_level = 4  # failures raise; nothing else is a user's concern
        for key, value in self._provider.config.items():
            settings.add_session_config_entry(key, value)
        if self._standard:
            # More of ONNX Runtime's optimizer would give quantized weights other activations than
            # the graph says. Basic optimization turns weights into floats once, which only small
            # models have the memory for; without it each call does.
            small = self._bundle.size < FOLDED_BYTES
            levels = ort.GraphOptimizationLevel
            level = levels.ORT_ENABLE_BASIC if small else levels.ORT_DISABLE_ALL
            settings.graph_optimization_level = level
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        return settings
