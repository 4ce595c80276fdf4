"""Requests to an OpenAI-compatible model server, with retries. The only module here that speaks
HTTP.

Knows nothing of prompts or scores. No message names the server's address or repeats anything that
it said: an error page may quote the content, and messages reach callers.
"""

import asyncio
import random
import time
from typing import Any

import httpx
from pydantic import SecretStr

from moderation.errors import EngineError, EngineOverloaded, EngineTimeout

MAX_TRIES = 5
"""Of one request, the first included."""
FIRST_DELAY_S = 0.25
"""Before the second try, give or take half; it doubles with each further one."""
MAX_DELAY_S = 30.0
"""A server that wants to be left alone for longer has given up on this request."""

_TRY_AGAIN = {429, 502, 503, 504}
_KEY_REFUSED = {401, 403}


class _TryAgain(Exception):
    """A failure that may pass."""

    def __init__(self, failure: EngineError, after_s: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after_s = after_s
        """Seconds that the server asks to be left alone."""


class ModelServer:
    """One server. Used on one event loop only."""

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | None = None,
        timeout_s: float = 60.0,
        max_connections: int = 16,
    ) -> None:
        """
        Args:
            url: up to and with `/v1`.
            api_key: sent as a bearer token.
            timeout_s: of one try, once it has a connection to itself.
            max_connections: requests at a time; the others wait here.
        """
        key = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=key,
            timeout=None,  # of the whole answer, below; httpx would count from byte to byte
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections
            ),
        )
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(max_connections)

    async def get(self, path: str, deadline: float | None = None) -> bytes:
        """The body that the server answers with; see `post`."""
        return await self._patiently("GET", path, None, deadline)

    async def post(self, path: str, body: dict[str, Any], deadline: float | None = None) -> bytes:
        """The body that the server answers with.

        Args:
            path: below the server's URL.
            body: sent as JSON.
            deadline: `time.monotonic()` after which no more is tried; it interrupts nothing.

        Raises:
            EngineOverloaded: 429 at every try.
            EngineTimeout: no answer within `timeout_s`.
            EngineError: there is no answer, or another status than 200.
        """
        return await self._patiently("POST", path, body, deadline)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _patiently(
        self, method: str, path: str, body: dict[str, Any] | None, deadline: float | None
    ) -> bytes:
        tried = 0
        while True:
            tried += 1
            try:
                return await self._once(method, path, body)
            except _TryAgain as exc:
                # jitter: those who were refused together must not come back together
                delay_s = FIRST_DELAY_S * 2 ** (tried - 1) * random.uniform(0.5, 1.5)
                delay_s = max(delay_s, exc.after_s)
                too_late = deadline is not None and time.monotonic() + delay_s >= deadline
                if tried == MAX_TRIES or delay_s > MAX_DELAY_S or too_late:
                    raise exc.failure from exc.__cause__
            await asyncio.sleep(delay_s)

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        async with self._places:
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.request(method, path, json=body)
            except TimeoutError:
                raise EngineTimeout(
                    f"the model server did not answer within {self._timeout_s:g} s"
                ) from None
            except httpx.RequestError as exc:
                raise _TryAgain(
                    EngineError(f"the model server cannot be reached ({type(exc).__name__})")
                ) from exc
        status = response.status_code
        if status == 200:
            return response.content
        if status == 429:
            after_s = _retry_after_s(response)
            raise _TryAgain(
                EngineOverloaded("the model server is overloaded", retry_after_s=after_s or 1.0),
                after_s,
            )
        failure = EngineError(f"the model server answers {method} {path} with status {status}")
        if status in _KEY_REFUSED:
            raise EngineError(
                f"the model server refuses the API key (status {status}); set"
                " WARDGATE_REMOTE_API_KEY"
            )
        if status in _TRY_AGAIN:
            raise _TryAgain(failure, _retry_after_s(response))
        raise failure


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds of the header `Retry-After`; 0 where there is none, or a date."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return 0.0
