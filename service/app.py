"""The application: routes, error answers, middleware, and the lifespan that runs the models."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from moderation.errors import ModerationError
from policies import PolicyError
from service import gate_api, health, moderation_api
from service.body_limit import BodyLimit
from service.errors import ServiceError, error_body, error_response
from service.faces import served_faces
from service.middleware import REQUEST_ID, Observe
from service.runtime import Runtime

_log = logging.getLogger(__name__)

_ROUTES = frozenset(
    {
        "/v1/moderations",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/images/generations",
        "/v1/models",
    }
)
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(
    runtime: Runtime, *, when_loaded: Callable[[Runtime], None] = lambda _: None
) -> FastAPI:
    """The service over a runtime.

    Args:
        runtime: settings, policies and how to load the models.
        when_loaded: called once the models are loaded or have failed to; `runtime.state` says
            which.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(runtime.load())
        loading.add_done_callback(lambda _: when_loaded(runtime))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.to_thread(runtime.close)
            await runtime.disconnect()

    app = FastAPI(
        title="Wardgate",
        description="Scores content against policies, and gates a generator.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.runtime = runtime
    app.include_router(moderation_api.router)
    if runtime.has_gate:
        app.include_router(gate_api.router)
    app.include_router(health.router)
    faces = served_faces(runtime.settings.faces)
    for face in faces:
        app.include_router(face.router)
    shapes = {path: face.error_body for face in faces for path in face.paths}
    app.state.error_shapes = shapes
    for kind in (ServiceError, ModerationError, PolicyError, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_middleware(
        BodyLimit,
        max_bytes=runtime.settings.max_body_bytes,
        deadline_s=runtime.settings.body_deadline_s,
        in_flight=runtime.bodies,
        shapes=shapes,
    )
    app.add_middleware(
        Observe, metrics=runtime.metrics, routes=_ROUTES | shapes.keys(), probes=_PROBES
    )
    return app


async def _answer_error(request: Request, exc: Exception) -> Response:
    shapes = request.app.state.error_shapes
    answer = error_response(exc, shapes.get(request.scope["path"], error_body))
    if answer.status_code == 500:
        request_id = request.scope[REQUEST_ID]
        _log.error("a request failed", exc_info=exc, extra={"request_id": request_id})
    return answer


async def _answer_nobody(_: Request, exc: Exception) -> Response:
    """The client left during its upload: the status is for the log."""
    assert isinstance(exc, ClientDisconnect)
    return Response(status_code=499)


async def _answer_http_error(request: Request, exc: Exception) -> Response:
    """404 and 405 in OpenAI's shape."""
    assert isinstance(exc, HTTPException)
    message = f"{request.method} on this path: {exc.detail}"
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code)
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, exc.status_code, exc.headers)
