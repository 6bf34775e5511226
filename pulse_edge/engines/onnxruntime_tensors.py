"""Buffers, KV cache and embedding table of an ONNX Runtime provider.

`shared` providers use the host's memory, so a tensor there is a view of an array. The others have
memory of their own, and contents are copied.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import open_embeddings
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.engine import Features, Rows
from pulse_edge.engines.onnxruntime_library import first_line, load_onnxruntime
from pulse_edge.engines.onnxruntime_providers import Provider
from pulse_edge.errors import EngineError


class DeviceTensor:
    """An array on the host and `value`, the OrtValue that the provider reads or writes."""

    def __init__(self, array: NDArray[Any], provider: Provider) -> None:
        # Not every version's OrtValue or binding keeps the array alive that it is a view of, so
        # this object does.
        self.array = array
        self._copied = not provider.shared
        values = load_onnxruntime().OrtValue
        if self._copied:
            shape = list(array.shape)
            dtype = array.dtype.type
            self.value = values.ortvalue_from_shape_and_type(shape, dtype, provider.device, 0)
        else:
            self.value = values.ortvalue_from_numpy(array)

    def write(self, array: NDArray[Any]) -> None:
        """Put a contiguous array of this shape where the provider reads it."""
        if self._copied:
            self.value.update_inplace(array)
        else:
            self.array[...] = array

    def upload(self) -> None:
        """Copy `array` to the device, if that has its own memory."""
        if self._copied:
            self.value.update_inplace(self.array)

    def download(self) -> None:
        """Copy the device's contents to `array`, if the device has its own memory."""
        if self._copied:
            self.array[...] = self.value.numpy()


class DeviceCache:
    """The keys and values of every layer, [slots, kv heads, rows, head size], updated in place.

    Several slots need a shared provider.

    Attributes:
        values: OrtValues over all slots by "layer.key" and "layer.value".
    """

    def __init__(
        self, text: TextSpec, rows: int, dtype: Any, provider: Provider, slots: int = 1
    ) -> None:
        self._shape = [slots, text.kv_heads, rows, text.head_size]
        self._dtype = dtype
        self._provider = provider
        self._arrays: dict[str, NDArray[Any]] = {}  # of a shared provider: what the values view
        names = [f"{layer}.{part}" for layer in range(text.layers) for part in ("key", "value")]
        self.values = {name: self._allocate(name) for name in names}
        self._parts: dict[tuple[int, int], dict[str, Any]] = {(0, slots): self.values}
        self.clear()

    def _allocate(self, name: str) -> Any:
        values = load_onnxruntime().OrtValue
        try:
            if self._provider.shared:
                self._arrays[name] = lazy_zeros(self._shape, self._dtype)
                return values.ortvalue_from_numpy(self._arrays[name])
            device = self._provider.device
            return values.ortvalue_from_shape_and_type(self._shape, self._dtype, device, 0)
        except Exception as error:
            slots, _, rows, _ = self._shape
            caches = "a cache" if slots == 1 else f"{slots} caches"
            problem = f"no memory for {caches} of {rows} tokens ({first_line(error)})"
            remedy = "lower --context" if slots == 1 else "lower --slots or --context"
            raise EngineError(f"{problem}; {remedy}") from None

    def part(self, first: int, count: int) -> dict[str, Any]:
        """OrtValues over some neighbouring slots, which share the cache's memory.

        Args:
            first: of the slots.
            count: of the slots.
        """
        if (first, count) not in self._parts:
            view = load_onnxruntime().OrtValue.ortvalue_from_numpy
            chosen = slice(first, first + count)
            self._parts[first, count] = {n: view(a[chosen]) for n, a in self._arrays.items()}
        return self._parts[first, count]

    def clear(self) -> None:
        """Fill a device's memory with zeros; fresh memory there holds what others left in it.

        The host's memory stays: the CPU's kernels read no further than the cache's length.
        """
        if self._provider.shared:
            return
        size = math.prod(self._shape) * np.dtype(self._dtype).itemsize
        on_gpu = self._provider.device == "cuda"
        for value in self.values.values():
            if not (on_gpu and cuda_driver.clear(value.data_ptr(), size)):
                value.update_inplace(np.zeros(self._shape, self._dtype))

    def read(self, length: int, slot: int = 0) -> dict[str, NDArray[Any]]:
        """The first `length` positions, [1, kv heads, length, head size] by name."""
        one = slice(slot, slot + 1)
        return {name: value.numpy()[one, :, :length] for name, value in self.values.items()}

    def put(self, rows: Mapping[str, NDArray[Any]], position: int, slot: int) -> None:
        """Write rows [1, kv heads, rows, head size] of every tensor, in a host's memory."""
        for name, part in rows.items():
            self._arrays[name][slot, :, position : position + part.shape[2]] = part[0]

    def saved_size(self, length: int) -> int:
        """Bytes of `save`; 0 from memory of a device."""
        if not self._arrays:
            return 0
        _, heads, _, head_size = self._shape
        position = heads * head_size * np.dtype(self._dtype).itemsize
        return len(self._arrays) * int(position) * length

    def save(self, length: int, slot: int = 0) -> list[NDArray[Any]]:
        """Copies of the first `length` positions in the host's memory."""
        return [array[slot, :, :length].copy() for array in self._arrays.values()]

    def restore(self, saved: list[NDArray[Any]], length: int, slot: int = 0) -> None:
        """Put the first `length` positions of copies back."""
        for array, copy in zip(self._arrays.values(), saved, strict=True):
            array[slot, :, :length] = copy[:, :length]

    def copy(self, length: int, source: int, slot: int) -> None:
        """Copy the first `length` positions of a slot into another."""
        for array in self._arrays.values():
            array[slot, :, :length] = array[source, :, :length]


class DevicePage:
    """The features of the page in a `DeviceTable`, [views, patches, hidden], by `np.asarray`."""

    def __init__(self, table: DeviceTable, views: int) -> None:
        self._table = table
        self._views = views

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        features = self._table.read(self, self._views)
        return features if dtype is None else features.astype(dtype)


class DeviceTable:
    """The embedding table, and below it the features of one page, in one tensor on the device.

    So a prompt's rows are one gather, and a page never comes to the host. The tower writes into the
    tensor's end. For PULSE-7B the table is 262 MB and the page 24.
    """

    def __init__(self, bundle: Bundle, provider: Provider) -> None:
        model = bundle.manifest.model
        table = open_embeddings(bundle)
        self._patches = model.vision.grid**2
        self._views = model.most_views
        self._provider = provider
        self._rows, self._hidden = map(int, table.shape)
        self._dtype = table.dtype
        whole = np.zeros((self._rows + self._views * self._patches, self._hidden), table.dtype)
        whole[: self._rows] = table
        try:
            tensor = DeviceTensor(whole, provider)
            tensor.upload()
        except Exception as error:
            raise EngineError(f"no memory for the embedding table ({first_line(error)})") from None
        self.value = tensor.value
        self._whole = whole if provider.shared else None  # `value` is a view of it
        self._page: DevicePage | None = None

    def __len__(self) -> int:
        """Rows of the embedding table."""
        return self._rows

    def begin(self, views: int) -> DevicePage:
        """A new page, whose features are about to be written over the last one's.

        Raises:
            EngineError: it has too many views.
        """
        if views > self._views:
            raise EngineError(f"{views} views, but a page of this model has at most {self._views}")
        self._page = DevicePage(self, views)
        return self._page

    def bind_page(self, binding: Any, views: int) -> None:
        """Let the tower write its features into the table."""
        offset = self._rows * self._hidden * self._dtype.itemsize
        shape = [views, self._patches, self._hidden]
        address = self.value.data_ptr() + offset
        device = self._provider.device
        binding.bind_output("features", device, 0, self._dtype.type, shape, address)

    def read(self, page: DevicePage, views: int) -> NDArray[Any]:
        """A copy of a page's features, [views, patches, hidden].

        Raises:
            EngineError: another page has taken its place.
        """
        self._check(page)
        features = self.value.numpy()[self._rows : self._rows + views * self._patches]
        copied: NDArray[Any] = features.reshape(views, self._patches, self._hidden).copy()
        return copied

    def rows(self, numbers: Numbers, page: Features | None) -> Rows:
        """The numbers themselves, because the graph gathers. See `Engine.rows`."""
        if len(numbers) and int(numbers.max()) >= self._rows:
            self._check(page)
        return numbers

    def _check(self, page: Features | None) -> None:
        if page is None or page is not self._page:
            problem = "the device keeps the features of the last page only"
            raise EngineError(f"{problem}, and this is an earlier one")


def lazy_zeros(shape: list[int], dtype: Any) -> NDArray[Any]:
    """Zeros that take memory 4 kB at a time as they are written.

    `np.zeros` asks Linux for pages of 2 MB. At 7B one head's part of the cache is that long, so the
    first token would take, and clear, all 4.3 GB of it.
    """
    anonymous = hasattr(mmap, "MAP_ANONYMOUS")
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if anonymous else {}
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, **private)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # kernels without huge pages refuse
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
