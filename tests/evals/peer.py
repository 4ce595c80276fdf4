"""A server of OpenAI's moderation API on a free port: what it answers, a test says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from evals.categories import read_categories

CATEGORIES = sorted(
    {name for names in read_categories("openai").policies.values() for name in names}
)
MODEL = "peer-2026-01-01"


@dataclass(frozen=True)
class Reply:
    body: Any
    status: int = 200
    retry_after: str | None = None
    trickles_s: float = 0.0
    """Time in which the body comes byte by byte."""


@dataclass
class Peer:
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    """Requests that were answered at the same time, at most."""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def texts(self) -> list[str]:
        """All that was asked about, the greeting left out."""
        return [body["input"] for body in self.asked if "egg" not in body["input"]]

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        yield
        with self._lock:
            self._now -= 1


def result(
    scores: dict[str, Any] | None = None, *, model: str = MODEL, **more: Any
) -> dict[str, Any]:
    """An answer: 0.1 in each category but for these."""
    all_scores = {**dict.fromkeys(CATEGORIES, 0.1), **(scores or {})}
    return {
        "id": "modr-1",
        "model": model,
        "results": [{"flagged": False, "category_scores": all_scores, **more}],
    }


@contextmanager
def peer(answer: Callable[[str], Reply]) -> Iterator[Peer]:
    """A server that answers by the text."""
    found = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append(body)
            found.headers.append(dict(self.headers))
            assert self.path == "/v1/moderations"
            with found.counted():
                reply = answer(body["input"])
                self._send(reply)

        def _send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            if reply.retry_after is not None:
                self.send_header("Retry-After", reply.retry_after)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                if reply.trickles_s:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(reply.trickles_s / len(body))
                else:
                    self.wfile.write(body)
            except OSError:
                self.close_connection = True  # whoever asked has left

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
