"""Elements of a DICOM data set, as bytes until somebody asks for them.

pydicom splits a data set into elements. It does not convert their values: its conversions warn on
stderr and in its log, and quote the patient's name.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pulse_edge.ecg.readers.dicom_budget import MAX_BYTES, ParseBudget
from pulse_edge.ecg.readers.dicom_tags import TAGS
from pulse_edge.privacy import without_requests

_CHARACTER_SET = 0x00080005
_TRANSFER_SYNTAX = 0x00020010
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_ITEM = (0xFFFE, 0xE000)
_SEQUENCE_END = (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


class DicomElement(NamedTuple):
    """An element of a data set: its value as bytes, or the items of a sequence."""

    tag: int
    representation: str  # of the value ("DS"); "" where the file does not say
    value: bytes | list[DicomItem]
    implicit: bool  # whether the file's representations are left out


class DicomItem:
    """A data set, or an item of one of its sequences. Values are looked up by keyword of `TAGS`."""

    def __init__(self, elements: Iterable[DicomElement], order: str, budget: ParseBudget) -> None:
        self._elements = {element.tag: element for element in elements}
        self._budget = budget
        self.order = order  # of bytes, as numpy and struct write it

    def data(self, keyword: str) -> bytes | None:
        """The bytes of an element; None if it is absent or empty.

        Raises:
            ValueError: it is a sequence.
        """
        element = self._elements.get(TAGS[keyword])
        if element is None or not element.value:
            return None
        if not isinstance(element.value, bytes):
            raise ValueError(f"{keyword} is a sequence")
        return element.value

    def text(self, keyword: str) -> str | None:
        """The text of an element, without spaces and NULs at its ends; None if there is none."""
        data = self.data(keyword)
        if data is None:
            return None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        return text.strip(" \0") or None

    def number(self, keyword: str) -> float | None:
        """The number of an element; None if there is none.

        Raises:
            ValueError: it is no single number.
        """
        data = self.data(keyword)
        if data is None:
            return None
        form = _BINARY.get(self._representation(keyword))
        if form is None:
            text = self.text(keyword)
            try:
                return None if text is None else float(text)
            except ValueError:  # whose message quotes the text
                raise ValueError(f"{keyword} is no number") from None
        if len(data) != struct.calcsize(form):
            raise ValueError(f"{keyword} is no single number")
        return float(struct.unpack(self.order + form, data)[0])

    def items(self, keyword: str) -> list[DicomItem]:
        """The items of a sequence; none if it is absent.

        Raises:
            ValueError: it is no sequence, or too long.
        """
        element = self._elements.get(TAGS[keyword])
        if element is None or not element.value:
            return []
        if isinstance(element.value, list):
            return element.value
        implicit = element.implicit or element.representation == "UN"
        return list(_items(io.BytesIO(element.value), implicit, self.order, self._budget))

    def _representation(self, keyword: str) -> str:
        from pydicom.datadict import dictionary_VR

        tag = TAGS[keyword]
        return self._elements[tag].representation or str(dictionary_VR(tag))


def first_element(head: bytes) -> int | None:
    """Where the elements of a DICOM file begin: after its mark, or at 0 if it has none.

    Args:
        head: the first 144 bytes of the file, or more.

    Returns:
        The place, or None if this is no DICOM.
    """
    for place in (128, 0):
        if head[place : place + 4] == b"DICM":
            return place + 4
    return 0 if _is_element(head[:12]) else None


def _is_element(head: bytes) -> bool:
    """Whether bytes are the first element of a file: group 2 or 8, and a length that can be."""
    if len(head) < 12 or head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    order = "<" if head[1] == 0 else ">"
    element, length = struct.unpack(order + "2xHI", head[:8])
    return element < 0x2000 and (_names_representation(head) or length < 0x400)


def _names_representation(head: bytes) -> bool:
    """Whether an element's head names the representation of its value, as "UI"."""
    return head[4:6].isalpha() and head[4:6].isupper()


def read_items(data: bytes) -> DicomItem:
    """What `TAGS` names of a DICOM file.

    Raises:
        ValueError: it is no DICOM, or inflates to more than `MAX_BYTES`.
        Exception: damaged files raise nearly anything.
    """
    start = first_element(data[:256])
    if start is None:
        raise ValueError("neither a DICOM mark nor a first element")
    budget = ParseBudget()
    file = io.BytesIO(data)
    file.seek(start)
    syntax = ""
    if data[start : start + 2] == b"\2\0":
        for element in _elements(file, False, "<", budget, group=2):
            if element.tag == _TRANSFER_SYNTAX and isinstance(element.value, bytes):
                syntax = element.value.decode("latin-1").strip(" \0")
    if syntax == _DEFLATED:
        file = io.BytesIO(_inflated(data[file.tell() :]))
    place = file.tell()
    head = file.read(8)
    file.seek(place)
    # The first group number is below 256, so the byte order shows even where no syntax is named.
    order = ">" if syntax == _BIG_ENDIAN or head[:1] == b"\0" else "<"
    implicit = not _names_representation(head)
    return DicomItem(_elements(file, implicit, order, budget), order, budget)


def _inflated(data: bytes) -> bytes:
    """A deflated data set. The limit holds while it inflates, so a small file stays small."""
    result = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_BYTES + 1)
    if len(result) > MAX_BYTES:
        raise ValueError(f"inflates to over {MAX_BYTES >> 20} MiB")
    return result


def _elements(
    file: io.BytesIO, implicit: bool, order: str, budget: ParseBudget, group: int | None = None
) -> Iterator[DicomElement]:
    """The elements of a data set that `TAGS` names, to the end of the file, item or group.

    pydicom stops before what it would convert or nest: the character set, of which it warns if it
    is unknown, and values of undefined length.
    """
    with without_requests():
        from pydicom.filereader import data_element_generator

    stopped: list[int] = []

    def stop(tag: int, _: str | None, length: int) -> bool:
        budget.spend()
        tag = int(tag)  # pydicom's own class compares slowly
        if group is not None and tag >> 16 != group:
            return True
        if tag == _CHARACTER_SET or length == _UNDEFINED:
            stopped.append(length)
            return True
        return False

    tags = None if group is not None else list(TAGS.values())
    while True:
        stopped.clear()
        for raw in data_element_generator(file, implicit, order == "<", stop, specific_tags=tags):
            kind = str(raw.VR or "")
            yield DicomElement(
                int(raw.tag), kind, raw.value or b"", bool(getattr(raw, "is_implicit_VR", implicit))
            )
        if not stopped:
            return
        if stopped[0] == _UNDEFINED:
            yield from _undefined(file, implicit, order, budget)
        else:
            file.seek(8 + stopped[0], io.SEEK_CUR)


def _undefined(
    file: io.BytesIO, implicit: bool, order: str, budget: ParseBudget
) -> Iterator[DicomElement]:
    """An element of undefined length: a sequence, or the fragments of a compressed image."""
    head = file.read(8)
    high, low = struct.unpack(order + "HH", head[:4])
    tag = high << 16 | low
    explicit = not implicit and _names_representation(head)
    kind = head[4:6].decode() if explicit else ""
    if explicit:
        file.seek(4, io.SEEK_CUR)  # the length
    items = list(_items(file, not explicit or kind == "UN", order, budget, tag in TAGS.values()))
    if tag in TAGS.values():
        yield DicomElement(tag, kind, items, implicit)


def _items(
    file: io.BytesIO, implicit: bool, order: str, budget: ParseBudget, parse: bool = True
) -> Iterator[DicomItem]:
    """The items of a sequence, to its delimiter or the end of the file.

    Args:
        file: at the first item.
        implicit: whether the items leave out the representations of values.
        order: of bytes.
        budget: of the whole file.
        parse: whether the contents of items of defined length are wanted.
    """
    with budget.nested():
        while len(head := file.read(8)) == 8:
            budget.spend()
            group, element, length = struct.unpack(order + "HHI", head)
            if (group, element) == _SEQUENCE_END:
                return
            if (group, element) != _ITEM:
                raise ValueError("a sequence holds something else than items")
            if length == _UNDEFINED:
                yield DicomItem(_elements(file, implicit, order, budget), order, budget)
            elif parse:
                part = io.BytesIO(file.read(length))
                yield DicomItem(_elements(part, implicit, order, budget), order, budget)
            else:
                file.seek(length, io.SEEK_CUR)
