"""`/healthz`, `/readyz`, `/metrics`, `/v1/models` and `/v1/models/{id}`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.errors import UnknownModel
from service.runtime import Runtime, runtime_of

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """200 when requests can be served; 503 while models load and after a worker has died."""
    state = runtime_of(request).state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(runtime_of(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, object]:
    """The classifier and the generator, in OpenAI's shape."""
    return {"object": "list", "data": _models(runtime_of(request))}


@router.get("/v1/models/{model_id:path}")
async def get_model(request: Request, model_id: str) -> dict[str, object]:
    """One of them, by its id."""
    models = _models(runtime_of(request))
    for model in models:
        if model["id"] == model_id:
            return model
    known = ", ".join(str(model["id"]) for model in models)
    raise UnknownModel(f"no such model is loaded; loaded: {known}", param="model")


def _models(runtime: Runtime) -> list[dict[str, object]]:
    _ = runtime.judging
    names = [runtime.settings.model]
    if runtime.has_generator:
        names.insert(0, runtime.gate.generator.name)
    return [
        {"id": name, "object": "model", "created": runtime.created, "owned_by": "wardgate"}
        for name in names
    ]
