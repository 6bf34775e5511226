"""Serves a bundle on several GPUs or CPUs with Ray Serve: one replica each, pages to their own.

Extra `ray`. Each replica runs the application of `pulse-edge serve` over a model of its own. A
front reads each request and relays it to the replica that keeps its page (ray_front.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from pulse_edge.errors import EngineError, ParameterError
from pulse_edge.model import load
from pulse_edge.serve.app import create_app
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.keys import read_keys
from pulse_edge.serve.ray_front import PageFront
from pulse_edge.serve.ray_library import load_ray
from pulse_edge.serve.ray_request import ForwardedRequest, Message, replies
from pulse_edge.serve.stages import Stages

LOOPBACK = ("127.0.0.1", "::1", "localhost")
QUIET = {"enable_access_log": False}  # it would hold paths, and these ids of pages
APPLICATION = "pulse-edge"
# Requests that a replica takes; those that wait for its engine, too. The model's own queue is
# shorter and refuses with a reason.
ONGOING = 256
HEALTH_PERIOD = 2.0  # seconds between looks at a replica
HEALTH_TIMEOUT = 10.0  # seconds without an answer after which it counts as dead


@dataclass(frozen=True)
class Fleet:
    """How many replicas there are, and what each has.

    Attributes:
        bundle: as `pulse_edge.load` takes it.
        config: of each replica's application.
        least: replicas that always run.
        most: replicas that may run; over `least`, Ray starts and ends them by the load.
        gpus: of a replica, 0 for a CPU. Ray shows a replica its own GPU only.
        cpus: cores that Ray sets aside for a replica.
        load: further arguments of `pulse_edge.load`, such as `threads`.
        target_ongoing: requests of a replica above which another is started.
        downscale_delay: seconds of less load before a replica is ended. It takes its pages along.
    """

    bundle: str | None = None
    config: ServeConfig = field(default_factory=ServeConfig)
    least: int = 1
    most: int = 1
    gpus: float = 1
    cpus: float = 1
    load: dict[str, Any] = field(default_factory=dict)
    target_ongoing: float = 2
    downscale_delay: float = 600

    @property
    def scaling(self) -> dict[str, Any]:
        """Options of the deployment about the number of replicas."""
        if self.most <= self.least:
            return {"num_replicas": self.least}
        return {
            "autoscaling_config": {
                "min_replicas": self.least,
                "max_replicas": self.most,
                "target_ongoing_requests": self.target_ongoing,
                "downscale_delay_s": self.downscale_delay,
            }
        }


class PageReplica:
    """One model and its application, in a process of its own."""

    def __init__(self, fleet: Fleet) -> None:
        config, stages = fleet.config, Stages()
        waiting = config.queue + config.pages  # as `pulse-edge serve` has it
        options = {"queue_limit": waiting, "progress": stages, **fleet.load}
        self._model = load(fleet.bundle, **options)
        self._app = create_app(self._model, config, stages)
        self._lives = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._started = False

    async def _start(self) -> None:
        """Begin the application's life, once, on the loop that runs its requests."""
        async with self._starting:
            if not self._started:
                lifespan = self._app.router.lifespan_context(self._app)
                await self._lives.enter_async_context(lifespan)
                self._started = True

    async def answer(self, request: ForwardedRequest) -> AsyncIterator[Message]:
        """Yield what the application sends for a request."""
        await self._start()
        async for message in replies(self._app, request):
            yield message

    def check_health(self) -> None:
        """Raise if the model's watchdog found it stuck. Ray then replaces the replica."""
        health = self._model.health()
        if not health.healthy:
            raise EngineError(f"the model is unhealthy: {health.reason}")


class FrontDeployment:
    """The front, in a process of its own.

    Args:
        replicas: Ray's handle of the deployment of replicas.
        config: of the replicas.
    """

    def __init__(self, replicas: Any, config: ServeConfig) -> None:
        self._replicas = replicas
        self._config = config

    def __serve_build_asgi_app__(self) -> PageFront:
        """Ray calls it for the ASGI application."""
        return _build_front(self._replicas, self._config)


def application(fleet: Fleet) -> Any:
    """What `ray.serve.run` takes: the front, bound to the replicas.

    Raises:
        EngineError: Ray is not installed.
    """
    serve = load_ray().serve
    from pulse_edge.serve.ray_router import PageRouter

    replica = serve.deployment(
        PageReplica,
        ray_actor_options={"num_gpus": fleet.gpus, "num_cpus": fleet.cpus},
        max_ongoing_requests=ONGOING,
        health_check_period_s=HEALTH_PERIOD,
        health_check_timeout_s=HEALTH_TIMEOUT,
        request_router_config=serve.config.RequestRouterConfig(request_router_class=PageRouter),
        logging_config=QUIET,
        **fleet.scaling,
    )
    front = serve.deployment(
        serve.ingress()(FrontDeployment),
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=ONGOING,
        logging_config=QUIET,
    )
    return front.bind(replica.bind(fleet), fleet.config)


def start(fleet: Fleet, address: str | None = None) -> None:
    """Serve a fleet, without Ray's dashboard and usage reports.

    Args:
        fleet: see there. Its `config` says where the HTTP server listens.
        address: of a Ray cluster that runs; None starts Ray on this machine, for this machine.

    Raises:
        EngineError: Ray is not installed, or did not start.
        ParameterError: the server would listen beyond loopback without a key.
    """
    config = fleet.config
    if config.host not in LOOPBACK and not read_keys(config.key_path):
        raise ParameterError(
            f"host {config.host} is reachable from elsewhere; set api_key_file, or use 127.0.0.1"
        )
    ray = load_ray(loopback=address is None)
    if not ray.is_initialized():
        _begin_ray(ray, address)
    ray.serve.start(
        http_options={"host": config.host, "port": config.port},
        logging_config=QUIET,
    )
    ray.serve.run(application(fleet), name=APPLICATION, route_prefix="/", logging_config=QUIET)


def _begin_ray(ray: Any, address: str | None) -> None:
    local = {} if address else {"include_dashboard": False}
    try:
        ray.init(address, log_to_driver=False, **local)
    except Exception as error:  # Ray's have no base; it gives its processes 30 s
        problem = str(error).partition("\n")[0]
        where = f"no Ray cluster answers at {address}" if address else "Ray did not start here"
        raise EngineError(f"{where} ({problem:.200}); try again, or use pulse-edge serve") from None


def stop() -> None:
    """End what `start` has started."""
    ray = load_ray()
    ray.serve.shutdown()
    ray.shutdown()


def _build_front(replicas: Any, config: ServeConfig) -> PageFront:
    ray = load_ray()
    failures = ray.serve.exceptions

    lost = (ray.exceptions.RayActorError, failures.RayServeException)

    async def relay(request: ForwardedRequest) -> AsyncGenerator[Message, None]:
        stream = replicas.options(stream=True).answer.remote(request)
        try:
            async for message in stream:
                yield message
        finally:
            stream.cancel()

    full = (failures.BackPressureError,)
    keys = read_keys(config.key_path)
    return PageFront(relay, lost, full, keys, config.max_body_bytes)
