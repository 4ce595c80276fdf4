"""Clients that say, or read, nothing; from plain sockets."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tests.service.scripted import serving
from tests.service.upstream_server import Told, chunk, said, upstream_server

STALL_S = 0.5


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A socket with a small buffer, so that what is not read soon waits at the sender."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect((address.hostname, address.port))
        yield line


def is_cut(line: socket.socket) -> bool:
    """Whether the connection ends before the socket's own time is up."""
    try:
        while line.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_a_client_that_sends_no_head_is_cut_off() -> None:
    with serving(client_stall_s=STALL_S) as url, connected(url) as silent, connected(url) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        assert is_cut(silent)
        assert is_cut(half)


def test_the_next_head_on_a_connection_has_the_same_time() -> None:
    with serving(client_stall_s=STALL_S) as url, connected(url) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in line.recv(65536)
        started = time.monotonic()
        line.sendall(b"GET /healthz")
        assert is_cut(line)
        assert time.monotonic() - started >= STALL_S  # and not at once


def test_a_request_that_takes_longer_is_not_cut_off() -> None:
    told = Told(steps=said("one"))
    with (
        upstream_server(told) as upstream,
        serving(client_stall_s=STALL_S, upstreams={"one": {"base_url": upstream}}) as url,
        httpx.Client(timeout=20) as client,
    ):
        assert client.get(f"{url}/healthz").status_code == 200
        time.sleep(STALL_S * 1.5)  # between two requests a connection may rest
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "model": "m"}
        answer = client.post(f"{url}/v1/chat/completions", json=body)
        assert "[DONE]" in answer.text


def test_a_client_that_reads_nothing_is_cut_off_and_so_is_its_upstream() -> None:
    blank = chunk({"content": " " * 100_000})  # says nothing: no check takes time
    told = Told(steps=[blank] * 300)
    with (
        upstream_server(told) as upstream,
        serving(client_stall_s=STALL_S, upstreams={"one": {"base_url": upstream}}) as url,
        connected(url) as line,
    ):
        body = json.dumps(
            {"messages": [{"role": "user", "content": "hi"}], "stream": True, "model": "m"}
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
        assert told.left.wait(20)
