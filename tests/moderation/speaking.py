"""A model server of the tests' own: real HTTP on loopback, OpenAI's format, scripted faults."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moderation.tokenizer import SafeTokenizer
from tests.moderation.small_tokenizer import small_tokenizer_json

TOKENIZER = SafeTokenizer(small_tokenizer_json())
YES, NO = TOKENIZER.token_id("Yes"), TOKENIZER.token_id("No")
SERVED = "judge"


@dataclass(frozen=True)
class Reply:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""


Script = Callable[[dict[str, Any]], Reply]
"""From the body of a request to the reply."""


def completion(
    logprobs: dict[str, float] | None, *, prompt_tokens: int | None, **reply: Any
) -> Reply:
    """The shape of OpenAI's completions, as vLLM and llama-cpp-python write it."""
    found = None
    if logprobs is not None:
        first = max(logprobs, key=lambda token: logprobs[token])
        found = {
            "tokens": [first],
            "token_logprobs": [logprobs[first]],
            "top_logprobs": [logprobs],
            "text_offset": [0],
        }
    return _answer(found, prompt_tokens, **reply)


def completion_by_id(logprobs: dict[int, float], *, prompt_tokens: int) -> Reply:
    """The shape of llama.cpp's server."""
    listed = [
        {"id": number, "token": "?", "bytes": [63], "logprob": logprob}
        for number, logprob in logprobs.items()
    ]
    return _answer({"content": [{**listed[0], "top_logprobs": listed}]}, prompt_tokens)


def _answer(logprobs: object, prompt_tokens: int | None, **reply: Any) -> Reply:
    body: dict[str, Any] = {"choices": [{"index": 0, "text": "?", "logprobs": logprobs}]}
    if prompt_tokens is not None:
        body["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
    return Reply(body=json.dumps(body).encode(), **reply)


def p_yes_of(ids: list[int]) -> float:
    """A score that tells prompts apart."""
    return 0.05 + 0.9 * (sum((place + 1) * number for place, number in enumerate(ids)) % 97) / 97


def honest(body: dict[str, Any]) -> Reply:
    """Scores a prompt of token ids with `p_yes_of`."""
    p_yes = p_yes_of(body["prompt"])
    both = {f"token_id:{YES}": math.log(p_yes * 0.9), f"token_id:{NO}": math.log(0.9 - p_yes * 0.9)}
    return completion(both, prompt_tokens=len(body["prompt"]))


@dataclass
class Server:
    """A running server, and what it was asked."""

    url: str
    script: Script
    models: Reply
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(script: Script = honest, *, models: Reply | None = None) -> Iterator[Server]:
    """Serves `/v1/models` and `/v1/completions` until the block ends."""
    listed = {"data": [{"id": SERVED, "object": "model", "max_model_len": 1025}]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.headers.append(dict(self.headers))
            self._reply(server.models if self.path == "/v1/models" else Reply(status=404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.headers.append(dict(self.headers))
                server.bodies.append(body)
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            reply = server.script(body) if self.path == "/v1/completions" else Reply(status=404)
            time.sleep(reply.delay_s)
            with server.lock:
                server.at_once -= 1
            self._reply(reply)

        def _reply(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut_after])
            self.close_connection = reply.cut_after is not None

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    http = _Http(("127.0.0.1", 0), Handler)
    server = Server(
        url=f"http://127.0.0.1:{http.server_address[1]}/v1",
        script=script,
        models=models or Reply(body=json.dumps(listed).encode()),
    )
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
