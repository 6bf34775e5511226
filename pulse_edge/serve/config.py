"""How a server listens, what it accepts, and how long it waits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_edge.engines.options import MOST_SLOTS
from pulse_edge.errors import ParameterError

MIB = 1 << 20


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class ServeConfig:
    """Settings of a server. Each is an option of `pulse-edge serve`.

    Args:
        host: a name or an address to listen on. Anything but loopback needs `api_key_file`.
        port: 0 lets the system choose one.
        api_key_file: a file with one key a line; None asks nobody for a key.
        name: what clients call the model; None takes the checkpoint's name.
        slots: requests that decode at the same time, each with a KV cache of its own.
        queue: most requests that wait for their turn; further ones are refused.
        kept_mib: most memory for pages that had to leave the cache, in MiB (`load`, `kept_bytes`).
        pages: most pages that `POST /v1/pages` keeps.
        page_seconds: after which a kept page is dropped.
        max_body_mib: largest body of a request, in MiB.
        body_seconds: in which a request's body must arrive.
        heartbeat_seconds: between two comments of a stream that waits for its first token.
        write_seconds: after which a client that does not read its stream is left.
        drain_seconds: that running requests get after SIGTERM, before they are cancelled.
        stuck_seconds: that the engine may be unhealthy before the process ends with exit code 70; 0
            lets it go on.
        max_connections: most connections at a time.
        deadline_s: of requests that name none; None leaves them without one.
        ignore_system: answer although a system message is not the model's own; leave it out.

    Raises:
        ParameterError: a setting is out of range.
    """

    host: str = _setting("127.0.0.1", "Address to listen on; others than loopback need a key.")
    port: int = _setting(8000, "Port to listen on; 0 lets the system choose.")
    api_key_file: str | None = _setting(None, "File with one key a line, which clients must send.")
    name: str | None = _setting(None, "What clients call the model [default: its checkpoint].")
    slots: int = _setting(1, "Requests that decode at the same time, each in its own cache.")
    queue: int = _setting(8, "Most requests that wait; further ones are refused.")
    kept_mib: int = _setting(1024, "Most memory for pages that left the cache, in MiB.")
    pages: int = _setting(8, "Most pages that carts have sent ahead.")
    page_seconds: float = _setting(900.0, "Seconds after which such a page is dropped.")
    max_body_mib: int = _setting(32, "Largest body of a request, in MiB.")
    body_seconds: float = _setting(60.0, "Seconds in which a body must arrive.")
    heartbeat_seconds: float = _setting(10.0, "Seconds between comments of a waiting stream.")
    write_seconds: float = _setting(60.0, "Seconds to wait for a client that does not read.")
    drain_seconds: float = _setting(30.0, "Seconds for running requests after SIGTERM.")
    stuck_seconds: float = _setting(30.0, "Seconds of a stuck engine before exit 70; 0: never.")
    max_connections: int = _setting(512, "Most connections at a time.")
    deadline_s: float | None = _setting(None, "Deadline of requests that name none, in seconds.")
    ignore_system: bool = _setting(False, "Leave out system messages that are not the model's.")

    def __post_init__(self) -> None:
        for name, least, most in (
            ("port", 0, 65_535),
            ("slots", 1, MOST_SLOTS),
            ("queue", 0, 4_096),
            ("kept_mib", 0, 1 << 20),
            ("pages", 1, 1_024),
            ("page_seconds", 1, 86_400),
            ("max_body_mib", 1, 1_024),
            ("body_seconds", 0.1, 86_400),
            ("heartbeat_seconds", 0.01, 86_400),
            ("write_seconds", 0.1, 86_400),
            ("drain_seconds", 0, 86_400),
            ("stuck_seconds", 0, 86_400),
            ("max_connections", 1, 65_535),
        ):
            _check_range(name, getattr(self, name), least, most)
        if self.deadline_s is not None:
            _check_range("deadline_s", self.deadline_s, 0.001, 86_400)
        if not self.host:
            raise ParameterError("host is empty; name an address such as 127.0.0.1")
        if self.name is not None and not _is_name(self.name):
            raise ParameterError(
                f"name is {self.name!r:.80}, but must be 1 to 100 letters, digits and -_.:/@"
            )

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mib * MIB

    @property
    def kept_bytes(self) -> int:
        return self.kept_mib * MIB

    @property
    def key_path(self) -> Path | None:
        return None if self.api_key_file is None else Path(self.api_key_file)


def _check_range(name: str, value: object, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise ParameterError(f"{name} is {value!r}, but must be from {least:,} to {most:,}")


def _is_name(text: str) -> bool:
    """Whether a text can stand in a URL, a header and a label as it is."""
    return 0 < len(text) <= 100 and all(
        c.isascii() and (c.isalnum() or c in "-_.:/@") for c in text
    )


def setting_names() -> tuple[str, ...]:
    """The names of all settings."""
    return tuple(setting.name for setting in dataclasses.fields(ServeConfig))
