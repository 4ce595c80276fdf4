"""Files that a request or an answer names by a URL: fetched once, and what was judged is what goes
on, whatever stands at the URL afterwards."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from moderation.moderator import Moderator
from service.remote_files import MAX_FILES
from service.runtime import Runtime
from tests.moderation.media import video
from tests.service.file_server import Files, file_server
from tests.service.gate.test_images import images
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving_runtime,
)
from tests.service.test_moderations import LIGHT, WidthReader, png
from tests.service.upstream_server import Json, Told, completion, upstream_server
from tests.waiting import wait_until

GOOD = png(40, 80)
BAD = png(80, 40)


def bytes_of(data_url: str) -> bytes:
    return base64.b64decode(data_url.partition(",")[2])


@pytest.fixture(scope="module")
def server() -> Iterator[Files]:
    with file_server() as files:
        yield files


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, Told]]:
    told = Told()
    with upstream_server(told) as url:
        yield url, told


def reading() -> Moderator:
    text = scripted_moderator(ScriptedEngine(bad_is_bad)).text
    return Moderator(LIBRARY, text, reader=WidthReader())


@pytest.fixture(scope="module")
def service(server: Files, upstream: tuple[str, Told]) -> Iterator[tuple[str, Runtime]]:
    """A service that fetches from the server of files."""
    with serving_runtime(
        reading(),
        upstreams={"test": {"base_url": upstream[0]}},
        policy_set="reading",
        download_hosts=f"127.0.0.1:{server.port}",
        download_networks="127.0.0.0/8",
        download_deadline_s=5,
    ) as (url, runtime):
        yield url, runtime


@pytest.fixture
def url(service: tuple[str, Runtime]) -> str:
    return service[0]


@pytest.fixture
def told(upstream: tuple[str, Told]) -> Told:
    told = upstream[1]
    told.asked.clear()
    told.whole = completion("A boat.")
    return told


@pytest.fixture
def files(server: Files) -> Files:
    server.asked.clear()
    server.data = {"/good": [bytes_of(GOOD)], "/bad": [bytes_of(BAD)], "/page": [b"<html>"]}
    return server


def at(files: Files, path: str) -> str:
    return f"http://127.0.0.1:{files.port}/{path}"


def chat(*urls: str) -> Json:
    parts = [{"type": "image_url", "image_url": {"url": each, "detail": "low"}} for each in urls]
    return chat_body([{"type": "text", "text": "What is this?"}, *parts])  # type: ignore[arg-type]


def post(url: str, endpoint: str, body: Json) -> httpx.Response:
    return httpx.post(f"{url}/v1/{endpoint}", json=body, timeout=20)


def test_what_was_judged_reaches_the_upstream_and_not_what_the_url_shows_next(
    url: str, told: Told, files: Files
) -> None:
    files.data["/turning"] = [bytes_of(GOOD), bytes_of(BAD)]
    answer = post(url, "chat/completions", chat(at(files, "turning"))).json()
    assert answer["choices"][0]["message"]["content"] == "A boat."
    assert files.paths == ["/turning"]
    assert told.asked == [chat(GOOD)]


def test_a_fetched_image_that_violates_is_blocked(url: str, told: Told, files: Files) -> None:
    answer = post(url, "chat/completions", chat(at(files, "good"), at(files, "bad"))).json()
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    assert told.asked == []


def test_a_video_is_fetched_as_a_video(url: str, told: Told, files: Files) -> None:
    files.data["/clip"] = [data := video([LIGHT] * 3)]
    part = {"type": "video_url", "video_url": {"url": at(files, "clip")}}
    post(url, "chat/completions", chat_body([part]))  # type: ignore[arg-type]
    (body,) = told.asked
    sent = body["messages"][0]["content"][0]["video_url"]["url"]
    assert sent == f"data:video/mp4;base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "made",
    [
        lambda u: {"input": [{"role": "user", "content": [{"type": "input_image"} | u]}]},
        lambda u: {
            "input": [
                {"role": "user", "content": "Click."},
                {
                    "type": "computer_call_output",
                    "call_id": "a",
                    "output": {"type": "computer_screenshot"} | u,
                },
            ]
        },
        lambda u: {
            "input": "Hi",
            "prompt": {"id": "a", "variables": {"picture": {"type": "input_image"} | u}},
        },
    ],
)
def test_images_of_the_responses_api_are_fetched(
    told: Told, upstream: tuple[str, Told], files: Files, made: Any
) -> None:
    told.whole = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
    with serving_runtime(
        reading(),
        upstreams={"test": {"base_url": upstream[0]}},
        policy_set="reading",
        download_hosts=f"127.0.0.1:{files.port}",
        download_networks="127.0.0.0/8",
        unseen_history="pass",
    ) as (url, _):
        for path, data_url, status in (("good", GOOD, "completed"), ("bad", BAD, "blocked")):
            told.asked.clear()
            answer = post(url, "responses", made({"image_url": at(files, path)})).json()
            blocked = answer["wardgate"]["prompt"]["passed"] is False
            assert blocked is (status == "blocked")
            assert told.asked == ([] if blocked else [made({"image_url": data_url})])


@pytest.mark.parametrize("face", ["chat/completions", "moderations"])
@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("page", "download_failed", "no image or video"),
        ("status?500", "download_failed", "status 500"),
        ("to?http://10.0.0.1/", "download_refused", "has a host that"),
        ("endless", "download_failed", "more than 786432 bytes together"),
    ],
)
def test_what_cannot_be_had_names_its_place(
    url: str, told: Told, files: Files, face: str, path: str, code: str, reason: str
) -> None:
    body = chat(at(files, path))
    place = "messages[0].content[1].image_url.url"
    if face == "moderations":
        part = {"type": "image_url", "image_url": {"url": at(files, path)}}
        body, place = {"input": [part]}, "input[0].image_url.url"
    error = error_of(post(url, face, body), 400)
    assert (error["param"], error["code"]) == (place, code)
    assert error["message"].startswith(f"{place}: ")
    assert reason in error["message"]
    assert told.asked == []


def test_files_share_the_room_of_one_body(url: str, told: Told, files: Files) -> None:
    files.data["/half"] = [bytes_of(GOOD) + bytes(300_000)]
    half = at(files, "half")
    assert (
        "together"
        in error_of(post(url, "chat/completions", chat(half, half, half)), 400)["message"]
    )


def test_only_so_many_files_are_fetched(url: str, told: Told, files: Files) -> None:
    error = error_of(
        post(url, "chat/completions", chat(*[at(files, "good")] * (MAX_FILES + 1))), 400
    )
    assert f"at most {MAX_FILES}" in error["message"]
    assert files.paths == []


def test_fetched_files_are_held_to_the_bound_on_all_bodies(
    service: tuple[str, Runtime], told: Told, files: Files
) -> None:
    url, runtime = service
    files.data["/half"] = [bytes_of(GOOD) + bytes(300_000)]
    others = runtime.settings.max_bodies_bytes - 200_000
    runtime.bodies.num_bytes += others
    try:
        error_of(post(url, "chat/completions", chat(at(files, "half"))), 429)
        wait_until(lambda: runtime.bodies.num_bytes == others)  # the room is free again
    finally:
        runtime.bodies.num_bytes -= others


def test_a_moderation_judges_what_stands_at_a_url(url: str, files: Files) -> None:
    for path, flagged in (("good", False), ("bad", True)):
        part = {"type": "image_url", "image_url": {"url": at(files, path)}}
        answer = post(url, "moderations", {"input": [part]}).json()
        assert (answer["results"][0]["wardgate"]["action"] == "block") is flagged


def face_calls(image: str) -> list[tuple[str, Json, str]]:
    """The routes of the faces that take images by URL, with one, and what they call its place."""
    openai = {"type": "image_url", "image_url": {"url": image}}
    llama = {"type": "image", "image": {"url": {"uri": image}}}
    texts = {"input_type": "request", "texts": ["Look."]}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Look."}, openai]}]
    place = "content[1].image_url"
    return [
        ("beta/litellm_basic_guardrail_api", texts | {"images": [image]}, "images[0]"),
        (
            "beta/litellm_basic_guardrail_api",
            texts | {"structured_messages": messages},
            f"structured_messages[0].{place}",
        ),
        ("v1/checks", {"messages": messages}, f"messages[0].{place}"),
        (
            "v1/safety/run-shield",
            {"shield_id": "reading", "messages": [{"role": "user", "content": llama}]},
            "messages[0].content.image",
        ),
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_faces_judge_what_stands_at_a_url(url: str, files: Files, number: int) -> None:
    for path, is_held in (("good", False), ("bad", True)):
        route, body, _ = face_calls(at(files, path))[number]
        answer = httpx.post(f"{url}/{route}", json=body, timeout=20).json()
        told = answer.get("action"), answer.get("status"), answer.get("violation")
        assert told[0] in (None, "BLOCKED" if is_held else "NONE")
        assert told[1] in (None, "blocked" if is_held else "passed")
        assert bool(told[2]) is (is_held and told[:2] == (None, None))
    assert files.paths == ["/good", "/bad"]
    route, body, place = face_calls(at(files, "page"))[number]
    error = error_of(httpx.post(f"{url}/{route}", json=body, timeout=20), 400)
    assert (error["param"], error["code"]) == (place, "download_failed")
    route, body, place = face_calls("http://elsewhere.example/a.png")[number]
    error = error_of(httpx.post(f"{url}/{route}", json=body, timeout=20), 400)
    assert (error["param"], error["code"]) == (place, "download_refused")


def test_a_file_that_is_named_twice_is_fetched_once(url: str, files: Files) -> None:
    """As LiteLLM does, which sends an image in its message and beside it."""
    files.data["/turning"] = [bytes_of(GOOD), bytes_of(BAD)]
    route, body, _ = face_calls(at(files, "turning"))[1]
    answer = httpx.post(f"{url}/{route}", json=body | {"images": [at(files, "turning")]})
    assert answer.json() == {"action": "NONE"}
    assert files.paths == ["/turning"]


def test_a_url_in_another_place_is_text_and_not_fetched(url: str, told: Told, files: Files) -> None:
    post(url, "chat/completions", {**chat_body(at(files, "good")), "documents": [at(files, "bad")]})
    assert (files.paths, len(told.asked)) == ([], 1)


def generate(url: str, **body: Any) -> httpx.Response:
    return post(url, "images/generations", {"model": "any", "prompt": "A boat.", **body})


def test_a_generated_image_at_a_url_leaves_as_what_was_judged(
    url: str, told: Told, files: Files
) -> None:
    files.data["/turning"] = [bytes_of(GOOD), bytes_of(BAD)]
    told.whole = images(
        {"url": at(files, "turning"), "revised_prompt": "A ship."}, {"url": at(files, "bad")}
    )
    first, second = generate(url, response_format="url").json()["data"]
    assert first == {"b64_json": GOOD.partition(",")[2], "revised_prompt": "A ship."}
    assert (second["b64_json"], second["finish_reason"]) == (None, "content_filter")
    assert told.asked[0]["response_format"] == "url"
    assert sorted(files.paths) == ["/bad", "/turning"]


def test_a_generated_image_that_cannot_be_fetched_is_a_failed_check(
    url: str, told: Told, files: Files
) -> None:
    told.whole = images({"url": at(files, "status?404")}, {"url": at(files, "good")})
    answer = generate(url)
    first, second = answer.json()["data"]
    assert first["wardgate"]["failure"] == "unreadable_image"
    assert first["finish_reason"] == "content_filter"
    assert second["b64_json"]
    assert "404" not in answer.text


@pytest.mark.parametrize(("data_url", "passes"), [(GOOD, True), (BAD, False)])
def test_a_generated_image_as_a_data_url_is_judged(
    url: str, told: Told, data_url: str, passes: bool
) -> None:
    told.whole = images({"url": data_url})
    (entry,) = generate(url).json()["data"]
    assert (entry == {"url": data_url}) is passes
    assert ("finish_reason" in entry) is not passes
