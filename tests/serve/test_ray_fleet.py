"""Deployments of a fleet, without Ray: a replica in this process, and what Ray would be told."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pulse_edge.errors import EngineError, ParameterError
from pulse_edge.model import Model
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.ray import Fleet, PageReplica, application, start
from pulse_edge.serve.ray_library import load_ray
from pulse_edge.serve.ray_request import ForwardedRequest

MODULES = ("ray", "ray.exceptions", "ray.serve", "ray.serve.exceptions", "ray.serve.request_router")


class StandInRay:
    """Ray's modules as far as we use them; notes what deployments get."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deployments: dict[str, dict[str, Any]] = {}
        self.started: list[tuple[str, Any]] = []
        modules: dict[str, Any] = {name: ModuleType(name) for name in MODULES}
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(modules[parent], child, module)
            monkeypatch.setitem(sys.modules, name, module)
        serve, router = modules["ray.serve"], modules["ray.serve.request_router"]
        router.FIFOMixin = type("FIFOMixin", (), {})
        router.RequestRouter = type("RequestRouter", (), {})
        serve.config = SimpleNamespace(RequestRouterConfig=lambda **options: options)
        serve.ingress = lambda: lambda cls: cls
        serve.deployment = self._deployment
        serve.start = lambda **options: self.started.append(("start", options))
        serve.run = lambda app, **options: self.started.append(("run", options))
        modules["ray"].is_initialized = lambda: False
        modules["ray"].init = lambda *a, **options: self.started.append(("init", options))
        monkeypatch.delitem(sys.modules, "pulse_edge.serve.ray_router", raising=False)

    def _deployment(self, cls: type, **options: Any) -> Any:
        self.deployments[cls.__name__] = options
        return SimpleNamespace(bind=lambda *arguments: (cls.__name__, *arguments))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandInRay:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return StandInRay(monkeypatch)


@pytest.fixture(scope="module")
def replica() -> PageReplica:
    return PageReplica(Fleet(load={"threads": 1}))


def get(replica: PageReplica, path: str) -> tuple[int, Any]:
    """Status and record of a reply."""
    headers = [(b"host", b"127.0.0.1:8000")]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

    async def run() -> list[Any]:
        request = ForwardedRequest.of(scope, b"", "")
        return [message async for message in replica.answer(request)]

    first, *parts = asyncio.run(run())
    return first["status"], json.loads(b"".join(part.get("body", b"") for part in parts))


def test_a_replica_answers_as_the_server_does(replica: PageReplica) -> None:
    status, models = get(replica, "/v1/models")
    assert status == 200
    assert models["data"][0]["id"] == "pulse-nano"
    assert get(replica, "/nothing")[0] == 404


def test_a_replica_is_unhealthy_when_its_model_is(
    replica: PageReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.check_health()
    stuck = SimpleNamespace(healthy=False, reason="no step for 40 s")
    monkeypatch.setattr(Model, "health", lambda _: stuck)
    with pytest.raises(EngineError, match="no step for 40 s"):
        replica.check_health()


@pytest.mark.parametrize(("least", "most"), [(1, 1), (3, 0), (3, 2)])
def test_a_fleet_of_a_fixed_size(least: int, most: int) -> None:
    assert Fleet(least=least, most=most).scaling == {"num_replicas": least}


def test_a_fleet_that_follows_the_load() -> None:
    scaling = Fleet(least=1, most=4, target_ongoing=3, downscale_delay=60).scaling
    assert scaling["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 3,
        "downscale_delay_s": 60,
    }


def test_what_ray_is_told(ray: StandInRay) -> None:
    fleet = Fleet(gpus=1, cpus=4, least=2, most=2)
    assert application(fleet) == ("FrontDeployment", ("PageReplica", fleet), fleet.config)
    replicas = ray.deployments["PageReplica"]
    assert replicas["ray_actor_options"] == {"num_gpus": 1, "num_cpus": 4}
    assert replicas["num_replicas"] == 2
    assert replicas["request_router_config"]["request_router_class"].__name__ == "PageRouter"
    for options in ray.deployments.values():
        assert options["logging_config"] == {"enable_access_log": False}


def test_ray_is_started_for_this_machine_without_reports(ray: StandInRay) -> None:
    start(Fleet(config=ServeConfig(port=8123)))
    started = dict(ray.started)
    assert started["init"] == {"include_dashboard": False, "log_to_driver": False}
    assert started["start"]["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert os.environ["RAY_USAGE_STATS_" + "ENABLED"] == "0"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_a_cluster_is_joined_as_it_is(ray: StandInRay) -> None:
    os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
    start(Fleet(), address="auto")
    assert dict(ray.started)["init"] == {"log_to_driver": False}
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


@pytest.mark.parametrize("address", [None, "192.0.2.1:6379"])
def test_ray_that_does_not_start_is_one_line(ray: StandInRay, address: str | None) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("timed out\nwith more lines")

    sys.modules["ray"].init = fail  # type: ignore[attr-defined]  # it stands in
    with pytest.raises(EngineError, match=r"\(timed out\); try again") as caught:
        start(Fleet(), address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_need_a_key(host: str, ray: StandInRay) -> None:
    with pytest.raises(ParameterError, match="api_key_file"):
        start(Fleet(config=ServeConfig(host=host)))
    assert ray.started == []


def test_without_ray_there_is_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'pulse-edge\[ray\]'"):
        load_ray()


def test_the_router_asks_a_pages_own_replica_first(ray: StandInRay) -> None:
    module = importlib.import_module("pulse_edge.serve.ray_router")
    router = module.PageRouter()
    router.initialize_state()
    ids = [SimpleNamespace(unique_id=name) for name in "abc"]
    replicas = [SimpleNamespace(replica_id=identity) for identity in ids]

    def asked(request: Any) -> list[list[str]]:
        ranks = asyncio.run(router.choose_replicas(replicas, request))
        return [[replica.replica_id.unique_id for replica in rank] for rank in ranks]

    about = SimpleNamespace(args=[ForwardedRequest({}, b"", "page")])
    assert asked(None) == asked(about) == [["a", "b", "c"]]
    router.on_request_routed(about, ids[1], None)
    assert asked(about) == [["b"], ["a", "c"]]
    for other in (SimpleNamespace(args=[]), SimpleNamespace(args=["not ours"])):
        assert asked(other) == [["a", "b", "c"]]
