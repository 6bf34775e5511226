"""Where a server listens: loopback, or anywhere with a key."""

from __future__ import annotations

import ipaddress
import socket

from pulse_edge.errors import ParameterError
from pulse_edge.serve.config import ServeConfig

BACKLOG = 256  # connections that the kernel keeps until they are accepted


def open_listener(config: ServeConfig) -> socket.socket:
    """A socket that listens.

    Args:
        config: has host, port and the file of keys.

    Raises:
        ParameterError: the host is not loopback and there is no key, or it cannot be listened on.
    """
    family, address = _resolved(config)
    if (
        config.api_key_file is None
        and not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    ):
        raise ParameterError(
            f"host {config.host} can be reached from other machines; name a file of keys by "
            "--api-key-file, or listen on 127.0.0.1"
        )
    # The protocol is named: asyncio turns Nagle's algorithm off only where it is TCP's number. With
    # Nagle, the second piece of an answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, config.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ParameterError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror}); choose another"
        ) from None
    return listener


def _resolved(config: ServeConfig) -> tuple[socket.AddressFamily, str]:
    """The first address of the host, so that what is checked is what is listened on."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ParameterError(
            f"host {config.host!r:.80} is not known here; name an address such as 127.0.0.1"
        ) from None
    family, _, _, _, address = found[0]
    return family, str(address[0])


def url_of(listener: socket.socket) -> str:
    """The address of a socket for people."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
