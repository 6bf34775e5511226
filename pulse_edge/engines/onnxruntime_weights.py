"""A graph's weights, handed to ONNX Runtime from memory that was checked.

A provider on the host takes each tensor as a value that owns its memory, so what ONNX Runtime
packs anew is given back at once. Other providers copy the weights to their device, and read the
files themselves through the directory that was opened. That they found the files that were hashed
is checked afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.external_data import GraphTensor
from pulse_edge.bundle.opened import Content
from pulse_edge.engines.onnxruntime_library import load_onnxruntime
from pulse_edge.errors import BundleError

# ONNX Runtime reads some tensors in place for as long as a session lives: gains, biases, and scales
# of blocks. They are copied. It packs the others anew, and lets go of them.
SMALL = 4 << 20  # bytes
SCALES = ".scales"
FOLDER_KEY = "session.model_external_initializers_file_folder_path"


class SharedTensors:
    """A graph's external tensors as OrtValues that own their memory.

    Use inside `BundleFiles.steady`.

    Attributes:
        values: by name.
        contents: the bytes of the files that they lie in.

    Args:
        bundle: that the graph belongs to.
        graph: its file.
        skip: names of tensors that the session gets from elsewhere.
        copied: names of tensors to copy although they are large.
    """

    def __init__(
        self, bundle: Bundle, graph: str, skip: Container[str], copied: Container[str] = ()
    ) -> None:
        self.values: dict[str, Any] = {}
        self.contents: list[Content] = []
        self._mapped: dict[str, weakref.ref[NDArray[Any]]] = {}
        for tensor in bundle.tensors(graph):
            if tensor.name in skip:
                continue
            file = bundle.files.opened(tensor.location)
            content = file.content()
            if content not in self.contents:
                self.contents.append(content)
            in_place = tensor.size < SMALL or tensor.name.endswith(SCALES)
            if not content.private and (in_place or tensor.name in copied):
                array = file.array(tensor.offset, tensor.dtype, tensor.shape)
            else:
                array = content.array(tensor.offset, tensor.dtype, tensor.shape)
                if not content.private:
                    self._mapped[tensor.name] = weakref.ref(array)
            self.values[tensor.name] = owning_value(array)

    @contextmanager
    def trimmed(self) -> Iterator[None]:
        """See `Content.trimmed`; for the files that the tensors lie in."""
        with ExitStack() as stack:
            for content in self.contents:
                stack.enter_context(content.trimmed())
            yield

    def release(self) -> set[str]:
        """Let go of the values, after the session has taken them.

        Returns:
            Names of tensors that the session still reads from a file's pages.
        """
        self.values.clear()
        self.contents.clear()
        return {name for name, array in self._mapped.items() if array() is not None}


def add_files_in_memory(settings: Any, bundle: Bundle, graph: str) -> list[Any]:
    """Let a session copy the graph's external data from memory, for types that numpy lacks.

    Returns:
        What must stay alive until the session was made.
    """
    names = sorted({tensor.location for tensor in bundle.tensors(graph)})
    contents = [bundle.files.opened(name).content() for name in names]
    memories = [content.memory for content in contents]
    sizes = [len(content.bytes) for content in contents]
    settings.add_external_initializers_from_files_in_memory(names, memories, sizes)
    return contents


def owning_value(array: NDArray[Any]) -> Any:
    """An OrtValue over an array's memory, which it keeps alive.

    `OrtValue.ortvalue_from_numpy` does not: it leaves that to its Python object.
    """
    return load_onnxruntime().OrtValue.from_dlpack(array)


def check_places(bundle: Bundle, tensors: tuple[GraphTensor, ...]) -> None:
    """Check that a provider that opened the files by name has found those that were hashed.

    Raises:
        BundleError: a file was renamed, replaced or changed since the bundle was opened.
    """
    for name in sorted({tensor.location for tensor in tensors}):
        file = bundle.files.opened(name)
        if not file.is_where_it_was():
            raise BundleError(f"{file.path}: was changed while it was loaded; load it again")
