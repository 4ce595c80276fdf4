"""The middleware around somebody else's application, over a real socket."""

import asyncio
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from PIL import Image
from starlette.middleware.gzip import GZipMiddleware

from moderation.errors import Unscorable
from service.guard import Guard, Rule
from service.guard.rules import texts_at
from service.runtime import Runtime
from tests.service.in_thread import in_thread
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    error_of,
    scripted_moderator,
    settings,
)


@dataclass
class Application:
    """Somebody's application: it answers what it was told to, and notes what it was asked."""

    asked: list[Any] = field(default_factory=list)
    lengths: list[str] = field(default_factory=list)
    """What the headers said of them."""
    answer: Response = field(default_factory=lambda: JSONResponse({"answer": "Fine."}))
    ended: threading.Event = field(default_factory=threading.Event)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/chat")
        @app.post("/open")
        async def chat(request: Request) -> Response:
            body = await request.body()
            self.asked.append(body)
            self.lengths.append(request.headers["content-length"])
            return self.answer

        return app


@contextmanager
def guarded(
    application: Application, engine: ScriptedEngine, *rules: Rule, **changes: Any
) -> Iterator[str]:
    runtime = Runtime(
        settings(**changes),
        LIBRARY,
        load_moderator=lambda: scripted_moderator(engine),
        load_generator=None,
    )
    app = application.app()
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(Guard, runtime=runtime, rules=rules or [Rule(path="/chat")])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with listener, in_thread(server, [listener]):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(bad_is_bad)


@pytest.fixture
def url(application: Application, engine: ScriptedEngine) -> Iterator[str]:
    with guarded(application, engine) as url:
        yield url


def ask(url: str, body: Any, path: str = "/chat") -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=15)


def test_what_passes_is_as_the_application_made_it(url: str, application: Application) -> None:
    response = httpx.post(f"{url}/chat", content=b'{"q":  "Hi"}', timeout=15)
    assert response.json() == {"answer": "Fine."}
    assert application.asked == [b'{"q":  "Hi"}']


def test_the_application_never_sees_a_request_that_is_blocked(
    url: str, application: Application
) -> None:
    error = error_of(ask(url, {"deep": [{"q": "BAD"}]}), 400)
    assert error["code"] == "content_filter"
    assert error["wardgate"]["messages"][0]["where"] == "deep[0].q"
    assert application.asked == []


def test_other_routes_are_not_looked_at(url: str, application: Application) -> None:
    application.answer = JSONResponse({"answer": "BAD"})
    assert ask(url, {"q": "BAD"}, "/open").json() == {"answer": "BAD"}


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"deep": [{"answer": "BAD"}]}),
        JSONResponse({"detail": "BAD"}, 500),
        PlainTextResponse("BAD"),
        Response(b"BAD, and no JSON", media_type="application/octet-stream"),
        JSONResponse({"image": "data:image/png;base64,BAD="}),
    ],
    ids=["JSON", "an error", "text", "anything", "an image as a data URL"],
)
def test_an_answer_that_violates_never_leaves(
    url: str, application: Application, answer: Response
) -> None:
    application.answer = answer
    response = ask(url, {"q": "Hi"})
    assert "BAD" not in response.text
    assert error_of(response, 400)["code"] == "content_filter"


def test_an_image_that_cannot_be_judged_follows_on_error(
    application: Application, engine: ScriptedEngine
) -> None:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(data, "PNG")
    application.answer = Response(data.getvalue(), media_type="image/png")
    with guarded(application, engine) as url:
        error = error_of(ask(url, {"q": "Hi"}), 400)
        assert "could not be checked" in error["message"]
    with guarded(application, engine, policy_set="opened") as url:
        assert ask(url, {"q": "Hi"}).content == data.getvalue()


async def spoken(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0.05)


def test_a_stream_leaves_as_it_came_up_to_what_violates(url: str, application: Application) -> None:
    good = b': hi\n\ndata: {"text": "A good first sentence. "}\n\n'
    bad = (b'data: {"text": "B', b'AD"}\r\n\r\ndata: {"text": "more"}\n\n')
    application.answer = StreamingResponse(
        spoken(good, b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", *bad),
        media_type="text/event-stream",
    )
    response = ask(url, {"q": "Hi"})
    assert response.status_code == 200
    first, _, rest = response.text.partition('data: {"error"')
    assert first.encode() == good
    assert '"code":"content_filter"' in rest
    assert "BAD" not in response.text
    application.answer = StreamingResponse(
        spoken(good, b"data: [DONE]\n\n"), media_type="text/event-stream"
    )
    assert ask(url, {"q": "Hi"}).content == good + b"data: [DONE]\n\n"


def test_an_event_without_an_end_is_not_held_for_ever(
    url: str, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.guard.bodies.MAX_EVENT_BYTES", 5_000)
    good = b'data: {"text": "A good first sentence. "}\n\n'
    endless = [b"data: more", *[b" and more" * 100] * 10]
    application.answer = StreamingResponse(spoken(good, *endless), media_type="text/event-stream")
    first, _, rest = ask(url, {"q": "Hi"}).text.partition('data: {"error"')
    assert first.encode() == good
    assert "too long" in rest


def test_streamed_text_ends_before_what_violates(url: str, application: Application) -> None:
    letter = "é".encode()
    data = [b"A good first sentence. ", letter[:1], letter[1:], b" BAD ", b"more"]
    application.answer = StreamingResponse(spoken(*data[:3]), media_type="text/plain")
    assert ask(url, {"q": "Hi"}).text == "A good first sentence. é"
    application.answer = StreamingResponse(spoken(*data), media_type="text/plain")
    response = ask(url, {"q": "Hi"})
    assert "A good first sentence. é".startswith(response.text)
    assert response.text


# --- redact ---

MARK = "[removed by the content policy]"


@pytest.fixture(scope="module")
def redacting() -> Iterator[tuple[str, Application]]:
    application = Application()
    rules = [
        Rule(path="/chat", request=("**",), response=("answer", "choices")),
        Rule(path="/open"),
    ]
    engine = ScriptedEngine(lambda text: 1.0 if "WORSE" in text else 0.7 * bad_is_bad(text))
    with guarded(
        application, engine, *rules, policy_set="redacting_or_blocking", idle_check_s=0.1
    ) as url:
        yield url, application


def test_the_application_sees_what_is_left_of_a_request(
    redacting: tuple[str, Application],
) -> None:
    url, application = redacting
    application.answer = JSONResponse({"answer": "Fine."})
    body = {"q": ["Hi", "This is BAD."], "list": [{"index": 1, "t": "é"}, {"index": 1, "t": "BAD"}]}
    assert ask(url, body).json() == {"answer": "Fine."}
    left = {"q": ["Hi", MARK], "list": [{"index": 1, "t": "é"}, {"index": 1, "t": MARK}]}
    assert application.lengths.pop() == str(len(application.asked[-1]))
    assert json.loads(application.asked.pop()) == left
    headers = {"content-type": "text/plain"}
    assert httpx.post(f"{url}/chat", content="BAD", headers=headers).status_code == 200
    assert application.asked.pop() == MARK.encode()
    for blocked in ({"q": "BAD", "r": "WORSE"}, {"a key that is BAD": "Hi"}):
        assert error_of(ask(url, blocked), 400)["code"] == "content_filter"
    assert application.asked == []


@pytest.mark.parametrize(
    ("given", "left"),
    [
        pytest.param(
            JSONResponse({"answer": ["BAD", {"n": 1, "t": "Good."}], "note": "BAD"}),
            {"answer": [MARK, {"n": 1, "t": "Good."}], "note": "BAD"},
            id="JSON",
        ),
        pytest.param(
            Response('"BAD é"'.encode("utf-16"), media_type="application/json"),
            MARK,
            id="a text in JSON, in another encoding",
        ),
        pytest.param(
            Response(b"BAD \xe9", headers={"content-type": "text/plain; charset=latin-1"}),
            MARK,
            id="text",
        ),
    ],
)
def test_of_an_answer_what_violates_is_replaced(
    redacting: tuple[str, Application], given: Response, left: Any
) -> None:
    url, application = redacting
    application.answer = given
    answer = ask(url, {"q": "Hi"})
    assert answer.status_code == 200
    if given.media_type is None:
        assert answer.text == left
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    else:
        assert answer.json() == left


def test_of_a_long_answer_the_windows_that_violate_are_replaced(
    redacting: tuple[str, Application],
) -> None:
    url, application = redacting
    application.answer = PlainTextResponse(f"{'A fine day. ' * 400}BAD. {'Good. ' * 400}")
    text = ask(url, {"q": "Hi"}).text
    assert text.startswith("A fine day. " * 150)
    assert text.endswith("Good. " * 150)
    assert text.count(MARK) == 1
    assert "BAD" not in text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(JSONResponse({"answer": "BAD", "choices": ["WORSE"]}), id="another policy"),
        pytest.param(JSONResponse({"answer": {"so BAD": "Hi"}}), id="a key"),
        pytest.param(Response(b"BAD", media_type="application/octet-stream"), id="a file"),
    ],
)
def test_an_answer_that_cannot_be_redacted_is_blocked(
    redacting: tuple[str, Application], answer: Response
) -> None:
    url, application = redacting
    application.answer = answer
    assert error_of(ask(url, {"q": "Hi"}), 400)["code"] == "content_filter"


def event(text: str, *, names: str = "", **more: Any) -> bytes:
    return f"{names}data: {json.dumps({'answer': text, **more})}\n\n".encode()


def streamed(
    redacting: tuple[str, Application], *pieces: bytes, kind: str = "text/event-stream"
) -> str:
    url, application = redacting

    async def slowly() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            if piece.endswith((b"}\n\n", b'"\n\n', b" ")):
                await asyncio.sleep(0.3)  # a check

    application.answer = StreamingResponse(slowly(), media_type=kind)
    return ask(url, {"q": "Hi"}).text


def test_in_a_stream_a_mark_stands_for_what_is_held(redacting: tuple[str, Application]) -> None:
    good, bad, last = (event(text, names="event: piece\nid: 7\n") for text in ("Good. ", "B", "."))
    rest = [event("AD. ", n=1), b": waiting\n\n", last, b"data: [DONE]\n\n"]
    text = streamed(redacting, good, bad + rest[0], *rest[1:])
    marked = f"event: piece\nid: 7\ndata: {json.dumps({'answer': MARK})}\n\n".encode()
    emptied = event("", n=1)
    assert text.encode() == b"".join([good, marked, emptied, *rest[1:]])


def test_what_says_nothing_is_kept_where_all_is_held(redacting: tuple[str, Application]) -> None:
    rest = [b'data: {"n": 1}\n\n', b"data: [DONE]\n\n"]
    text = streamed(redacting, b"".join([event("BAD"), *rest]))
    assert text.encode() == b"".join([event(MARK), *rest])


def test_streams_of_text_and_of_texts_in_json_get_marks(
    redacting: tuple[str, Application],
) -> None:
    pieces = [b"Good. ", b"BAD. ", b"More."]
    assert streamed(redacting, *pieces, kind="text/plain") == f"Good. {MARK}More."
    quoted = [f"data: {json.dumps(piece.decode())}\n\n".encode() for piece in pieces]
    assert streamed(redacting, *quoted).encode() == b"".join(
        [quoted[0], f"data: {json.dumps(MARK)}\n\n".encode(), quoted[2]]
    )


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(event("BAD", choices=["BA", "D"]), id="another text beside it"),
        pytest.param(event("BAD", names=": a comment\n"), id="a comment beside it"),
        pytest.param(b": a BAD comment\n\n", id="a comment"),
        pytest.param(event("BAD and WORSE"), id="another policy"),
    ],
)
def test_a_stream_that_cannot_be_redacted_is_cut_off(
    redacting: tuple[str, Application], bad: bytes
) -> None:
    text = streamed(redacting, bad, event("More."))
    assert text.startswith('data: {"error"')
    assert "BAD" not in text


def test_rules_name_the_places(application: Application, engine: ScriptedEngine) -> None:
    rule = Rule(path="/ch*", request=("messages.*.content",), response=("choices.0.text",))
    with guarded(application, engine, rule) as url:
        body = {"note": "BAD", "messages": [{"content": "Hi"}, {"content": ["So"]}]}
        application.answer = JSONResponse(
            {"id": "BAD", "choices": [{"text": "a"}, {"text": "BAD"}]}
        )
        assert ask(url, body).status_code == 200
        body["messages"][1]["content"] = [{"deep": "BAD"}]  # type: ignore[index]
        assert ask(url, body).status_code == 400
        application.answer = JSONResponse({"choices": [{"text": "BAD"}]})
        assert ask(url, {"messages": []}).status_code == 400


def test_a_place_is_what_stands_below_it_and_each_text_counts_once() -> None:
    value = {"a": [{"b": "1", "c": ["2"]}, {"b": "3"}], "d": "4"}
    assert [leaf.text for leaf in texts_at(value, ("a.*.b", "a.0", "x.y"))] == ["1", "3", "2"]
    assert [leaf.text for leaf in texts_at(value, ("**",))] == ["1", "2", "3", "4"]
    same = {"a": [{"index": 0, "b": "1"}, {"index": 0, "b": "2"}]}
    assert [leaf.text for leaf in texts_at(same, ("a", "**"))] == ["1", "2"]


@pytest.mark.parametrize(("policy_set", "status"), [("closed", 500), ("opened", 200)])
def test_a_failed_check_follows_on_error(
    application: Application, policy_set: str, status: int
) -> None:
    def fail(_: str) -> float:
        raise Unscorable("NaN")

    with guarded(application, ScriptedEngine(fail), policy_set=policy_set) as url:
        assert ask(url, {"q": "Hi"}).status_code == status
    assert bool(application.asked) is (status == 200)


def test_a_body_that_cannot_be_read_is_refused(url: str, application: Application) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000):
        error = error_of(httpx.post(f"{url}/chat", content=content), 400)
        assert error["code"] == "invalid_json"
    big = httpx.post(f"{url}/chat", content=b'"' + b"a" * 2**21 + b'"')
    assert error_of(big, 413)["code"] == "body_too_large"
    assert application.asked == []


def test_an_application_that_fails_is_its_own_500(url: str, application: Application) -> None:
    application.answer = StreamingResponse(None)  # type: ignore[arg-type]
    assert ask(url, {"q": "Hi"}).status_code == 500
    application.answer = JSONResponse({})
    assert ask(url, {"q": "Hi"}).status_code == 200


def test_a_client_who_leaves_ends_the_application(url: str, application: Application) -> None:
    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b'data: {"text": "Some good words here. "}\n\n'
                await asyncio.sleep(0.01)
        finally:
            application.ended.set()

    application.answer = StreamingResponse(endless(), media_type="text/event-stream")
    with httpx.stream("POST", f"{url}/chat", json={"q": "Hi"}) as response:
        assert next(response.iter_lines())
    assert application.ended.wait(5)
