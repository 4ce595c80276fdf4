"""The client against the service, over a socket."""

import asyncio
import base64
import inspect
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest

from moderation.errors import ModelUnavailable
from moderation.moderator import Moderator
from service.runtime import Runtime
from tests.moderation.media import plain, video
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    scripted_moderator,
    serving,
    serving_runtime,
)
from tests.service.test_moderations import WidthReader, png
from tests.waiting import wait_until
from tests.wardgate_client.clients import calling
from wardgate_client import (
    AsyncClient,
    Client,
    Image,
    Moderation,
    Overloaded,
    Part,
    RequestRefused,
    ServiceFailed,
    Text,
    TimeUp,
    Unreachable,
    WardgateError,
    errors,
)
from wardgate_client.content import as_input
from wardgate_client.moderation import read_moderations

KINDS = ("sync", "async")
WIDE = base64.b64decode(png(80, 40).partition(",")[2])
"""An image in which the reader reads BAD."""
CLIP = video([plain("white", (48, 80))] * 5 + [plain("navy", (48, 80))] * 5)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(Moderator(LIBRARY, moderator.text, reader=WidthReader())) as url:
        yield url


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with calling(request.param, url) as client:
        yield client


def test_a_text_has_one_verdict(client: Any) -> None:
    found = client.moderate("BAD")
    assert isinstance(found, Moderation)
    assert (found.action, found.flagged, found.complete) == ("block", True, True)
    assert found.policy_set.id == "closed"
    assert found.models[0].name == "scripted"
    assert found.scoring_ms >= 0
    score = found.score("harassment")
    assert (score.raw, score.threshold, score.violates, score.action) == (1.0, 0.5, True, "block")
    assert found.violated == (score,)
    (window,) = score.windows
    assert (window.part, window.surface, window.start, window.end) == (0, "prompt", 0, 3)
    assert found.coverage[0].status == "scored"
    with pytest.raises(KeyError, match="violence"):
        found.score("violence")


def test_a_list_of_texts_has_a_verdict_each(client: Any) -> None:
    found = client.moderate(["good", "BAD"])
    assert [moderation.flagged for moderation in found] == [False, True]
    assert [moderation.flagged for moderation in client.moderate(("BAD",))] == [True]


def test_parts_have_one_verdict_together(client: Any) -> None:
    found = client.moderate([Text("good"), Image(WIDE)])
    assert found.action == "block"
    assert [part.modality for part in found.coverage] == ["text", "image"]


def test_frames_of_a_video_are_read(client: Any) -> None:
    found = client.moderate([Image(CLIP)])
    assert found.coverage[0].frames.scored == 2
    frame = found.score("harassment").windows[1].frame
    assert (frame.index > 0, frame.at_s > 0) == (True, True)


def test_policies_surface_and_context_are_sent(client: Any) -> None:
    found = client.moderate("BAD", policies=["violence"], surface="response", context="Why?")
    assert [score.policy for score in found.scores] == ["harassment", "violence"]
    assert found.scores[0].windows[0].surface == "response"


def test_a_policy_in_shadow_is_scored_and_not_violated() -> None:
    with serving(policy_set="shadowing") as url, Client(url) as client:
        found = client.moderate("BAD")
    assert (found.flagged, found.violated, found.scores[0].violates) == (False, (), True)


def test_nothing_of_a_verdict_is_lost(url: str) -> None:
    parts: list[Part] = [Text("k1ll BAD"), Image(CLIP)]
    answer = httpx.post(f"{url}/v1/moderations", json={"input": as_input(parts)}).json()
    (read,) = read_moderations(answer)
    sent = answer["results"][0]["wardgate"]
    assert sent.pop("not_covered")  # of OpenAI's categories
    assert sent.pop("timings") == {"scoring_ms": read.scoring_ms}
    for model in sent["models"]:
        assert model.pop("calibrated") is (model["calibration"] is not None)
    assert holds(json.loads(json.dumps(asdict(read))), sent)
    assert sent["coverage"][1]["frames"]
    assert any("frame" in window for window in sent["scores"][0]["windows"])


def holds(read: Any, sent: Any) -> bool:
    """Whether everything that was sent has been read."""
    if isinstance(sent, dict):
        return all(key in read and holds(read[key], value) for key, value in sent.items())
    if isinstance(sent, list):
        return len(read) == len(sent) and all(map(holds, read, sent))
    return bool(read == sent)


def test_what_the_service_refuses_is_told_in_its_own_words(client: Any) -> None:
    with pytest.raises(RequestRefused, match=r"^input\[1\] is an empty text") as caught:
        client.moderate(["good", " "])
    refused = caught.value
    assert (refused.status, refused.code, refused.param) == (400, "content_empty", "input[1]")
    assert refused.retry_after_s is None
    assert refused.request_id is not None
    assert refused.request_id.startswith("req-")


def test_something_that_is_no_content_is_not_sent(client: Any) -> None:
    for content in (["text", Image(b"")], [1], [{"type": "text", "text": "x"}]):
        with pytest.raises(TypeError, match="Text and Image parts; found a"):
            client.moderate(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_that_fails_gives_no_verdict(kind: str) -> None:
    def failing(_: str) -> float:
        raise RuntimeError

    with (
        serving(scripted_moderator(ScriptedEngine(failing))) as url,
        calling(kind, url) as client,
        pytest.raises(ServiceFailed, match="failed on this item") as caught,
    ):
        client.moderate("good")
    assert (caught.value.status, caught.value.code) == (500, "engine_error")


def slow(go: threading.Event, begun: threading.Event) -> Moderator:
    def score(text: str) -> float:
        begun.set()
        go.wait(10)
        return bad_is_bad(text)

    return scripted_moderator(ScriptedEngine(score))


@pytest.mark.parametrize("kind", KINDS)
def test_an_overload_that_lasts_is_told_with_its_time(kind: str) -> None:
    go, begun = threading.Event(), threading.Event()
    with (
        serving_runtime(slow(go, begun), queue_capacity=1) as (url, _),
        Client(url) as first,
        calling(kind, url, retries=0) as client,
    ):
        thread = threading.Thread(target=first.moderate, args=("first",))
        thread.start()
        wait_until(begun.is_set)
        with pytest.raises(Overloaded) as caught:
            client.moderate("one too many")
        go.set()
        thread.join()
    assert (caught.value.status, caught.value.code) == (429, "overloaded")
    assert caught.value.retry_after_s is not None


@pytest.mark.parametrize("kind", KINDS)
def test_an_overload_that_passes_is_waited_for(kind: str) -> None:
    go, begun = threading.Event(), threading.Event()
    with (
        serving_runtime(slow(go, begun), queue_capacity=1) as (url, runtime),
        Client(url) as first,
        calling(kind, url, timeout=20, retries=5) as client,
    ):
        thread = threading.Thread(target=first.moderate, args=("first",))
        thread.start()
        wait_until(begun.is_set)
        letting_go = threading.Thread(target=when_refused, args=(runtime, go))
        letting_go.start()
        assert client.moderate("BAD").flagged
        thread.join()
        letting_go.join()


def when_refused(runtime: Runtime, go: threading.Event) -> None:
    counted = ("wardgate_overloads_total", {"queue": "classifier"})
    wait_until(lambda: (runtime.metrics.registry.get_sample_value(*counted) or 0) > 0)
    go.set()


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_waits_past_the_timeout(kind: str) -> None:
    go, begun = threading.Event(), threading.Event()
    with serving(slow(go, begun)) as url, calling(kind, url, timeout=0.3) as client:
        with pytest.raises(TimeUp, match="within the timeout"):
            client.moderate("good")
        go.set()


def test_a_service_that_is_ready_says_so(client: Any) -> None:
    client.check()
    assert client.ready()


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_without_models_is_not_ready(kind: str) -> None:
    def fail() -> Moderator:
        raise ModelUnavailable("no such model")

    with serving(fail) as url, calling(kind, url, retries=0) as client:
        assert not client.ready()
        with pytest.raises(ServiceFailed, match="cannot judge: failed"):
            client.check()
        with pytest.raises(ServiceFailed, match="could not be loaded") as caught:
            client.moderate("good")
    assert (caught.value.code, caught.value.retry_after_s) == ("not_ready", 2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_listens_nothing_is_ready(kind: str) -> None:
    with calling(kind, "http://127.0.0.1:9", retries=0) as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match="does it run there"):
            client.moderate("good")


def test_the_clients_have_the_same_calls() -> None:
    def signatures(kind: type) -> dict[str, Any]:
        names = {"moderate", "check", "ready", "__init__"}
        return {name: inspect.signature(getattr(kind, name)).parameters for name in names}

    assert signatures(Client) == signatures(AsyncClient)


def test_a_call_that_is_cancelled_takes_its_request_back() -> None:
    go, begun = threading.Event(), threading.Event()

    async def leave(url: str) -> None:
        async with AsyncClient(url) as client:
            call = asyncio.ensure_future(client.moderate("good"))
            await asyncio.to_thread(begun.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with serving(slow(go, begun)) as url:
        asyncio.run(leave(url))
        go.set()


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"retries": -1}])
def test_settings_without_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a timeout over 0"):
        Client("http://127.0.0.1:9", **settings)


def test_every_error_is_drawn_in_the_tree() -> None:
    def tree(root: type[Exception]) -> Iterator[str]:
        yield root.__name__
        for kind in root.__subclasses__():
            yield from tree(kind)

    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in tree(WardgateError))
