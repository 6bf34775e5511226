"""Sends each page to the replica that keeps it. Imported by Ray's processes only."""

from __future__ import annotations

from typing import Any

from pulse_edge.serve.ray_library import load_ray
from pulse_edge.serve.ray_pages import PageHomes
from pulse_edge.serve.ray_request import ForwardedRequest

_router: Any = load_ray().serve.request_router


class PageRouter(_router.FIFOMixin, _router.RequestRouter):  # type: ignore[misc]  # it is Any
    """Ray asks the replicas of each rank, the one with the shortest queue first."""

    def initialize_state(self, **_: Any) -> None:
        """Ray calls it once."""
        self._homes = PageHomes()

    async def choose_replicas(
        self,
        candidate_replicas: list[Any],
        pending_request: Any | None = None,
    ) -> list[list[Any]]:
        """See `PageHomes.ranks`."""
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        page = _page_of(pending_request) if pending_request else ""
        return [[by_id[name] for name in rank] for rank in self._homes.ranks(page, [*by_id])]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Ray calls it when a replica has taken a request."""
        self._homes.settle(_page_of(pending_request), replica_id.unique_id)


def _page_of(pending_request: Any) -> str:
    arguments = pending_request.args
    request = arguments[0] if arguments else None
    return request.page if isinstance(request, ForwardedRequest) else ""
