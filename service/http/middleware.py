"""The frame around every request: identity, key, error body, log line, metrics. Pure ASGI.

A `BaseHTTPMiddleware` would hide the client's disconnect from the handlers (starlette discussion 2094), so there is
none. Errors are raised deep and translated here, once; `service.http.exchange` sends them.
"""

import asyncio
import errno
import logging
import os
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service import logs
from service.errors import (
    DeadlineExceeded,
    InternalError,
    QuotaExceeded,
    ServiceError,
    Unauthorized,
    Unavailable,
    UploadTimeout,
)
from service.http.admission import Admission
from service.http.auth import Keys
from service.http.context import RequestContext
from service.http.exchange import Exchange
from service.http.metrics import Metrics
from service.http.target import in_origin_form
from service.http.tracing import PassedOn, Trace, Tracing
from service.http.upload import ClientDisconnected
from service.lifecycle import Lifecycle

OPEN_PATHS = frozenset({"/livez", "/readyz"})
METRICS_PATH = "/metrics"
DISCONNECTED = 499
"""Not sent: stands in logs and metrics for a client that did not wait."""
_USED_UP = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOSPC, errno.EFBIG}
)
"""Descriptors, also those on their way to a child, and memory, which is space where it is a file or accounted for, and
bounded by `ulimit -f`."""
_RETRY_SECONDS = 5
_REQUEST_ID = re.compile(rb"[0-9A-Za-z._\-]{1,64}")


class RequestMiddleware:
    """Wraps the application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        admission: Admission,
        lifecycle: Lifecycle,
        metrics: Metrics,
        tracing: Tracing,
        paths: Mapping[str, re.Pattern[str]],
    ) -> None:
        self._app = app
        self._keys, self._admission, self._lifecycle, self._metrics = keys, admission, lifecycle, metrics
        self._tracing, self._paths = tracing, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope.get("state", {}).get("refused"):  # its body is no HTTP, as came with its head: its connection has told
            return
        scope = in_origin_form(scope)
        context = RequestContext(_request_id(scope), time.monotonic())
        context.endpoint = self._endpoint(scope["path"])
        scope.setdefault("state", {})["context"] = context
        measured = context.endpoint != METRICS_PATH
        trace = self._trace(scope, context)
        exchange = Exchange(scope, receive, send, context.request_id, trace.traceparent)
        with self._lifecycle.request():
            self._metrics.in_flight.inc(measured)
            try:
                await self._answer(scope, exchange, context)
            finally:
                self._metrics.in_flight.dec(measured)
                if measured:
                    self._record(context, exchange, trace)

    def _endpoint(self, path: str) -> str:
        """The path as the routes have it, with a name for what varies in it; one of few, whatever is asked for."""
        return next((name for name, pattern in self._paths.items() if pattern.fullmatch(path)), "other")

    def _trace(self, scope: Scope, context: RequestContext) -> Trace:
        """Health checks and scrapes are no part of anybody's trace."""
        watched = context.endpoint in OPEN_PATHS or context.endpoint == METRICS_PATH
        tracing = PassedOn() if watched else self._tracing
        return tracing.begin(f"{scope['method']} {context.endpoint}", scope["headers"], context.arrival)

    async def _answer(self, scope: Scope, exchange: Exchange, context: RequestContext) -> None:
        try:
            if scope["path"] not in OPEN_PATHS:
                context.key_id = self._keys.authenticate(scope["headers"])
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnected:
            exchange.status = context.refused.status if context.refused else DISCONNECTED
            if context.refused is not None:
                context.code = context.refused.code
                self._metrics.rejections.labels(context.code).inc()
            self._metrics.cancellations.labels(context.stage, "disconnect").inc()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._lifecycle.aborting or exchange.fixed or task is None:
                raise
            task.uncancel()
            self._metrics.cancellations.labels(context.stage, "shutdown").inc()
            await self._refuse(Unavailable("The server is shutting down.", code="draining"), exchange, context)
        except ServiceError as error:
            if isinstance(error, DeadlineExceeded):
                self._metrics.cancellations.labels(context.stage, "deadline").inc()
            await self._refuse(error, exchange, context)
        except Exception as error:
            refusal = _noted(error, context)
            if exchange.fixed:
                raise
            await self._refuse(refusal, exchange, context)

    async def _refuse(self, error: ServiceError, exchange: Exchange, context: RequestContext) -> None:
        context.code = error.code
        if context.endpoint not in OPEN_PATHS:
            self._metrics.rejections.labels(error.code).inc()
        headers = dict(context.headers)
        if isinstance(error, Unavailable | QuotaExceeded):
            headers["retry-after"] = str(self._admission.retry_after(error.retry_after_seconds))
        if error.status == 500:  # OpenAI's clients ask again after any other answer from 500 on
            headers["x-should-retry"] = "false"
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = "Bearer"
        if error.code == "draining" or isinstance(error, UploadTimeout):
            headers["connection"] = "close"
        patient = not isinstance(error, UploadTimeout) and not self._lifecycle.aborting
        await exchange.answer(error, context.request_id, headers, patient=patient)

    def _record(self, context: RequestContext, exchange: Exchange, trace: Trace) -> None:
        seconds, status = time.monotonic() - context.arrival, exchange.status
        self._metrics.requests.labels(context.endpoint, str(status)).inc()
        self._metrics.request_duration.labels(context.endpoint, str(status)).observe(seconds)
        if "queue_seconds" in context.notes:  # of those who left or were too late as well, who waited longest
            self._metrics.queue_wait.observe(context.notes["queue_seconds"])
        known: dict[str, Any] = {"request_id": context.request_id, "key_id": context.key_id, "code": context.code}
        trace.end(status=status, notes={**known, "stage": context.stage, **context.notes}, stages=context.stages)
        level = logging.DEBUG if context.endpoint in OPEN_PATHS else logging.INFO
        logs.event(
            "request",
            level=level,
            **known,
            trace_id=trace.trace_id,
            endpoint=context.endpoint,
            status=status,
            stage=context.stage,
            total_seconds=seconds,
            **context.notes,
        )


def _request_id(scope: Scope) -> str:
    """The caller's own id if it is a plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode("ascii")
    return uuid.uuid4().hex


def _noted(error: Exception, context: RequestContext) -> ServiceError:
    """Log an error of ours; what the client is told of it: where something is used up, that it may come again."""
    known: dict[str, Any] = {"error": error, "request_id": context.request_id, "stage": context.stage}
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno if isinstance(error, OSError) else None
    if number is not None and number in _USED_UP:
        logs.event("out_of_resources", level=logging.ERROR, reason=os.strerror(number), **known)
        return Unavailable("The server is out of file descriptors or memory.", retry_after_seconds=_RETRY_SECONDS)
    logs.event("internal_error", level=logging.ERROR, **known)
    return InternalError("An internal error occurred.")
