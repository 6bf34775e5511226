"""Multipart forms, read in memory: what a cart sends must not reach a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from pulse_edge.serve.refusals import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 32
MAX_TEXT = 64 << 10  # bytes of a field that is no file
FILES = ("file", "panel")  # fields whose bytes may be a file's


@dataclass
class Form:
    """The fields of a form.

    Attributes:
        texts: by name.
        files: by name: bytes. What a file is called is not kept.
    """

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def read_form(body: bytes, content_type: str, legal: tuple[str, ...]) -> Form:
    """Parse a body.

    Args:
        body: of the request.
        content_type: its header, with the boundary.
        legal: names of fields.

    Raises:
        Refusal: it is no such form, or has an unknown field, or one twice.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refusal("send multipart/form-data with a boundary", 415, "unsupported_media_type")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise _malformed("the form is malformed; send multipart/form-data") from None
    if not collector.ended:
        raise _malformed("the form is cut off; send it again")
    form = Form()
    for part in collector.parts:
        _add(form, part, legal)
    return form


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)


class _Collector:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise _malformed(f"the form has over {MAX_PARTS} parts")
        self.parts.append(_Part())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self.parts[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.ended = True


def _add(form: Form, part: _Part, legal: tuple[str, ...]) -> None:
    _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
    name = options.get(b"name", b"").decode("ascii", "replace")
    if name not in legal:
        raise _malformed(f"the form has an unknown field; there are {', '.join(legal)}")
    if name in form.texts or name in form.files:
        raise _malformed(f"the form has the field {name} twice; send it once")
    if name == "file" or (name in FILES and b"filename" in options):
        form.files[name] = bytes(part.data)
        return
    if len(part.data) > MAX_TEXT:
        raise _malformed(f"the field {name} is over {MAX_TEXT >> 10} KiB")
    try:
        form.texts[name] = part.data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed(f"the field {name} is not UTF-8") from None


def _malformed(message: str) -> Refusal:
    return Refusal(message, 400, "invalid_form")
