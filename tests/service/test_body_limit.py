"""What request bodies may take together, and for how long; from plain sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import ValidationError

from service.body_limit import FREE_BYTES, InFlight
from service.errors import BodiesOverloaded
from service.metrics import Metrics
from tests.service.scripted import error_of, serving, serving_runtime, settings
from tests.waiting import wait_until

SMALL = {"input": "a text"}


@contextmanager
def begun_upload(url: str, *, sent: int, stated: int) -> Iterator[socket.socket]:
    """A body of which only the first bytes come."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=20) as line:
        head = f"POST /v1/moderations HTTP/1.1\r\nHost: a\r\nContent-Length: {stated}\r\n\r\n"
        line.sendall(head.encode() + b" " * sent)
        yield line


def answer(line: socket.socket) -> tuple[int, httpx.Response]:
    """The status of the answer, and the answer."""
    raw = b""
    while more := line.recv(65536):
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    lines = (field.partition(b": ") for field in head.split(b"\r\n")[1:])
    headers = [(name, value) for name, _, value in lines if name.lower() != b"content-length"]
    return status, httpx.Response(status, headers=headers, content=body)


def test_bodies_that_stop_on_the_way_do_not_pile_up() -> None:
    size = 900_000
    limits: dict[str, Any] = {"max_body_bytes": 2**20, "max_bodies_bytes": 2 * 2**20}
    with serving_runtime(**limits) as (url, runtime), ExitStack() as uploads:
        for _ in range(8):
            uploads.enter_context(begun_upload(url, sent=size, stated=2**20))

        def refused() -> float | None:
            return runtime.metrics.registry.get_sample_value(
                "wardgate_overloads_total", {"queue": "bodies"}
            )

        wait_until(lambda: (refused() or 0) >= 6)
        wait_until(lambda: runtime.bodies.num_bytes > 0)
        assert runtime.bodies.num_bytes <= runtime.settings.max_bodies_bytes
        late = httpx.post(f"{url}/v1/moderations", content=b" " * 2**20, timeout=20)
        assert error_of(late, 429)["code"] == "overloaded"
        assert int(late.headers["retry-after"]) >= 1
        assert httpx.post(f"{url}/v1/moderations", json=SMALL).status_code == 200
    wait_until(lambda: runtime.bodies.num_bytes == 0)


def test_a_body_that_was_let_in_has_its_room_to_the_end() -> None:
    body = b'{"input": "a"' + b" " * 900_000 + b"}"
    with (
        serving(max_body_bytes=2**20, max_bodies_bytes=2**20) as url,
        begun_upload(url, sent=0, stated=len(body)) as let_in,
    ):
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        for _ in range(3):
            late = httpx.post(f"{url}/v1/moderations", content=body, timeout=20)
            assert error_of(late, 429)["code"] == "overloaded"
        let_in.sendall(body)
        assert let_in.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_408() -> None:
    with (
        serving(body_deadline_s=0.3) as url,
        begun_upload(url, sent=10, stated=1000) as line,
    ):
        status, response = answer(line)
        assert error_of(response, status)["code"] == "body_timeout"
        assert status == 408
        assert response.headers["connection"] == "close"
        assert httpx.post(f"{url}/v1/moderations", json=SMALL).status_code == 200


def test_the_deadline_of_a_body_does_not_bind_its_answer() -> None:
    with serving(body_deadline_s=0.05) as url:
        for _ in range(3):
            assert httpx.post(f"{url}/v1/moderations", json=SMALL).status_code == 200


def test_small_bodies_are_not_counted_and_others_by_what_came() -> None:
    bodies = InFlight(100, Metrics())
    bodies.add(100)
    with pytest.raises(BodiesOverloaded, match="100 bytes"):
        bodies.add(1)
    bodies.remove(100)
    assert bodies.num_bytes == 0
    assert FREE_BYTES >= 16 * 1024


def test_room_for_less_than_one_body_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="max_bodies_bytes"):
        settings(max_body_bytes=2**20, max_bodies_bytes=2**20 - 1)
