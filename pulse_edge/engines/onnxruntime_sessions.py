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
from pulse_edge.engines.onnxruntime_weights import (
    FOLDER_KEY,
    SharedTensors,
    add_files_in_memory,
    check_places,
)
from pulse_edge.errors import BundleError, EngineError, PulseEdgeError

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

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        provider: Provider,
        standard: bool,
        profile: str | None = None,
    ) -> None:
        """`profile`: where ONNX Runtime's profiles go, as the beginning of a path."""
        self._bundle = bundle
        self._threads = threads
        self._provider = provider
        self._standard = standard
        self._profile = profile
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
            session = self._checked_session(graph, [(name, options)])
        except PulseEdgeError:
            raise
        except Exception as error:  # pybind's exceptions share no base below Exception
            if not self._bundle.files.folder.is_where_it_was():
                # ONNX Runtime looks for the files of external data although it needs none of them.
                replaced = "was replaced while it was loaded; load it again"
                raise BundleError(f"{self._bundle.path}: {replaced}") from None
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

    def _checked_session(self, graph: str, providers: list[Any]) -> Any:
        """A session over bytes that were hashed."""
        tensors = self._bundle.tensors(graph)
        given = self.initializers if graph == DECODER_GRAPH else {}
        files = {tensor.location for tensor in tensors}
        with self._bundle.files.steady(files):
            if not self._provider.shared:
                session = self._session(graph, providers, given)
                check_places(self._bundle, tensors)
                return session
            if self._standard:
                settings = self._settings()
                contents = add_files_in_memory(settings, self._bundle, graph)
                session = self._session(graph, providers, given, settings)
                contents.clear()
                return session
            copied: set[str] = set()
            for _ in range(2):
                shared = SharedTensors(self._bundle, graph, given, copied)
                with shared.trimmed():
                    session = self._session(graph, providers, {**given, **shared.values})
                copied = shared.release()
                if not copied:
                    break
            return session

    def _session(
        self,
        graph: str,
        providers: list[Any],
        initializers: Mapping[str, Any],
        settings: Any = None,
    ) -> Any:
        settings = settings or self._settings()
        for tensor, value in initializers.items():
            settings.add_initializer(tensor, value)
        settings.add_session_config_entry(FOLDER_KEY, str(self._bundle.files.folder.pinned))
        return load_onnxruntime().InferenceSession(
            self._bundle.read(graph), settings, providers=providers
        )

    def _settings(self) -> Any:
        ort = load_onnxruntime()
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.enable_mem_pattern = False  # it keeps one for every prompt length that ever ran
        if self._profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = self._profile
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
