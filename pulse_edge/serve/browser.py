"""The page at `/`: one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pulse_edge.serve.refusals import Refusal

_INLINE = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.S)


@cache
def web_page() -> bytes | None:
    """The bytes of the page; None in a build without one."""
    file = files("pulse_edge.serve") / "web" / "index.html"
    return file.read_bytes() if file.is_file() else None


def content_policy(page: bytes) -> str:
    """A policy that allows the scripts and styles of a page by their hashes, and nothing else.

    Args:
        page: HTML.
    """
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes[b'script']) or chr(39) + 'none' + chr(39)}",
            f"style-src {' '.join(hashes[b'style']) or chr(39) + 'none' + chr(39)}",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


async def show_browser_page(_request: Request) -> Response:
    """`GET /`."""
    page = web_page()
    if page is None:
        raise Refusal("this build has no page; use the routes under /v1", 404, "not_found")
    return HTMLResponse(page, headers={"content-security-policy": content_policy(page)})


ROUTES = (Route("/", show_browser_page, methods=["GET"]),)
