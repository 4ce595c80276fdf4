"""Nothing leaves before the check that covers it: read from the socket, by an independent reader.

The generator recites random streams with a violating span anywhere, cut anywhere; the classifier
notes what it was asked and when it knew. The reader knows only the bytes and when they came.
"""

import json
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from moderation.errors import Unscorable
from tests.service.scripted import (
    Asked,
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    scripted_moderator,
    serving,
)


@dataclass
class Stage:
    """A service, its engine and its generator; both are told anew what to do for each example."""

    url: str
    engine: ScriptedEngine
    generator: RecitingGenerator

    def recite(self, pieces: Sequence[str]) -> None:
        self.engine.asked.clear()
        self.generator.pieces = pieces
        self.generator.said = []


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    engine = ScriptedEngine(bad_is_bad)
    generator = RecitingGenerator()
    with serving(scripted_moderator(engine), generator, check_every_chars=8) as url:
        yield Stage(url, engine, generator)


@dataclass
class Seen:
    """What the reader saw."""

    arrivals: list[tuple[float, str]] = field(default_factory=list)
    """When some content came, and all the content until then."""
    finish_reason: str | None = None
    events: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.arrivals[-1][1] if self.arrivals else ""


def read_stream(url: str) -> Seen:
    """Reads a streamed chat byte by byte from a plain socket, up to its end."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    # another question each time, so that nothing is remembered from the example before
    body = json.dumps(chat_body(f"Question {uuid.uuid4()}", stream=True)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    seen = Seen()
    with socket.create_connection((address.hostname, address.port), timeout=10) as line:
        line.sendall(head.encode() + body)
        raw = b""
        handled = 0
        while data := line.recv(4096):
            now = time.monotonic()
            raw += data
            events = raw.split(b"\n\n")[:-1]
            for event in events[handled:]:
                note(seen, now, event)
            handled = len(events)
    return seen


def note(seen: Seen, now: float, event: bytes) -> None:
    start = event.find(b"data: ")
    if start < 0:
        return
    data = event[start + 6 :].decode()
    seen.events.append(data)
    if data == "[DONE]":
        return
    for choice in json.loads(data)["choices"]:
        if content := choice["delta"].get("content"):
            seen.arrivals.append((now, seen.text + content))
        seen.finish_reason = choice["finish_reason"] or seen.finish_reason


@st.composite
def streams(draw: st.DrawFn, *, violating: bool) -> list[str]:
    """A text with or without BAD in it, cut into pieces anywhere."""
    words = st.text("abcd .\n!é😀", max_size=40)
    text = draw(words) + ("BAD" if violating else "") + draw(words) + "x"
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if text[a:b]]


def covering(asked: Sequence[Asked], whole: str, length: int) -> list[Asked]:
    """The passed checks of the response that cover its first `length` characters."""
    return [
        a for a in asked if a.score < 0.5 and len(a.text) >= length and whole.startswith(a.text)
    ]


many = hypothesis_settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(pieces=streams(violating=True))
def test_no_character_arrives_before_the_check_that_covers_it(
    stage: Stage, pieces: list[str]
) -> None:
    stage.recite(pieces)
    seen = read_stream(stage.url)
    whole = "".join(pieces)
    assert whole.startswith(seen.text)
    for arrived, text in seen.arrivals:
        said = text.rstrip()  # blanks alone are not judged: a slow stream shows them as they come
        if not said:
            continue
        passed = covering(stage.engine.asked, whole, len(said))
        assert any(check.at <= arrived for check in passed), "shown before it was checked"
    assert "BAD" not in seen.text
    assert seen.finish_reason == "content_filter"
    assert seen.events[-1] == "[DONE]"


@many
@given(pieces=streams(violating=False))
def test_a_response_that_passes_arrives_whole(stage: Stage, pieces: list[str]) -> None:
    stage.recite(pieces)
    seen = read_stream(stage.url)
    assert seen.text == "".join(pieces)
    assert seen.finish_reason == "stop"
    assert max(len(check.text) for check in stage.engine.asked) >= len(seen.text)


def test_text_arrives_while_the_response_is_still_being_written(stage: Stage) -> None:
    def slowly(index: int) -> None:
        if index == 2:
            time.sleep(0.5)

    stage.generator.before_piece = slowly
    try:
        stage.recite(["A first sentence. ", "A second one. ", "And a third."])
        seen = read_stream(stage.url)
    finally:
        stage.generator.before_piece = lambda _: None
    first, last = seen.arrivals[0][0], seen.arrivals[-1][0]
    assert last - first > 0.3


@pytest.mark.parametrize(
    ("policy_set", "shown", "finish_reason"),
    [("closed", "", "content_filter"), ("opened", "Some words.", "stop")],
)
def test_a_failed_check_follows_on_error_and_says_so(
    policy_set: str, shown: str, finish_reason: str
) -> None:
    def unscorable(text: str) -> float:
        if text.startswith("Question"):
            return 0.0
        raise Unscorable("NaN")

    moderator = scripted_moderator(ScriptedEngine(unscorable))
    generator = RecitingGenerator(["Some words."])
    with serving(moderator, generator, policy_set=policy_set) as url:
        seen = read_stream(url)
    assert (seen.text, seen.finish_reason) == (shown, finish_reason)
    report = json.loads(seen.events[-2])["wardgate"]
    assert report["prompt"]["passed"] is True
    assert report["response"] == {
        "passed": policy_set == "opened",
        "failure": "unscorable",
        "verdict": None,
    }
