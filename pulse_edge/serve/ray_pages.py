"""Which page a request is about, and which replica keeps that page.

A replica keeps the pages that it has read. A question about a page that another replica has read
costs its whole prefill again, so every request about a page goes to the same replica.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import pybase64

# The first image of an OpenAI conversation, as JSON has it.
IMAGE = re.compile(rb'"data:[^",]{1,400};base64,([^"]*)"', re.IGNORECASE)
ESCAPED_SPACE = re.compile(rb"\\[nrt]")
PAGE_PATH = re.compile(r"/v1/pages/([0-9a-f]{64})(?:/image)?")
REQUEST_PATH = re.compile(r"/v1/requests/(?:chatcmpl-)?([\w.-]{1,64})")
BOUNDARY = re.compile(rb'boundary=(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
NAME = re.compile(rb'content-disposition:[^\r\n]*?[ ;]name="([^"\r\n]*)"', re.IGNORECASE)
PAGE_ID = re.compile(r"[0-9a-f]{64}")
KNOWN = 4096  # pages and requests whose ids are remembered, of about 200 bytes each


class KnownPages:
    """Names each request's page, so that equal pages have equal names.

    A page's name is the hash of its file. A request without a page gets a name of its own. Carts go
    on with ids that a reply gave, of a page or of a request; `learn` and `note` remember whose they
    are.

    Args:
        most: ids that are remembered; the oldest are forgotten.
    """

    def __init__(self, most: int = KNOWN) -> None:
        self._most = most
        self._names: OrderedDict[str, str] = OrderedDict()

    def name(self, scope: MutableMapping[str, Any], body: bytes) -> str:
        """The name of the page that a request is about.

        Args:
            scope: of ASGI.
            body: the whole body.

        Returns:
            The name; "" for what any replica can answer.
        """
        path = str(scope.get("path", ""))
        if found := PAGE_PATH.fullmatch(path) or REQUEST_PATH.fullmatch(path):
            return self._names.get(found[1], found[1])
        if scope.get("method") != "POST":
            return ""
        return self._of_body(_header(scope, b"content-type").lower(), body) or uuid.uuid4().hex

    def note(self, identity: str, name: str) -> None:
        """Remember the page that an id of a page or of a request belongs to.

        Args:
            identity: the id.
            name: of the page.
        """
        self._names[identity] = name
        self._names.move_to_end(identity)
        while len(self._names) > self._most:
            self._names.popitem(last=False)

    def learn(self, name: str, reply: bytes) -> None:
        """Note the id that the reply to `POST /v1/pages` gives to a page.

        Args:
            name: of the page in the request.
            reply: the whole body of the reply.
        """
        try:
            page = json.loads(reply)["id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(page, str) and PAGE_ID.fullmatch(page):
            self.note(page, name)

    def _of_body(self, kind: bytes, body: bytes) -> str:
        if not kind.startswith(b"multipart/"):
            found = IMAGE.search(body)
            json_body = kind.startswith(b"application/json")
            return (
                _sha256_of(_decoded(found[1])) if found else "" if json_body else _sha256_of(body)
            )
        fields = dict(_form_fields(kind, body))
        if "file" in fields:  # a number of a page may stand beside it
            return _sha256_of(fields["file"])
        page = fields.get("page", b"").decode("latin-1").strip()
        return self._names.get(page, page)


class PageHomes:
    """Which replica has a page.

    A new page goes where the fewest requests are, and stays there: in a simulation
    (docs/capacity.md) that is nearly as good as one queue for all, and much better than a hash.

    Args:
        most: pages that are remembered; those that were asked about longest ago are forgotten.
    """

    def __init__(self, most: int = KNOWN) -> None:
        self._most = most
        self._homes: OrderedDict[str, str] = OrderedDict()

    def ranks(self, page: str, replicas: Sequence[str]) -> list[list[str]]:
        """Replicas to ask: those of a rank before those of the next.

        Args:
            page: its name; "" for a request that any replica can answer.
            replicas: ids of those that run.
        """
        home = self._homes.get(page)
        if home is None or home not in replicas:
            return [list(replicas)]
        others = [replica for replica in replicas if replica != home]
        return [[home], others] if others else [[home]]

    def settle(self, page: str, replica: str) -> None:
        """Note which replica took a request about a page."""
        if not page:
            return
        self._homes[page] = replica
        self._homes.move_to_end(page)
        while len(self._homes) > self._most:
            self._homes.popitem(last=False)


def _form_fields(kind: bytes, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a form's fields (RFC 7578); none if it has no boundary."""
    if not (boundary := BOUNDARY.search(kind)):
        return
    for part in body.split(b"--" + (boundary[1] or boundary[2]))[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := NAME.search(head):
            yield name[1].decode("latin-1"), content.removesuffix(b"\r\n")


def _header(scope: MutableMapping[str, Any], name: bytes) -> bytes:
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    return next((bytes(value) for key, value in headers if bytes(key).lower() == name), b"")


def _decoded(data: bytes) -> bytes:
    """base64 in JSON as bytes; or as it is, and the replica will refuse it."""
    try:
        return pybase64.b64decode(ESCAPED_SPACE.sub(b"", data))
    except binascii.Error:
        return data


def _sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
