"""One call of the service, tries and waits included, without a transport.

A call is a generator of steps: it asks for a request to be sent or for time to pass, is told what
came of it, and returns the answer. Who drives it, with or without `await`, has no say in what is
tried again; so the two clients cannot differ in it.
"""

import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx

from wardgate_client.errors import (
    ErrorAnswer,
    Overloaded,
    RequestRefused,
    ServiceFailed,
    TimeUp,
    Unreachable,
    WardgateError,
)

FIRST_DELAY_S = 0.25
"""Before the second try where the service does not say, give or take half; doubles each time."""
_TRY_AGAIN = (429, 503)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this request; the answer, or what kept it from coming, is wanted."""

    method: str
    path: str
    body: object | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Let so much time pass."""

    seconds: float


Came = httpx.Response | httpx.TransportError | None
"""What came of a step; nothing of a wait."""
Steps = Generator[Send | Wait, Came, Any]
"""Returns the JSON of the answer; None where it is none."""


def call(
    method: str, path: str, body: object | None = None, *, timeout_s: float, retries: int
) -> Steps:
    """One call.

    Args:
        method, path, body: of the request; the body is sent as JSON.
        timeout_s: of all tries and the waits between them.
        retries: most tries after the first; none begins or is waited for past the timeout.

    Raises:
        WardgateError: see `errors`; of the last try.
    """
    deadline = time.monotonic() + timeout_s
    for tries_left in reversed(range(retries + 1)):
        came = yield Send(method, path, body, max(0.001, deadline - time.monotonic()))
        assert came is not None, "an answer was asked for"
        failure = _failure(came)
        if failure is None:
            assert isinstance(came, httpx.Response)
            return _json_or_none(came)
        delay_s = _delay_s(failure, retries - tries_left)
        if delay_s is None or not tries_left or time.monotonic() + delay_s >= deadline:
            raise failure
        yield Wait(delay_s)
    raise AssertionError("the last try returns or raises")


def _failure(came: httpx.Response | httpx.TransportError) -> WardgateError | None:
    if isinstance(came, httpx.TimeoutException):
        return _caused(TimeUp("no answer within the timeout"), came)
    if isinstance(came, httpx.TransportError):
        words = f"the service cannot be reached ({type(came).__name__}: {came}); does it run there?"
        return _caused(Unreachable(words), came)
    return None if came.is_success else _error_answer(came)


def _delay_s(failure: WardgateError, tries: int) -> float | None:
    """Seconds before the next try; None where another would come to the same."""
    delay_s = FIRST_DELAY_S * 2**tries * random.uniform(0.5, 1.5)
    if isinstance(failure, ErrorAnswer) and failure.status in _TRY_AGAIN:
        return delay_s if failure.retry_after_s is None else failure.retry_after_s
    return delay_s if isinstance(failure, Unreachable) else None


def _error_answer(response: httpx.Response) -> WardgateError:
    status = response.status_code
    kind: type[ErrorAnswer] = RequestRefused if 400 <= status < 500 else ServiceFailed
    if status == 429:
        kind = Overloaded
    code = param = None
    match _json_or_none(response):
        case {"error": {"message": str(message), **rest}}:
            code, param = _text(rest.get("code")), _text(rest.get("param"))
        case {"status": str(state)}:  # of /readyz
            message = f"the service cannot judge: {state}"
        case _:  # a proxy in between, most likely; its page is of no use in a message
            message = f"HTTP {status} without a reason"
    return kind(
        message,
        status=status,
        code=code,
        param=param,
        retry_after_s=_retry_after_s(response),
        request_id=response.headers.get("x-request-id"),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None  # the service sends no dates


def _json_or_none(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _caused(error: WardgateError, cause: Exception) -> WardgateError:
    error.__cause__ = cause
    return error
