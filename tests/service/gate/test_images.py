"""`/v1/images/generations` through the gate: images are judged before they leave."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from starlette.responses import JSONResponse

from moderation.moderator import Moderator
from tests.service.scripted import (
    LIBRARY,
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    error_of,
    scripted_moderator,
    serving,
)
from tests.service.test_moderations import WidthReader, png
from tests.service.upstream_server import Json, Told, upstream_server

GOOD = png(40, 80).partition(",")[2]
BAD = png(80, 40).partition(",")[2]


def images(*entries: Json, **more: Any) -> Json:
    return {"created": 1, "data": list(entries), "size": "1024x1024", **more}


@contextmanager
def gate(told: Told, **changes: Any) -> Iterator[str]:
    """The URL of a gate that reads images, before the scripted upstream."""
    text = scripted_moderator(ScriptedEngine(bad_is_bad)).text
    with (
        upstream_server(told) as upstream,
        serving(
            Moderator(LIBRARY, text, reader=WidthReader()),
            upstreams={"test": {"base_url": upstream}},
            **{"policy_set": "reading", **changes},
        ) as url,
    ):
        yield url


@pytest.fixture
def told() -> Told:
    return Told(whole=images({"b64_json": GOOD}))


@pytest.fixture
def url(told: Told) -> Iterator[str]:
    with gate(told) as url:
        yield url


def ask(url: str, **body: Any) -> httpx.Response:
    wanted = {"model": "any", "prompt": "A boat.", **body}
    return httpx.post(f"{url}/v1/images/generations", json=wanted, timeout=20)


def test_an_image_that_passes_comes_back_as_it_was_made(url: str, told: Told) -> None:
    body = {"moderation": "low", "n": 1, "size": "1024x1024", "quality": "high"}
    answer = ask(url, **body).json()
    report = answer.pop("wardgate")
    assert answer == told.whole
    assert report["prompt"]["passed"]
    assert report["response"]["verdict"]["coverage"][0]["modality"] == "image"
    assert told.asked == [{"model": "any", "prompt": "A boat.", **body}]


def test_an_image_that_violates_is_removed_and_the_others_stay(url: str, told: Told) -> None:
    told.whole = images({"b64_json": GOOD}, {"b64_json": BAD, "revised_prompt": "A ship."})
    answer = ask(url, n=2).json()
    first, second = answer["data"]
    assert first == {"b64_json": GOOD}
    assert (second["b64_json"], second["finish_reason"]) == (None, "content_filter")
    assert second.keys() == {"b64_json", "finish_reason", "wardgate"}
    assert BAD not in str(answer)
    assert answer["wardgate"]["response"]["passed"] is False


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(images({"b64_json": GOOD, "revised_prompt": "BAD"}), id="revised prompt"),
        pytest.param(images({"b64_json": GOOD, "note": ["BAD"]}), id="unknown field"),
        pytest.param(images({"b64_json": GOOD}, note="BAD"), id="beside the images"),
    ],
)
def test_every_text_of_an_answer_is_content(url: str, told: Told, answer: Json) -> None:
    told.whole = answer
    got = ask(url)
    assert '"BAD"' not in got.text
    assert GOOD not in got.text
    assert got.json()["data"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("body", "param"), [({"prompt": "BAD"}, "prompt"), ({"note": "BAD"}, "other fields")]
)
def test_the_server_does_not_see_a_prompt_that_is_blocked(
    url: str, told: Told, body: Json, param: str
) -> None:
    error = error_of(ask(url, **body), 400)
    assert (error["code"], error["param"]) == ("content_filter", param)
    assert error["wardgate"]["passed"] is False
    assert told.asked == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ["A boat."]}, "prompt"),
        ({"stream": True}, "stream"),
        ({"response_format": "url"}, "response_format"),
    ],
)
def test_what_cannot_be_checked_is_refused(url: str, told: Told, body: Json, param: str) -> None:
    assert error_of(ask(url, **body), 400)["param"] == param
    assert told.asked == []


def test_images_by_url_are_refused(url: str, told: Told) -> None:
    told.whole = images({"url": "https://images.example/1.png"})
    answer = ask(url)
    assert error_of(answer, 400)["param"] == "response_format"
    assert "images.example" not in answer.text


@pytest.mark.parametrize(
    ("whole", "status", "code"),
    [
        pytest.param(images({"b64_json": "?"}), 502, "upstream_broke", id="no base64"),
        pytest.param({"data": "BAD"}, 502, "upstream_broke", id="no list"),
        pytest.param({"data": ["BAD"]}, 502, "upstream_broke", id="no objects"),
        pytest.param(
            JSONResponse({"error": {"message": "BAD size"}}, 400), 400, "upstream_refused", id="4xx"
        ),
    ],
)
def test_what_a_server_does_wrong_is_told(
    url: str, told: Told, whole: Any, status: int, code: str
) -> None:
    told.whole = whole
    answer = ask(url)
    assert error_of(answer, status)["code"] == code
    assert "BAD" not in answer.text


def test_what_is_no_image_does_not_pass(told: Told) -> None:
    told.whole = images({"b64_json": "aGVsbG8="})
    with gate(told) as url:
        entry = ask(url).json()["data"][0]
    assert entry["finish_reason"] == "content_filter"
    assert entry["wardgate"]["failure"] == "unreadable_image"


def test_an_image_that_nobody_can_look_at_does_not_pass_by_default(told: Told) -> None:
    with gate(told, policy_set="closed") as url:
        assert ask(url).json()["data"][0]["finish_reason"] == "content_filter"


def test_the_generator_of_this_process_refuses_by_name() -> None:
    with serving(generator=RecitingGenerator()) as url:
        assert "/v1/images/generations" in error_of(ask(url), 400)["message"]


def test_the_official_client_reads_images_and_refusals(url: str, told: Told) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        made = client.images.generate(model="any", prompt="A boat.")
        assert made.data is not None
        assert made.data[0].b64_json == GOOD
        told.whole = images({"b64_json": BAD})
        made = client.images.generate(model="any", prompt="A boat.")
        assert made.data is not None
        assert made.data[0].b64_json is None
        with pytest.raises(BadRequestError, match="blocked by the content policy"):
            client.images.generate(model="any", prompt="BAD")
