"""A bundle's graphs as OpenVINO models, over weights that were checked.

OpenVINO reads a graph through the opened directory, and converts it. Then each of its weights is
replaced by the bytes that were hashed: codes by a view of the mapped file, because the CPU plugin
packs them anew in the first run, and everything else by a copy, because the plugin may read it in
place. So after a load nothing reads the files.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.external_data import GraphTensor
from pulse_edge.engines.openvino_library import load_openvino, openvino_reason
from pulse_edge.errors import BundleError, EngineError

CODES = ".codes"  # how names of quantized weights end


class CheckedModel:
    """A graph as OpenVINO reads it, with checked weights. Use inside `BundleFiles.steady`.

    Attributes:
        model: `openvino.Model`.
        arrays: the memory of its weights, which must outlive what is compiled of it.

    Raises:
        EngineError: OpenVINO cannot read the graph.
        BundleError: the graph's file is another one than was checked.
    """

    def __init__(self, bundle: Bundle, graph: str) -> None:
        folder = bundle.files.folder
        bundle.read(graph)
        try:
            self.model = load_openvino().Core().read_model(str(folder.pinned / graph))
        except Exception as error:
            why = openvino_reason(error)
            raise EngineError(f"{bundle.file(graph)}: OpenVINO cannot read it ({why})") from None
        if not bundle.files.opened(graph).is_where_it_was():
            raise BundleError(f"{bundle.file(graph)}: was changed while it was loaded")
        self.arrays: list[NDArray[Any]] = []
        locations = sorted({tensor.location for tensor in bundle.tensors(graph)})
        self._contents = [bundle.files.opened(name).content() for name in locations]
        self._replace_weights(bundle, graph)

    @contextmanager
    def trimmed(self) -> Iterator[None]:
        """See `Content.trimmed`; for the files that the weights lie in."""
        with ExitStack() as stack:
            for content in self._contents:
                stack.enter_context(content.trimmed())
            yield
            for content in self._contents:
                if not content.private and hasattr(mmap, "MADV_DONTNEED"):
                    content.memory.madvise(mmap.MADV_DONTNEED)

    def _replace_weights(self, bundle: Bundle, graph: str) -> None:
        left = {tensor.name: tensor for tensor in bundle.tensors(graph)}
        for node in self.model.get_ordered_ops():
            tensor = left.get(node.get_friendly_name())
            if tensor is None or node.get_type_name() != "Constant":
                continue
            constant = self._constant(bundle, tensor, node)
            node.output(0).replace(constant.output(0))
            constant.set_friendly_name(tensor.name)
            del left[tensor.name]
        if left:
            raise EngineError(
                f"{bundle.file(graph)}: OpenVINO reads {min(left)!r:.60} in a way of its own, so "
                "its bytes cannot be checked; use --engine onnxruntime"
            )

    def _constant(self, bundle: Bundle, tensor: GraphTensor, node: Any) -> Any:
        """A constant over checked bytes, of the type and shape that the conversion gave it."""
        ov = load_openvino()
        kind = node.get_output_element_type(0)
        shape = list(node.get_output_shape(0))
        if node.get_byte_size() != tensor.size:
            raise EngineError(
                f"OpenVINO takes {node.get_byte_size()} bytes for {tensor.name!r:.60}, which has "
                f"{tensor.size}; use --engine onnxruntime"
            )
        raw = _checked_bytes(bundle, tensor)
        self.arrays.append(raw)
        if kind.bitwidth < 8:  # numpy has no such types
            value = ov.Tensor(raw, ov.Shape(shape), kind)
        else:
            value = ov.Tensor(raw.view(kind.to_dtype()).reshape(shape), shared_memory=True)
        return ov.opset13.constant(value, shared_memory=True)


class UnchangedFiles:
    """Notices that a file of weights was written to after the load.

    The plugin has packed the codes, and is not seen to read them again. But nothing promises that
    it never will, for a number of rows that it has not met.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._written = self._times()

    def _times(self) -> list[tuple[int, int]]:
        opened = (self._bundle.files.opened(name) for name in self._bundle.weights)
        states = (os.fstat(file.number) for file in opened)
        return [(status.st_size, status.st_mtime_ns) for status in states]

    def check(self) -> None:
        """Raises `BundleError` if a file's size or time of writing is another one."""
        if self._times() != self._written:
            raise BundleError(
                f"{self._bundle.path}: was changed while it was in use; load it again"
            )


def _checked_bytes(bundle: Bundle, tensor: GraphTensor) -> NDArray[np.uint8]:
    """A tensor's bytes: a view of the file if the plugin packs them, else a copy."""
    file = bundle.files.opened(tensor.location)
    content = file.content()
    if content.private or tensor.name.endswith(CODES):
        return content.array(tensor.offset, np.uint8, (tensor.size,))
    return file.array(tensor.offset, np.uint8, (tensor.size,))
