"""Runs the app under uvicorn until a signal comes, and ends it within a bound."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from pulse_edge.errors import PulseEdgeError, StuckEngineError
from pulse_edge.model import Model
from pulse_edge.serve.app import create_app
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.logs import log_event, quiet_libraries
from pulse_edge.serve.notify import notify, watchdog_seconds
from pulse_edge.serve.service import Service
from pulse_edge.serve.stages import Stages

LAST_SECONDS = 3.0  # for requests that were cancelled to end
STUCK_LAST_SECONDS = 1.0  # for those who wait behind a stuck request to hear of the end
KEEP_ALIVE_SECONDS = 30


def run_server(
    model: Model, config: ServeConfig, listener: socket.socket, stages: Stages | None = None
) -> None:
    """Serve a model in this thread until SIGTERM or SIGINT, which then goes on to its old handler.

    The first signal stops new requests; those that run have `drain_seconds`, and are cancelled
    after it. A second one cancels them at once.

    Args:
        model: a loaded one.
        config: settings.
        listener: from `open_listener`.
        stages: see `create_app`.

    Raises:
        ParameterError: the file of keys is wrong.
        PulseEdgeError: the server did not start.
        StuckEngineError: the engine was unhealthy for `stuck_seconds`. Its thread still hangs, so
            the process should end without waiting for it.
    """
    server = build_server(model, config, stages)
    server.run([listener])
    if server.stuck is not None:
        raise StuckEngineError(server.stuck)
    if not server.started:
        raise PulseEdgeError("the server did not start")


def build_server(model: Model, config: ServeConfig, stages: Stages | None = None) -> DrainingServer:
    """A server whose `run` takes the sockets. Arguments and errors are those of `run_server`."""
    app = create_app(model, config, stages)
    quiet_libraries()
    return DrainingServer(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.max_connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(config.drain_seconds + LAST_SECONDS) + 1,
        ),
        app.state.service,
    )


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which lets requests end before it does.

    Args:
        config: of uvicorn.
        service: whose requests run.

    Attributes:
        stuck: why the server has ended by itself; None if it has not.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.stuck: str | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, end at once. Runs between two bytecodes."""
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell systemd."""
        await super().startup(sockets)
        notify("READY=1")
        self._life = asyncio.create_task(self._give_signs_of_life())
        self._watchdog = asyncio.create_task(self._watch_engine())

    async def _give_signs_of_life(self) -> None:
        seconds = watchdog_seconds()
        while seconds is not None:
            if self._service.model.health().healthy:
                notify("WATCHDOG=1")
            await asyncio.sleep(seconds)

    async def _watch_engine(self) -> None:
        """End the server once the engine has been unhealthy for too long."""
        allowed = self._service.config.stuck_seconds
        loop = asyncio.get_running_loop()
        unhealthy_at: float | None = None
        while allowed and not self.should_exit:
            health = self._service.model.health()
            now = loop.time()
            if health.healthy:
                unhealthy_at = None
            elif unhealthy_at is None:
                unhealthy_at = now
            elif now - unhealthy_at >= allowed:
                log_event("stuck", running_s=round(health.running_s or 0.0, 1))
                self.stuck = health.reason or "the engine is stuck; restart the process"
                self.should_exit = True
            await asyncio.sleep(min(1.0, allowed / 4))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end, then cancel them."""
        admission = self._service.admission
        admission.draining = True
        notify("STOPPING=1")
        log_event("stopping", under_way=admission.under_way)
        drain = asyncio.create_task(self._drain())
        try:
            await super().shutdown(sockets)
        finally:
            drain.cancel()
            self._life.cancel()
            self._watchdog.cancel()
            admission.cancel_all()
        log_event("stopped")

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        seconds = 0.0 if self.stuck is not None else self._service.config.drain_seconds
        end = loop.time() + seconds
        while loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        self._service.admission.cancel_all()
        if self.stuck is not None:
            await asyncio.sleep(STUCK_LAST_SECONDS)
            self.force_exit = True
