"""What is tried again, when, and how often: against a server that answers by a script."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.wardgate_client.clients import calling
from wardgate_client import (
    ErrorAnswer,
    Moderation,
    Overloaded,
    RequestRefused,
    ServiceFailed,
    UnexpectedAnswer,
    Unreachable,
)

VERDICT = {
    "action": "allow",
    "flagged": False,
    "complete": True,
    "scores": [],
    "coverage": [],
    "models": [],
    "policy_set": {"id": "a", "version": 1, "hash": "b", "comes_later": 1},
    "timings": {"scoring_ms": 1.0},
    "comes_later": {},
}
GOOD = {"results": [{"wardgate": VERDICT}]}


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: Any = field(default_factory=lambda: GOOD)
    retry_after: str | None = None
    hangs_up: bool = False


BUSY = Reply(429, {"error": {"message": "full", "code": "overloaded"}}, "0")


@dataclass
class Server:
    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)


@contextmanager
def replying(*replies: Reply) -> Iterator[Server]:
    """A server that gives these replies in turn, and the last one from then on."""
    script = list(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.at.append(time.monotonic())
            server.headers.append(dict(self.headers))
            server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = script.pop(0) if len(script) > 1 else script[0]
            if reply.hangs_up:
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            if reply.retry_after is not None:
                self.send_header("Retry-After", reply.retry_after)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server = Server(f"http://127.0.0.1:{httpd.server_port}")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()


each_kind = pytest.mark.parametrize("kind", ["sync", "async"])


@each_kind
@pytest.mark.parametrize(
    "failures",
    [
        [BUSY],
        [BUSY, BUSY],
        [Reply(503, {"error": {"message": "loading", "code": "not_ready"}}, "0")],
        [Reply(503, b"a proxy's page")],
        [Reply(hangs_up=True)],
    ],
)
def test_what_may_pass_is_tried_again(kind: str, failures: Sequence[Reply]) -> None:
    with replying(*failures, Reply()) as server, calling(kind, server.url) as client:
        assert isinstance(client.moderate("text"), Moderation)
    assert server.asked == [{"input": "text", "surface": "prompt"}] * (len(failures) + 1)


@each_kind
def test_any_other_request_is_tried_again_too(kind: str) -> None:
    with replying(BUSY, Reply(200, {"a": 1})) as server, calling(kind, server.url) as client:
        assert client.request("POST", "/v1/other", {"b": 2}) == {"a": 1}
    assert server.asked == [{"b": 2}] * 2


@each_kind
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 500, 502, 504])
def test_nothing_else_is_tried_again(kind: str, status: int) -> None:
    reply = Reply(status, {"error": {"message": "no", "code": "c", "param": "p"}}, "0")
    with (
        replying(reply) as server,
        calling(kind, server.url) as client,
        pytest.raises(RequestRefused if status < 500 else ServiceFailed, match=r"^no$") as caught,
    ):
        client.moderate("text")
    assert len(server.asked) == 1
    assert (caught.value.status, caught.value.code, caught.value.param) == (status, "c", "p")


@each_kind
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_tries_end(kind: str, retries: int) -> None:
    with (
        replying(BUSY) as server,
        calling(kind, server.url, retries=retries) as client,
        pytest.raises(Overloaded, match="full"),
    ):
        client.moderate("text")
    assert len(server.asked) == retries + 1


@each_kind
def test_the_service_says_how_long_to_wait(kind: str) -> None:
    busy = Reply(429, {"error": {"message": "full"}}, "1")
    with replying(busy, Reply()) as server, calling(kind, server.url) as client:
        client.moderate("text")
    first, second = server.at
    assert 0.95 < second - first < 5


@each_kind
def test_without_a_word_of_the_service_the_wait_grows(kind: str) -> None:
    with (
        replying(Reply(503, b"")) as server,
        calling(kind, server.url, retries=2) as client,
        pytest.raises(ServiceFailed, match="HTTP 503 without a reason"),
    ):
        client.moderate("text")
    first, second, third = server.at
    assert second - first > 0.1
    assert third - second > 0.2


@each_kind
def test_a_wait_that_would_pass_the_timeout_is_not_begun(kind: str) -> None:
    busy = Reply(429, {"error": {"message": "full"}}, "30")
    started = time.monotonic()
    with (
        replying(busy) as server,
        calling(kind, server.url, timeout=10) as client,
        pytest.raises(Overloaded) as caught,
    ):
        client.moderate("text")
    assert time.monotonic() - started < 5
    assert caught.value.retry_after_s == 30.0


@each_kind
def test_a_connection_that_keeps_breaking_is_unreachable(kind: str) -> None:
    with (
        replying(Reply(hangs_up=True)) as server,
        calling(kind, server.url, retries=1) as client,
        pytest.raises(Unreachable, match="cannot be reached"),
    ):
        client.moderate("text")
    assert len(server.asked) == 2


@each_kind
def test_the_key_is_a_bearer_token(kind: str) -> None:
    with replying(Reply()) as server, calling(kind, server.url, api_key="secret") as client:
        client.moderate("text")
    assert server.headers[0]["Authorization"] == "Bearer secret"


@each_kind
@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        [],
        None,
        {},
        {"results": [{"flagged": True}]},
        {"results": [{"wardgate": {**VERDICT, "scores": [{}]}}]},
        {"results": [{"wardgate": {k: v for k, v in VERDICT.items() if k != "action"}}]},
        {"results": []},
    ],
)
def test_an_answer_of_something_else_is_no_verdict(kind: str, body: Any) -> None:
    with (
        replying(Reply(200, body)) as server,
        calling(kind, server.url) as client,
        pytest.raises(UnexpectedAnswer, match=r"expected one result|is the address the service's"),
    ):
        client.moderate("text")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body", [b"<html>", [], {"error": "no"}, {"error": {"message": 1}}, {"error": None}]
)
def test_an_error_of_something_else_has_no_words(body: Any) -> None:
    with (
        replying(Reply(400, body)) as server,
        calling("sync", server.url) as client,
        pytest.raises(ErrorAnswer, match="HTTP 400 without a reason"),
    ):
        client.moderate("text")
