"""`Client` and `AsyncClient`: the same calls, with and without `await`."""

import asyncio
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import httpx

from wardgate_client.content import Part, as_input
from wardgate_client.errors import UnexpectedAnswer, WardgateError
from wardgate_client.exchange import Came, Send, Steps, Wait, call
from wardgate_client.moderation import Moderation, read_moderations

Surface = Literal["prompt", "response"]
Result = TypeVar("Result")


class _Calls:
    """What the two clients share: everything but the transport."""

    def __init__(self, *, timeout: float, retries: int) -> None:
        if timeout <= 0 or retries < 0:
            raise ValueError(
                f"expected a timeout over 0 and no negative retries: {timeout=}, {retries=}"
            )
        self._timeout_s = timeout
        self._retries = retries

    def _moderate(
        self,
        content: str | Sequence[str] | Sequence[Part],
        policies: Iterable[str],
        surface: Surface,
        context: str | None,
    ) -> Generator[Send | Wait, Came, Moderation | list[Moderation]]:
        body: dict[str, object] = {"input": as_input(content), "surface": surface}
        if policies := list(policies):
            body["policies"] = policies
        if context is not None:
            body["context"] = context
        found = read_moderations((yield from self._request("POST", "/v1/moderations", body)))
        is_list = not isinstance(content, str) and all(isinstance(item, str) for item in content)
        if is_list:
            return found
        if len(found) != 1:
            raise UnexpectedAnswer(f"expected one result for one content; found {len(found)}")
        return found[0]

    def _request(self, method: str, path: str, body: object) -> Steps:
        return call(method, path, body, timeout_s=self._timeout_s, retries=self._retries)

    def _check(self) -> Steps:
        return call("GET", "/readyz", timeout_s=self._timeout_s, retries=0)


def _settings(base_url: str, api_key: str | None) -> dict[str, Any]:
    """How httpx is set up."""
    headers: Mapping[str, str] = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": base_url, "headers": headers}


class Client(_Calls):
    """A client that waits. Safe to share between threads; close it, or use it in `with`.

    Example:
        with Client("http://127.0.0.1:8080") as client:
            print(client.moderate("How do I boil an egg?").action)
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 2,
    ) -> None:
        """
        Args:
            base_url: of the service, without `/v1`.
            api_key: sent as a bearer token.
            timeout: seconds that a call may take, all tries and waits included.
            retries: most further tries after 429, 503 or a connection that failed. The service's
                `Retry-After` is honoured where it is within the timeout, else the error is raised
                at once. Nothing else is tried again.
        """
        super().__init__(timeout=timeout, retries=retries)
        self._http = httpx.Client(**_settings(base_url, api_key))

    @overload
    def moderate(
        self,
        content: str | Sequence[Part],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> Moderation: ...

    @overload
    def moderate(
        self,
        content: list[str] | tuple[str, ...],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> list[Moderation]: ...

    def moderate(
        self,
        content: str | Sequence[str] | Sequence[Part],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> Moderation | list[Moderation]:
        """The verdict on a content, or those on several texts.

        Args:
            content: a text; parts, which are one content; or a list of texts, each a content.
            policies: ids of policies to judge besides the operator's.
            surface: whose words they are, a user's prompt or a response.
            context: for a response, the prompt that it answers: shown to the classifier, not
                judged.

        Raises:
            RequestRefused: the content cannot be judged; `code` and `param` say why and which.
            Overloaded, ServiceFailed, Unreachable, TimeUp: there is no verdict.
            UnexpectedAnswer: something else answers at that address.
        """
        return self._run(self._moderate(content, policies, surface, context))

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer to any other request, None where it is none; tried again as
        `moderate` is.

        Raises:
            WardgateError: there is no answer, or it is an error.
        """
        return self._run(self._request(method, path, body))

    def check(self) -> None:
        """Returns if the service can judge. Raises `WardgateError`: why it cannot; never waits."""
        self._run(self._check())

    def ready(self) -> bool:
        """Whether the service can judge."""
        try:
            self.check()
        except WardgateError:
            return False
        return True

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, steps: Generator[Send | Wait, Came, Result]) -> Result:
        came: Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                result: Result = end.value
                return result
            came = self._take(step)

    def _take(self, step: Send | Wait) -> Came:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(
                step.method, step.path, json=step.body, timeout=step.timeout_s
            )
        except httpx.TransportError as exc:
            return exc


class AsyncClient(_Calls):
    """A client for `await`. Used on one event loop; close it, or use it in `async with`.

    Example:
        async with AsyncClient("http://127.0.0.1:8080") as client:
            print((await client.moderate("How do I boil an egg?")).action)
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 2,
    ) -> None:
        """See `Client`."""
        super().__init__(timeout=timeout, retries=retries)
        self._http = httpx.AsyncClient(**_settings(base_url, api_key))

    @overload
    async def moderate(
        self,
        content: str | Sequence[Part],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> Moderation: ...

    @overload
    async def moderate(
        self,
        content: list[str] | tuple[str, ...],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> list[Moderation]: ...

    async def moderate(
        self,
        content: str | Sequence[str] | Sequence[Part],
        *,
        policies: Iterable[str] = (),
        surface: Surface = "prompt",
        context: str | None = None,
    ) -> Moderation | list[Moderation]:
        """See `Client.moderate`; whoever is cancelled takes the request back."""
        return await self._run(self._moderate(content, policies, surface, context))

    async def request(self, method: str, path: str, body: object = None) -> Any:
        """See `Client.request`."""
        return await self._run(self._request(method, path, body))

    async def check(self) -> None:
        """See `Client.check`."""
        await self._run(self._check())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            await self.check()
        except WardgateError:
            return False
        return True

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, steps: Generator[Send | Wait, Came, Result]) -> Result:
        came: Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                result: Result = end.value
                return result
            came = await self._take(step)

    async def _take(self, step: Send | Wait) -> Came:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(
                step.method, step.path, json=step.body, timeout=step.timeout_s
            )
        except httpx.TransportError as exc:
            return exc
