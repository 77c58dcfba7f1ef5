"""The endpoints that only tell: health, metrics, the model. They touch no pool and hold no permit, so they answer
while everything is busy.

A full queue does not make the service unready: a load balancer that took it out would collapse onto the others.
"""

import asyncio
from collections.abc import Collection
from typing import Any

from fastapi import Request
from starlette.responses import Response

from service.errors import Unavailable
from service.http.formats import json_response
from service.http.metrics import CONTENT_TYPE, Metrics
from service.http.openai_audio import check_model
from service.lifecycle import BEAT_SECONDS, Lifecycle
from service.ports import Workers
from service.wire.messages import ModelInfo


class Status:
    """Handlers, with what they look at."""

    def __init__(
        self, lifecycle: Lifecycle, worker_pool: Workers, metrics: Metrics, aliases: Collection[str] = ()
    ) -> None:
        self._lifecycle, self._worker_pool, self._metrics = lifecycle, worker_pool, metrics
        self._aliases = aliases

    async def livez(self, _: Request) -> Response:
        """200 while the process works; 503 asks to be restarted."""
        if not self._lifecycle.alive:
            await asyncio.sleep(BEAT_SECONDS)  # the whole process may have stood still: then it beats now
        if not self._lifecycle.alive:
            raise Unavailable("The supervisor has stopped.", code="not_alive")
        return json_response({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """200 while a request would be let in; 503 asks to be left out."""
        self._lifecycle.check_ready()
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Metrics of every process, in Prometheus' text format."""
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def models(self, _: Request) -> Response:
        """The model that is loaded; an empty list until one is."""
        model = self._worker_pool.model
        return json_response({"object": "list", "data": [] if model is None else [_model(model)]})

    async def model(self, request: Request) -> Response:
        """The model that is loaded, under the name that was asked for, one of its own; 503 until one is loaded."""
        model = self._worker_pool.model
        if model is None:
            raise Unavailable("The server is starting.", code="starting")
        name = request.path_params["model"]
        check_model(name, model, self._aliases)
        return json_response(_model(model) | {"id": name})


def _model(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "languages": list(model.languages),
        "can_translate": model.can_translate,
        "device": model.device,
        "compute_type": model.compute_type,
        "encoder_context": model.encoder_context,
        "cross_kv": model.cross_kv,
        "sha256": model.sha256,
    }
