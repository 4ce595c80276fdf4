"""`/healthz`, `/readyz`, `/metrics` and `/v1/models`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.errors import ModelNotFound
from service.runtime import Runtime, runtime_of

router = APIRouter()


@router.get("/healthz")
async def healthz(request: Request) -> JSONResponse:
    """200 when the process answers; 503 when only a new one helps, because a model hangs."""
    if runtime_of(request).is_hung:
        return JSONResponse({"status": "hung"}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """200 when requests can be served; 503 while models load and after a worker has died
    or hangs.

    Policies that could not be reloaded leave it at 200: the old ones are in force. So do policies
    whose scores the calibration leaves raw.
    """
    runtime = runtime_of(request)
    policy_set, library = runtime.policy_set, runtime.library
    policies = {
        "policy_set": policy_set.id,
        "version": policy_set.version,
        "hash": policy_set.hash,
        "policies": {rule.id: library.policy(rule.id).hash for rule in policy_set.policies},
        "reload_failure": runtime.policy_files.failure,
        "not_calibrated": runtime.calibration_gaps,
    }
    status = 200 if runtime.state == "ready" else 503
    return JSONResponse({"status": runtime.state, "policies": policies}, status)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(runtime_of(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, object]:
    """The classifier, and the models behind the gate that are known by name, in OpenAI's shape."""
    runtime = runtime_of(request)
    return {"object": "list", "data": [_model(runtime, name) for name in _names(runtime)]}


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> dict[str, object]:
    """One of them; ids may have slashes."""
    runtime = runtime_of(request)
    if model_id not in _names(runtime):
        known = ", ".join(_names(runtime))
        raise ModelNotFound(f"no loaded model has that id; known: {known}")
    return _model(runtime, model_id)


def _names(runtime: Runtime) -> list[str]:
    """Raises `NotReady`."""
    _ = runtime.judging
    return [*runtime.router.model_names, runtime.settings.model]


def _model(runtime: Runtime, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": runtime.created, "owned_by": "wardgate"}
