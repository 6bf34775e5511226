"""The judge's server: one OpenAI-compatible endpoint, asked over HTTP by the standard library."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

from pulse_edge.errors import ParameterError

TIMEOUT_S = 300
MOST_REPLY = 1 << 22  # bytes
MOST_SHOWN = 200  # characters of a server's own words in an error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Only the URL that the user gave is asked."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow none: the server's answer becomes an error."""


class JudgeClient:
    """Asks one model of one server, at temperature 0 and in JSON mode."""

    def __init__(self, base_url: str, model: str, api_key: str | None = None) -> None:
        """Nothing is sent yet.

        Args:
            base_url: up to and with `/v1`.
            model: name of the model.
            api_key: sent as bearer token.

        Raises:
            ParameterError: the URL is not of HTTP.
        """
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ParameterError(f"base URL {base_url!r} is not http://host/v1 or https://host/v1")
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # Without proxies of the environment: they would be another address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def identity(self, prompt: str) -> str:
        """Hash that names the judge and its instructions in a file's name.

        Args:
            prompt: the instructions.
        """
        named = "\0".join((self._url, self._model, prompt))
        return hashlib.sha256(named.encode()).hexdigest()[:12]

    def ask(self, message: str) -> str:
        """The reply to one message.

        Args:
            message: the user's.

        Raises:
            ParameterError: the server cannot be reached, refuses, or answers in another form.
        """
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": message}],
            "temperature": 0,
            "response_format": {"type": "json_object"},
        }
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                reply: Any = json.loads(response.read(MOST_REPLY))
            content = reply["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            said = error.read(MOST_SHOWN).decode("utf-8", "replace")
            raise ParameterError(
                f"{self._url}: answered {error.code} ({said.strip()}); judgements so far are kept"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ParameterError(
                f"{self._url}: cannot be reached ({error}); judgements so far are kept"
            ) from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise ParameterError(f"{self._url}: its answer is not a chat completion") from None
        return content if isinstance(content, str) else ""
