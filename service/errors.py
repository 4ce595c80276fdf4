"""What can go wrong with a request, and the one table from exception to HTTP answer.

ServiceError
├── BadRequest              the request cannot be served as it is                       400
│   ├── InvalidJson         the body is no JSON                                         400
│   ├── BodyTooComplex      JSON of too many pieces to be parsed                        400
│   ├── UnsupportedInput    a part, role or parameter that nothing here can honour      400
│   ├── DownloadFailed      a file at a URL must not be fetched, or cannot be           400
│   └── ContentBlocked      the gate refused the prompt (`blocked_prompt: error`)       400
├── ModelNotFound           no loaded model has that id                                 404
├── BodyTooLarge            over `max_body_bytes`                                       413
├── BodyTimeout             it did not come within `body_deadline_s`                    408
├── BodiesOverloaded        over `max_bodies_bytes` with those of other requests        429
├── UpstreamError           the server that answers for a model                         502
│   ├── UpstreamUnavailable cannot be reached                                           502
│   ├── UpstreamTimeout     does not answer in time                                     504
│   ├── UpstreamBroke       broke off, or sent what cannot be understood                502
│   └── UpstreamRefused     answered with an error of its own                       its own
└── NotReady                the models are still loading, or could not be loaded        503

`TABLE` also covers the errors of `moderation` and `policies`. An answer has OpenAI's shape,
`{"error": {"message", "type", "param", "code"}}`, or that of the face which was asked; the status
is the same in every shape. 422 is not used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.responses import JSONResponse

from moderation import errors as moderation_errors
from moderation.errors import ContentError, EngineOverloaded, ModerationError
from policies.errors import PolicyError, PolicyFileError, UnknownPolicy


class ServiceError(Exception):
    """Root of everything that `service` raises for a request."""

    code = "service_error"
    """Stable name for machines."""
    param: str | None = None
    """The field of the request that is at fault."""


class BadRequest(ServiceError):
    """The request cannot be served as it is; the message never repeats its content."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class InvalidJson(BadRequest):
    """The body is no JSON."""

    code = "invalid_json"


class BodyTooComplex(BadRequest):
    """The body is small enough, and what it describes is not."""

    code = "body_too_complex"


class UnsupportedInput(BadRequest):
    """Something asked for that cannot be honoured; it is refused and never dropped."""

    code = "unsupported_parameter"


class DownloadFailed(BadRequest):
    """A file at a URL must not be fetched, or could not be."""

    code = "download_failed"


class ContentBlocked(BadRequest):
    """The gate refused the prompt, where the settings ask for an error."""

    code = "content_filter"

    def __init__(
        self, message: str, *, report: dict[str, object], param: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.report = report
        """What the gate says of the prompt: the field `wardgate` of the error."""


class ModelNotFound(ServiceError):
    """No loaded model has the id that was asked for."""

    code = "model_not_found"
    param = "model"


class BodyTooLarge(ServiceError):
    """The body is larger than the configured maximum; the rest of it was not read."""

    code = "body_too_large"


class BodyTimeout(ServiceError):
    """The body did not come in time; the rest of it was not waited for."""

    code = "body_timeout"


class BodiesOverloaded(ServiceError):
    """There is no room for the body beside those of other requests; it was not read."""

    code = "overloaded"
    retry_after_s = 5.0


class NotReady(ServiceError):
    """The models are not loaded."""

    code = "not_ready"
    retry_after_s = 2.0


class UpstreamError(ServiceError):
    """The upstream that a model is answered by has failed."""

    code = "upstream_error"


class UpstreamUnavailable(UpstreamError):
    """It cannot be reached."""

    code = "upstream_unavailable"
    retry_after_s = 5.0


class UpstreamTimeout(UpstreamError):
    """It did not answer, or not go on, in time."""

    code = "upstream_timeout"


class UpstreamBroke(UpstreamError):
    """It broke off its answer, or sent what is no answer."""

    code = "upstream_broke"


class UpstreamRefused(UpstreamError):
    """It answered with an error of its own."""

    code = "upstream_refused"

    def __init__(
        self,
        name: str,
        found: int,
        *,
        said: str = "",
        retry_after: str | None = None,
        has_own_key: bool = False,
    ) -> None:
        """
        Args:
            name: of the upstream.
            found: its status.
            said: its words; they may hold content, and belong to no answer before a check.
            retry_after: its header.
            has_own_key: whether the key was the operator's, so that the caller can do nothing
                about a refusal of it.
        """
        super().__init__(f"the upstream {name} answered with status {found}")
        self.said = said
        is_callers = 400 <= found < 500 and not (has_own_key and found in (401, 403))
        self.status = found if is_callers else 502
        if retry_after is not None and retry_after.isdecimal():
            self.retry_after_s = float(retry_after)

    def saying(self) -> "UpstreamRefused":
        """The same with the upstream's words, once they were checked."""
        self.args = (f"{self.args[0]}: {self.said}",)
        return self


def content_at(exc: ContentError, where: str) -> BadRequest:
    """The error of a part of a content, named as the caller wrote it."""
    separator = ":" if exc.part is None else ""
    return BadRequest(f"{where}{separator} {exc.problem}", param=where, code=exc.code)


@dataclass(frozen=True, slots=True)
class Row:
    """How one exception is answered."""

    status: int
    type: str
    """OpenAI's `type`: who is at fault."""
    code: str | None = None
    """Used where the exception has no code of its own."""


_CALLER = "invalid_request_error"
_SERVER = "server_error"

TABLE: dict[type[Exception], Row] = {
    ServiceError: Row(500, _SERVER),
    BadRequest: Row(400, _CALLER),
    InvalidJson: Row(400, _CALLER),
    BodyTooComplex: Row(400, _CALLER),
    UnsupportedInput: Row(400, _CALLER),
    DownloadFailed: Row(400, _CALLER),
    ContentBlocked: Row(400, _CALLER),
    ModelNotFound: Row(404, _CALLER),
    BodyTooLarge: Row(413, _CALLER),
    BodyTimeout: Row(408, _CALLER),
    BodiesOverloaded: Row(429, "rate_limit_error"),
    UpstreamError: Row(502, _SERVER),
    UpstreamUnavailable: Row(502, _SERVER),
    UpstreamTimeout: Row(504, _SERVER),
    UpstreamBroke: Row(502, _SERVER),
    UpstreamRefused: Row(502, _SERVER),
    NotReady: Row(503, _SERVER),
    ModerationError: Row(500, _SERVER),
    moderation_errors.ContentError: Row(400, _CALLER),
    moderation_errors.ContentEmpty: Row(400, _CALLER),
    moderation_errors.ContentTooLong: Row(400, _CALLER),
    moderation_errors.InvalidText: Row(400, _CALLER),
    moderation_errors.UnreadableImage: Row(400, _CALLER),
    moderation_errors.EngineError: Row(500, _SERVER),
    EngineOverloaded: Row(429, "rate_limit_error"),
    moderation_errors.EngineTimeout: Row(504, _SERVER),
    moderation_errors.CallerLeft: Row(499, _CALLER),
    moderation_errors.EngineStopped: Row(503, _SERVER),
    moderation_errors.EngineClosed: Row(503, _SERVER),
    moderation_errors.Unscorable: Row(500, _SERVER),
    moderation_errors.ModelError: Row(500, _SERVER),
    moderation_errors.ModelRefused: Row(503, _SERVER),
    moderation_errors.ModelUnavailable: Row(503, _SERVER),
    moderation_errors.UnsupportedModality: Row(400, _CALLER),
    PolicyError: Row(500, _SERVER, "policy_error"),
    PolicyFileError: Row(500, _SERVER, "policy_file_error"),
    UnknownPolicy: Row(400, _CALLER, "unknown_policy"),
}
"""Every error that a handler may let through, each class with a row of its own."""

_UNEXPECTED = Row(500, _SERVER, "internal_error")


def row_of(exc: Exception) -> Row:
    """The row of an exception; of its nearest base where it has none, 500 for anything else."""
    for kind in type(exc).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return _UNEXPECTED


def error_code(exc: Exception) -> str:
    """The stable name of a failure."""
    return getattr(exc, "code", None) or row_of(exc).code or "internal_error"


def error_message(exc: Exception) -> str:
    """What the answer says of a failure."""
    # an exception from outside the table may carry content or paths in its words
    unexpected = row_of(exc) is _UNEXPECTED
    return "internal error; the log has the reason" if unexpected else str(exc)


ErrorShape = Callable[[Exception], dict[str, object]]
"""From a failure to the body of its answer."""


def error_body(exc: Exception) -> dict[str, object]:
    """The body of the answer to a failure, in OpenAI's shape."""
    error: dict[str, object] = {
        "message": error_message(exc),
        "type": row_of(exc).type,
        "param": getattr(exc, "param", None),
        "code": error_code(exc),
    }
    if isinstance(exc, ContentBlocked):
        error["wardgate"] = exc.report
    return {"error": error}


def error_response(exc: Exception, shape: ErrorShape = error_body) -> JSONResponse:
    """The whole answer to a failure."""
    headers = {}
    retry_after_s = getattr(exc, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if isinstance(exc, (BodyTooLarge, BodyTimeout, BodiesOverloaded)):
        headers["Connection"] = "close"  # else the server would read the rest to reuse the line
    status = exc.status if isinstance(exc, UpstreamRefused) else row_of(exc).status
    return JSONResponse(shape(exc), status, headers)
