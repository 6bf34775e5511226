"""XML of carts: told apart by its root, and reduced to what describes signals before it is parsed.

A cart's document names the patient, the staff and the hospital. `reduced_document` copies only the
elements that a reader asks for, so that nothing else reaches a parser, a message or a result.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from pulse_edge.errors import RecordingError

Element = ElementTree.Element

MAX_BYTES = 8 << 20  # an aECG of 10 s has 0.5 MB; reading takes 30 times as much memory
MAX_ELEMENTS = 50_000
MAX_DEPTH = 64
_CHUNK = 1 << 16
# What may stand before the root: white space, the declaration, comments, a DOCTYPE.
_PROLOG = re.compile(
    r"(?:\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?:[^\[\]<>\"']|\"[^\"]*\"|'[^']*'|\[.*?\])*>)*",
    re.DOTALL,
)
_ROOT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[\s/>]")


def root_name(head: bytes) -> str:
    """The name of a document's first element, without its prefix; "" if this is no XML.

    Args:
        head: how the file begins. The prolog must be in it.
    """
    text = _decoded_head(head)
    if not text.lstrip("\ufeff \t\r\n").startswith("<"):
        return ""
    text = text.lstrip("\ufeff")
    prolog = _PROLOG.match(text)
    root = _ROOT.match(text, prolog.end() if prolog else 0)
    return root[1] if root else ""


def _decoded_head(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "ignore")
    if head[:4] == b"<\0?\0":
        return head.decode("utf-16-le", "ignore")
    if head[:4] == b"\0<\0?":
        return head.decode("utf-16-be", "ignore")
    return head.decode("utf-8", "ignore")


def reduced_document(data: bytes, paths: Collection[str], source: str) -> Element:
    """The elements of a document that are asked for, without namespaces.

    Args:
        data: of the file.
        paths: of elements below the root, as "Waveform/LeadData". An element comes with everything
            in it, and with the elements around it.
        source: the file, for messages.

    Returns:
        The root.

    Raises:
        RecordingError: the document is not well-formed, too large, or declares entities.
    """
    if len(data) > MAX_BYTES:
        raise RecordingError(
            f"{source}: XML of over {MAX_BYTES >> 20} MiB; a page shows 10 s: store a part"
        )
    reduction = _Reduction(paths, source)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.buffer_size = 1 << 20
    parser.StartElementHandler = reduction.start
    parser.EndElementHandler = reduction.end
    parser.CharacterDataHandler = reduction.text
    parser.EntityDeclHandler = reduction.refuse_entity
    try:
        for first in range(0, len(data), _CHUNK):
            parser.Parse(data[first : first + _CHUNK], False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError):  # of an encoding that nobody knows
        raise RecordingError(
            f"{source}: damaged: not well-formed XML; export the recording again"
        ) from None
    return reduction.root


class _Reduction:
    """Handlers of expat that copy what is asked for."""

    def __init__(self, paths: Collection[str], source: str) -> None:
        self._wanted = {tuple(path.split("/")) for path in paths}
        self._around = {path[:length] for path in self._wanted for length in range(len(path))}
        self._source = source
        self._names: list[str] = []  # of the open elements below the root
        self._copies: list[Element | None] = []  # of the open elements
        self._inside = 0  # open elements from the first wanted one on
        self._left = MAX_ELEMENTS
        self.root = Element("empty")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._left -= 1
        if self._left < 0 or len(self._copies) >= MAX_DEPTH:
            raise RecordingError(
                f"{self._source}: over {MAX_ELEMENTS:,} XML elements, or nested over {MAX_DEPTH} "
                "deep; expected a cart's recording"
            )
        name = name.rpartition(":")[2]
        if self._copies:
            self._names.append(name)
        place = tuple(self._names)
        if self._inside or place in self._wanted:
            self._inside += 1
        copy = None
        parent = self._copies[-1] if self._copies else None
        if self._inside or place in self._around:
            plain = {
                key.rpartition(":")[2]: value
                for key, value in attributes.items()
                if not key.startswith("xmlns")
            }
            copy = Element(name, plain)
            if parent is not None:
                parent.append(copy)
            elif not self._copies:
                self.root = copy
        self._copies.append(copy)

    def end(self, _: str) -> None:
        """An element ends."""
        self._copies.pop()
        if self._names:
            self._names.pop()
        self._inside = max(0, self._inside - 1)

    def text(self, data: str) -> None:
        """Characters in an element. Those of elements around what is asked for are left out."""
        copy = self._copies[-1] if self._copies else None
        if copy is None or not self._inside:
            return
        if len(copy):
            copy[-1].tail = (copy[-1].tail or "") + data
        else:
            copy.text = (copy.text or "") + data

    def refuse_entity(self, *_: object) -> NoReturn:
        """A declaration of an entity, which may stand for a file or for gigabytes."""
        raise RecordingError(
            f"{self._source}: the XML declares entities; expected none; export it without a DOCTYPE"
        )


def document_bytes(root: Element) -> bytes:
    """A document as UTF-8.

    Args:
        root: with all that belongs to it.
    """
    return bytes(ElementTree.tostring(root, "utf-8"))
