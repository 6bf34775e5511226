"""Images and recordings that clients send, as the model takes them."""

from __future__ import annotations

import binascii
import re

import pybase64

from pulse_edge.ecg.readers.registry import embedded_pdf, read_bytes
from pulse_edge.page.numbered import FilePage
from pulse_edge.page.source import ImageSource
from pulse_edge.serve.refusals import Refusal

MEDIA_TYPES = (
    *("image/png", "image/jpeg", "image/jpg", "image/tiff", "image/bmp", "image/webp"),
    *("application/dicom", "application/pdf", "application/xml", "text/xml"),
    "application/octet-stream",
)
_DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)((?:;[^;,]{1,60}){0,4}),", re.I)
_BASE64 = ";base64"


def image_of_url(url: str, page: int | None = None) -> ImageSource:
    """The image in a data URL.

    Args:
        url: `data:image/png;base64,…`. What the bytes are decides, not the media type.
        page: as for `image_of_bytes`.

    Raises:
        Refusal: another kind of URL, whose fetching would be a way out of this machine.
    """
    start = _DATA_URL.match(url)
    if start is None:
        scheme = url.partition(":")[0].lower()
        what = f"a {scheme} URL" if scheme in ("http", "https", "file", "ftp") else "no data URL"
        raise Refusal(
            f"the image is {what}; only data URLs are taken: data:image/png;base64,…",
            400, "unsupported_image_url", param="messages",
        )  # fmt: skip
    media, options = start[1].lower(), start[2].lower()
    if media not in MEDIA_TYPES:
        raise Refusal(
            f"the image's media type is not one of {', '.join(MEDIA_TYPES)}",
            400, "unsupported_image_type", param="messages",
        )  # fmt: skip
    if not options.endswith(_BASE64):
        raise Refusal(
            "the image's data URL is not base64; send data:image/png;base64,…",
            400, "unsupported_image_url", param="messages",
        )  # fmt: skip
    return image_of_bytes(_from_base64(url[start.end() :]), page)


def _from_base64(text: str) -> bytes:
    """The bytes of base64, which may be broken into lines."""
    try:
        try:
            # The standard library takes a millisecond for a page, which every answer waits for.
            return pybase64.b64decode(text, validate=True)
        except binascii.Error:
            return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError:  # `binascii.Error`, or a character outside of ASCII
        raise Refusal(
            "the image's data URL is not valid base64; encode the file again",
            400, "invalid_base64", param="messages",
        ) from None  # fmt: skip


def image_of_bytes(data: bytes, page: int | None = None) -> ImageSource:
    """The bytes of a file; a recording as one.

    Args:
        data: a file, of any kind. What no reader knows is an image, or is refused as one.
        page: of a PDF or TIFF, from 1; None for the reader's own choice.

    Raises:
        Refusal: there are no bytes, or a page of a recording is asked for.
        RecordingError: a recording that cannot be read.
    """
    if not data:
        raise Refusal("the image is empty; send a file", 400, "empty_image")
    document = embedded_pdf(data)
    if document is None:
        recording = read_bytes(data)
        if recording is not None and page is not None:
            raise Refusal(
                "a recording has no pages; send it without page",
                400, "invalid_parameter", param="page",
            )  # fmt: skip
        if recording is not None:
            return recording
    file = data if document is None else document
    return file if page is None else FilePage(file, page)
