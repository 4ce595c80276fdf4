"""Images that stand in answers as data URLs, whatever the field: judged as images."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from moderation.content import ImagePart, TextPart
from moderation.moderator import Moderator
from service.gate.checks import part_of_answer
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    scripted_moderator,
    serving,
    stream_events,
)
from tests.service.test_moderations import WidthReader, png
from tests.service.upstream_server import DONE, Told, chunk, completion, upstream_server

GOOD = png(40, 80)
BAD = png(80, 40)


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, Told]]:
    told = Told()
    text = scripted_moderator(ScriptedEngine(bad_is_bad)).text
    with (
        upstream_server(told) as server,
        serving(
            Moderator(LIBRARY, text, reader=WidthReader()),
            upstreams={"test": {"base_url": server}},
            policy_set="reading",
            hold_back_chars=64,
        ) as url,
    ):
        yield url, told


@pytest.fixture
def url(upstream: tuple[str, Told]) -> str:
    return upstream[0]


@pytest.fixture
def told(upstream: tuple[str, Told]) -> Told:
    return upstream[1]


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=chat_body(**body), timeout=20)


def pictured(data_url: str) -> dict[str, Any]:
    return {"images": [{"type": "image_url", "image_url": {"url": data_url}}]}


def test_an_image_in_an_answer_passes_as_it_came(url: str, told: Told) -> None:
    told.whole = completion("Here you are.", **pictured(GOOD))
    message = ask(url).json()["choices"][0]["message"]
    assert message["images"] == pictured(GOOD)["images"]


@pytest.mark.parametrize("field", ["images", "content", "anything"])
def test_an_image_that_violates_is_blocked_wherever_it_stands(
    url: str, told: Told, field: str
) -> None:
    found = {"images": pictured(BAD), "content": {"content": BAD}, "anything": {"x": [BAD]}}[field]
    told.whole = completion(**{"text": "Here you are."} | found)
    answer = ask(url)
    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
    assert BAD not in answer.text
    assert answer.json()["wardgate"]["response"]["verdict"]["coverage"][0]["modality"] == "image"


def test_an_image_in_a_stream_leaves_once_it_has_passed(url: str, told: Told) -> None:
    told.steps = [chunk({"content": "Here."}), chunk(pictured(GOOD)), chunk({}, "stop"), DONE]
    events = stream_events(ask(url, stream=True))
    assert [event["choices"][0]["delta"] for event in events] == [
        {"content": "Here."},
        pictured(GOOD),
        {},
    ]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_image_that_violates_never_leaves_a_stream(url: str, told: Told) -> None:
    told.steps = [chunk({"content": "Here."}), chunk(pictured(BAD)), chunk({}, "stop"), DONE]
    answer = ask(url, stream=True)
    assert stream_events(answer)[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert BAD[:100] not in answer.text


@pytest.mark.parametrize("cut", [30, 101, 102, 103, 104])
def test_an_image_in_pieces_is_a_failed_check(url: str, told: Told, cut: int) -> None:
    pieces = [chunk(pictured(GOOD[:cut])), chunk(pictured(GOOD[cut:]))]
    told.steps = [pieces[0], chunk({"content": "Wait. " * 20}), pieces[1], DONE]
    answer = ask(url, stream=True)
    last = stream_events(answer)[-1]
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert last["wardgate"]["response"]["failure"] == "unreadable_image"
    assert GOOD[:30] not in answer.text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (GOOD, ImagePart),
        (f" {GOOD}\n", ImagePart),
        (GOOD.replace("data:image/png", "DATA:image/PNG"), ImagePart),
        ("data:image/png;base64,", ImagePart),
        ("data:image/png;base64,A", ImagePart),
        (f"{GOOD} and BAD words", TextPart),
        (f"A picture: {GOOD}", TextPart),
        ("data:image/svg+xml,BAD", TextPart),
        ("data:image/kill them all;base64,AAAA", TextPart),
        ("data:text/plain;base64,AAAA", TextPart),
        ("", TextPart),
    ],
)
def test_only_what_is_a_data_url_as_a_whole_is_an_image(text: str, kind: type) -> None:
    assert isinstance(part_of_answer(text), kind)
