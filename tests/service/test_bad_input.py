import base64
import io
import json
import select
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.moderation.media import video
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(moderator, RecitingGenerator(), max_new_tokens=100) as url:
        yield url


def data_url(data: bytes) -> list[dict[str, Any]]:
    encoded = "data:image/png;base64," + base64.b64encode(data).decode()
    return [{"type": "image_url", "image_url": {"url": encoded}}]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 3.6 billion pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WHITE = Image.new("RGB", (64, 64), "white")
FRAMES = [Image.new("RGB", (64, 64), color) for color in ("white", "black")]


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        pytest.param("", "content_empty", "empty text", id="empty text"),
        pytest.param("   ", "content_empty", "empty text", id="white space"),
        pytest.param([], "invalid_request", "empty list", id="empty list"),
        pytest.param(None, "invalid_request", "a text, a list", id="null"),
        pytest.param(["a", 1], "invalid_request", "mixes", id="mixed list"),
        pytest.param(["a"] * 1025, "too_many_inputs", "1025", id="too many"),
        pytest.param([{"type": "audio"}], "unsupported_part", "unknown type", id="unknown part"),
        pytest.param([{"type": "text"}], "invalid_request", "has to be a text", id="no text"),
        pytest.param([{"type": "image_url"}], "invalid_request", "image_url", id="no url"),
        pytest.param("a b " * 50_000, "content_too_long", "32768", id="100,000 tokens and more"),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
            "remote_image_not_supported",
            "not fetched",
            id="remote image",
        ),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}],
            "invalid_data_url",
            "base64",
            id="not base64",
        ),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
            "invalid_data_url",
            "data URL",
            id="file url",
        ),
        pytest.param(data_url(b""), "unreadable_image", "", id="empty image"),
        pytest.param(data_url(b"no image"), "unreadable_image", "", id="no image"),
        pytest.param(
            data_url(encoded(WHITE, "JPEG")[:-200]), "unreadable_image", "", id="truncated JPEG"
        ),
        pytest.param(
            data_url(encoded(Image.new("RGB", (1, 1)), "PNG")),
            "unreadable_image",
            "1x1",
            id="1x1 image",
        ),
        pytest.param(data_url(bomb()), "unreadable_image", "", id="decompression bomb"),
        pytest.param(
            data_url(encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])[:-40]),
            "unreadable_image",
            "cut off",
            id="animated GIF that is cut off",
        ),
        pytest.param(
            data_url(video(FRAMES)[:-40]), "unreadable_image", "cut off", id="video that is cut off"
        ),
        pytest.param(
            [{"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}],
            "remote_image_not_supported",
            "not fetched",
            id="remote video",
        ),
        pytest.param(
            [{"type": "video_url", "video_url": "data:video/mp4;base64,AAAA"}],
            "invalid_request",
            "data:video/mp4",
            id="video without an object",
        ),
        pytest.param(
            data_url(encoded(WHITE, "GIF")),
            "unsupported_modality",
            "no image model",
            id="still GIF that no loaded model can judge",
        ),
    ],
)
def test_input_that_cannot_be_judged_is_400(url: str, value: Any, code: str, words: str) -> None:
    error = error_of(httpx.post(f"{url}/v1/moderations", json={"input": value}, timeout=30), 400)
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"input": "\xff"}', "invalid_json"),
        (b'{"input": "\\ud800"}', "invalid_text"),
        (b'{"input": "a\\ud800b"}', "invalid_text"),
        (b'{"input": "a\\udc00b"}', "invalid_text"),
        (b'{"input": "a\\ud800\\u0041"}', "invalid_text"),
        (b'{"\\ud800": 1}', "invalid_text"),
        (b'{"input": "\\ud800', "invalid_json"),
        (b'{"input": "\\ud8"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
        (b'{"input": "a", "messages": [], "inptu": 1}', None),
    ],
)
def test_a_body_that_is_no_request_is_400(
    url: str, path: str, body: bytes, code: str | None
) -> None:
    error = error_of(httpx.post(url + path, content=body), 400)
    assert error["code"] == code or (code is None and error["code"].endswith("parameter"))


def test_a_lone_surrogate_is_told_by_its_name(url: str) -> None:
    response = httpx.post(f"{url}/v1/moderations", content=b'{"input": "a\\ud800b"}')
    assert "lone surrogate" in error_of(response, 400)["message"]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "text", "text": "a", "image_url": {"url": "b"}}, "input[0].image_url"),
        ({"type": "text", "text": "a", "txet": "b"}, "input[0].txet"),
        ({"type": "image_url", "image_url": {"url": "a"}, "text": "b"}, "input[0].text"),
        (
            {"type": "image_url", "image_url": {"url": "a", "detail": "low"}},
            "input[0].image_url.detail",
        ),
    ],
)
def test_an_unknown_field_of_a_part_is_named(url: str, part: dict[str, Any], param: str) -> None:
    error = error_of(httpx.post(f"{url}/v1/moderations", json={"input": [part]}), 400)
    assert (error["param"], error["code"]) == (param, "unknown_parameter")


def test_an_unknown_field_is_named(url: str) -> None:
    body = {"input": "a", "polices": ["hate_speech"]}
    error = error_of(httpx.post(f"{url}/v1/moderations", json=body), 400)
    assert (error["param"], error["code"]) == ("polices", "unknown_parameter")


def test_an_error_never_repeats_the_content(url: str) -> None:
    secret = "what nobody may read twice"
    for body in ({"input": [secret, 1]}, {"input": "a", "surface": secret}, {"model": secret}):
        response = httpx.post(f"{url}/v1/moderations", json=body)
        assert response.status_code == 400
        assert secret not in response.text


def post_endlessly(url: str, head: str) -> tuple[int, bytes]:
    """Posts zeros until an answer comes or a gigabyte is sent: (bytes sent, answer)."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    block = b"0" * 65536
    framed = b"%x\r\n%s\r\n" % (len(block), block) if "chunked" in head else block
    sent = 0
    answer = b""
    with socket.create_connection((address.hostname, address.port), timeout=30) as line:
        line.sendall(f"POST /v1/moderations HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
        while sent < 2**30 and not select.select([line], [], [], 0)[0]:
            sent += line.send(framed)
        while not answer.endswith(b"}") and (more := line.recv(65536)):
            answer += more
    return sent, answer


@pytest.mark.parametrize(
    "head", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"], ids=["stated", "chunked"]
)
def test_a_body_of_a_gigabyte_is_413_and_not_read(url: str, head: str) -> None:
    sent, answer = post_endlessly(url, head)
    assert sent < 64 * 1024 * 1024, "the server has to answer without reading it all"
    assert answer.startswith(b"HTTP/1.1 413")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "body_too_large"
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_client_that_sends_all_before_it_reads_gets_the_413_too(url: str) -> None:
    response = httpx.post(f"{url}/v1/moderations", content=b"0" * 8 * 2**20, timeout=30)
    assert error_of(response, 413)["code"] == "body_too_large"
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "unsupported_parameter"),
        ({"audio": {"voice": "a"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_parameter"),
        ({"top_p": 0}, "top_p", "invalid_parameter"),
        ({"max_tokens": 101}, "max_tokens", "max_tokens_too_large"),
        ({"max_completion_tokens": 101}, "max_completion_tokens", "max_tokens_too_large"),
        ({"max_tokens": 0}, "max_tokens", "invalid_parameter"),
        ({"stop": [""]}, "stop", "invalid_request"),
        ({"stop": ["a"] * 9}, "stop", "invalid_parameter"),
        ({"stop": [1]}, "stop.0", "invalid_parameter"),
        ({"stop": 1}, "stop", "invalid_parameter"),
        ({"top_q": 1}, "top_q", "unknown_parameter"),
    ],
)
def test_what_a_chat_cannot_have_is_refused_by_name(
    url: str, more: dict[str, Any], param: str, code: str
) -> None:
    error = error_of(httpx.post(f"{url}/v1/chat/completions", json=chat_body(**more)), 400)
    assert (error["param"], error["code"]) == (param, code)


def said(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([said("assistant")], "messages[0].role"),
        ([said("user"), said("user")], "messages[1].role"),
        ([said("user"), said("assistant")], "messages"),
        ([said("user"), said("system"), said("user")], "messages[1].role"),
        ([said("system")], "messages"),
        ([said("user"), said("model"), said("user")], "messages.1.role"),
        ([said("user"), said("tool", tool_call_id="1")], "messages[1].role"),
        ([said("user", "")], "messages[0].content"),
        ([said("user", None)], "messages[0].content"),
        ([said("user", 5)], "messages[0].content"),
        ([said("user", [{"type": "image_url"}])], "messages[0].content[0].type"),
        ([said("user", [{"type": "text", "text": 1}])], "messages[0].content[0].text"),
        ([said("user"), said("assistant", tool_calls=[{"id": "1"}])], "messages[1].tool_calls"),
        ([], "messages"),
    ],
)
def test_messages_that_no_generator_here_reads_are_refused(
    url: str, messages: list[dict[str, Any]], param: str
) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", json={"messages": messages})
    assert error_of(response, 400)["param"] == param


def test_fields_that_change_nothing_are_taken(url: str) -> None:
    more: dict[str, Any] = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
        "tools": [],
    }
    response = httpx.post(f"{url}/v1/chat/completions", json=chat_body(**more))
    assert response.status_code == 200


def test_null_is_taken_where_openai_takes_it(url: str) -> None:
    answer = httpx.post(f"{url}/v1/moderations", json={"input": "a", "model": None})
    assert answer.status_code == 200
    for more in (
        {"model": None},
        {"stream": None},
        {"stream": None, "stream_options": None},
        {"stream": True, "stream_options": {"include_usage": None, "include_obfuscation": None}},
    ):
        answer = httpx.post(f"{url}/v1/chat/completions", json=chat_body(**more))
        assert answer.status_code == 200, more
        assert ("data: [DONE]" in answer.text) is bool(more.get("stream"))
        assert '"usage":{' not in answer.text or not more.get("stream")


def test_a_path_that_is_not_there_has_the_same_shape(url: str) -> None:
    assert error_of(httpx.get(f"{url}/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(httpx.get(f"{url}/v1/moderations"), 405)["code"] == "method_not_allowed"
