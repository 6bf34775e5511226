"""What the routes share: the model, the settings, and who is under way."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request

from pulse_edge.model import Model
from pulse_edge.serve.admission import Admission
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.metrics import Metrics
from pulse_edge.serve.pages import KeptPages
from pulse_edge.serve.readiness import Readiness
from pulse_edge.serve.stages import Stages


class Service:
    """A model that is served.

    Args:
        model: a loaded one.
        config: settings.
        stages: what the model's progress is told, if it was loaded so.
    """

    def __init__(self, model: Model, config: ServeConfig, stages: Stages | None = None) -> None:
        manifest = model.bundle.manifest
        self.model = model
        self.config = config
        self.stages = stages or Stages()
        self.name = config.name or manifest.checkpoint.name
        self.system = manifest.model.prompt.system
        self.fingerprint = model.bundle.digest[:16]
        self.created = int(time.time())
        self.admission = Admission(config.queue + config.slots)
        self.pages = KeptPages(config.pages, config.page_seconds)
        self.readiness = Readiness()
        self.metrics = Metrics(self.name, model.bundle, self.admission)


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service: Any = request.app.state.service
    assert isinstance(service, Service)
    return service
