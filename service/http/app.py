"""Puts the application together: settings and two pools in, an ASGI application out.

    RequestMiddleware (id, key, errors, log, metrics)  ->  routes  ->  Endpoints | Status
                                                                          |
                                            Admission, Lifecycle, Jobs -> pools

FastAPI routes and documents; it parses no body and holds no state of ours beyond `app.state.lifecycle` and
`app.state.metrics` (for the server) and `app.state.admission` (for tests and embedders).
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service import __version__
from service.errors import BadRequest, InternalError, MethodNotAllowed, NotFound
from service.http.admission import Admission, AdmissionLimits
from service.http.auth import Keys
from service.http.context import RequestContext
from service.http.documentation import add_documentation
from service.http.endpoints import Endpoints
from service.http.jobs import Jobs
from service.http.metrics import Metrics
from service.http.middleware import RequestMiddleware
from service.http.openapi import (
    DETECT_LANGUAGE,
    ERRORS,
    HEALTH,
    MODEL,
    MODELS,
    NO_MODEL,
    OPENAI_TRANSCRIPTION,
    OPENAI_TRANSLATION,
    TRANSCRIBE,
    describe_keys,
    operation_id,
)
from service.http.status import Status
from service.http.tracing import Tracing, open_tracing
from service.lifecycle import DrainTimes, Lifecycle
from service.ports import AudioDecoder, Workers
from service.settings import Settings

_MODEL_PATH = "/v1/models/{model:path}"
"""A name may hold slashes, which are decoded before a path is compared."""


def create_app(settings: Settings, audio_pool: AudioDecoder, worker_pool: Workers) -> FastAPI:
    """The application; its lifespan starts and stops the pools."""
    metrics = Metrics()
    admission = Admission(
        AdmissionLimits(
            requests=settings.max_queue_requests,
            upload_bytes=settings.max_queue_upload_bytes,
            audio_seconds=settings.max_queue_audio_seconds,
            key_requests=settings.max_key_requests,
        )
    )
    drain = DrainTimes(settings.drain_notice_seconds, settings.drain_seconds, settings.drain_accept_seconds)
    lifecycle = Lifecycle(audio_pool, worker_pool, drain)
    lifecycle.on_beat = metrics.watch(admission, lifecycle, audio_pool, worker_pool).observe
    tracing = open_tracing(settings)
    app = _framework(settings, tracing)
    app.state.lifecycle, app.state.metrics, app.state.admission = lifecycle, metrics, admission
    endpoints = Endpoints(
        settings,
        jobs=Jobs(audio_pool, worker_pool),
        worker_pool=worker_pool,
        admission=admission,
        lifecycle=lifecycle,
        metrics=metrics,
    )
    _add_routes(app, endpoints, Status(lifecycle, worker_pool, metrics, settings.model_aliases))
    metrics.expect(route.path for route in app.routes if isinstance(route, APIRoute) and route.methods == {"POST"})
    if settings.docs_enabled:
        add_documentation(app)
    if settings.api_keys and settings.docs_enabled:
        describe_keys(app)
    paths = {route.path_format: route.path_regex for route in app.routes if isinstance(route, Route)}
    app.add_middleware(
        RequestMiddleware,
        keys=Keys(key.get_secret_value() for key in settings.api_keys),
        admission=admission,
        lifecycle=lifecycle,
        metrics=metrics,
        tracing=tracing,
        paths=paths,
    )
    return app


def _framework(settings: Settings, tracing: Tracing) -> FastAPI:
    """FastAPI without what we do not want of it: redirects, other documentation pages, its own error bodies."""
    return FastAPI(
        title="Whisper speech service",
        description="OpenAI's Whisper for uploads: transcription, translation into English, language identification.",
        version=__version__,
        lifespan=partial(_lifespan, tracing),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        swagger_ui_oauth2_redirect_url=None,
        servers=[{"url": "./"}],  # beside the document, wherever a proxy has put that
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        exception_handlers={HTTPException: _http_error, RequestValidationError: _validation_error},
    )


def _add_routes(app: FastAPI, endpoints: Endpoints, status: Status) -> None:
    post = partial(app.add_api_route, methods=["POST"], tags=["speech"], responses=ERRORS)
    post("/v1/transcribe", endpoints.transcribe, summary="Speech to text", openapi_extra=TRANSCRIBE)
    post("/v1/detect-language", endpoints.detect_language, summary="Which language", openapi_extra=DETECT_LANGUAGE)
    post = partial(post, tags=["OpenAI's clients"], responses=ERRORS | NO_MODEL)
    for path, handler, summary, document in (
        ("/v1/audio/transcriptions", endpoints.openai_transcription, "Speech to text", OPENAI_TRANSCRIPTION),
        ("/v1/audio/translations", endpoints.openai_translation, "Speech to English text", OPENAI_TRANSLATION),
    ):
        post(path, handler, summary=summary, openapi_extra=document)
    _add_status_routes(app, status)


def _add_status_routes(app: FastAPI, status: Status) -> None:
    handlers = {
        "/v1/models": status.models,
        _MODEL_PATH: status.model,
        "/metrics": status.metrics,
        "/livez": status.livez,
        "/readyz": status.readyz,
    }
    for path, handler in handlers.items():
        # These answer. They come first because Allow names the methods of a path's first route; the others document.
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)
    get = partial(app.add_api_route, methods=["GET"], tags=["models"])
    refusals = {401: ERRORS[401], 503: ERRORS[503], **NO_MODEL}
    get("/v1/models", status.models, summary="What is served", responses={401: ERRORS[401]}, openapi_extra=MODELS)
    get(_MODEL_PATH, status.model, summary="One model", responses=refusals, openapi_extra=MODEL)
    get = partial(get, tags=["operation"], responses={503: ERRORS[503]}, openapi_extra=HEALTH)
    get("/livez", status.livez, summary="Whether it lives")
    get("/readyz", status.readyz, summary="Whether it takes work")
    text = {"response_class": PlainTextResponse, "openapi_extra": None}
    get("/metrics", status.metrics, summary="Prometheus' text format", responses={401: ERRORS[401]}, **text)


@contextlib.asynccontextmanager
async def _lifespan(tracing: Tracing, app: FastAPI) -> AsyncIterator[None]:
    lifecycle: Lifecycle = app.state.lifecycle
    lifecycle.start()
    try:
        yield
    finally:
        await lifecycle.stop()
        await tracing.close()


async def _http_error(request: Request, error: Exception) -> Response:
    """The framework's own refusals, as ours."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        raise NotFound("No such path.")
    if status == 405:
        context: RequestContext = request.state.context
        context.headers["allow"] = (getattr(error, "headers", None) or {}).get("Allow", "")
        raise MethodNotAllowed("The path does not take this method.")
    raise InternalError("An internal error occurred.")


async def _validation_error(_: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    place = [str(part) for part in faults[0]["loc"]] if faults else []
    raise BadRequest("A parameter is not valid.", param=place[-1] if place else None)
