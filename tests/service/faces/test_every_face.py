"""What holds for every face: a failure is never a verdict, and is told in the face's own shape."""

import threading
from collections.abc import Iterator
from typing import get_args

import httpx
import pytest

from moderation.errors import ModelUnavailable
from moderation.moderator import Moderator
from service.faces import FACES
from service.settings import FaceName, load_settings
from tests.service.faces.calls import CALLS, Call, each_call
from tests.service.scripted import (
    ScriptedEngine,
    bad_is_bad,
    scripted_moderator,
    serving,
    serving_runtime,
)
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(max_body_bytes=2 * 2**20) as url:
        yield url


@pytest.fixture(scope="module", params=["closed", "opened"])
def failing_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A service whose classifier fails; the policy set says what that means at the gate."""

    def failing(_: str) -> float:
        raise RuntimeError("words of the content")

    moderator = scripted_moderator(ScriptedEngine(failing))
    with serving(moderator, policy_set=request.param) as url:
        yield url


@pytest.fixture(scope="module")
def unloaded_url() -> Iterator[str]:
    """A service whose models could not be loaded."""

    def fail() -> Moderator:
        raise ModelUnavailable("no such model")

    with serving(fail) as url:
        yield url


def test_every_face_has_a_name_and_every_post_route_a_call() -> None:
    assert list(FACES) == list(get_args(FaceName))
    posted = {path for face in FACES.values() for path in face.paths if "shields" not in path}
    assert posted == {call.path for call in CALLS}


@each_call
def test_a_text_is_judged(url: str, call: Call) -> None:
    good, bad = (call.post(url, text) for text in ("good", "BAD"))
    assert (good.status_code, bad.status_code) == (200, 200)
    assert good.json() != bad.json()


@each_call
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_request_is_400(url: str, call: Call, body: bytes) -> None:
    call.error(httpx.post(url + call.path, content=body), 400)


@each_call
def test_an_unknown_field_is_named(url: str, call: Call) -> None:
    told = call.error(call.post(url, "good", surprise=1), 400)
    assert "'surprise'" in told.message


@each_call
@pytest.mark.parametrize("text", ["a b " * 10_000, "a" * 1_048_577], ids=["tokens", "characters"])
def test_a_text_that_is_too_long_is_400_and_not_cut(url: str, call: Call, text: str) -> None:
    assert call.error(call.post(url, text), 400).code in (None, "content_too_long")


@each_call
def test_a_classifier_that_fails_gives_an_error_whatever_on_error_says(
    failing_url: str, call: Call
) -> None:
    told = call.error(call.post(failing_url, "good"), 500)
    assert told.code in (None, "engine_error")
    assert "words of the content" not in told.message


@each_call
def test_a_verdict_that_does_not_come_in_time_is_504(call: Call) -> None:
    go = threading.Event()

    def slow(text: str) -> float:
        go.wait(10)
        return 0.0

    with serving(scripted_moderator(ScriptedEngine(slow)), deadline_s=0.3) as url:
        told = call.error(call.post(url, "good"), 504)
        go.set()
    assert told.code in (None, "timeout")


@each_call
def test_past_capacity_is_429_and_says_when_to_come_back(call: Call) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow(text: str) -> float:
        begun.set()
        go.wait(10)
        return bad_is_bad(text)

    moderator = scripted_moderator(ScriptedEngine(slow))
    with serving_runtime(moderator, queue_capacity=1) as (url, _):
        first: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: first.append(call.post(url, "first")))
        thread.start()
        wait_until(begun.is_set)
        refused = call.post(url, "one too many")
        go.set()
        thread.join()
    told = call.error(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert told.code in (None, "overloaded")
    assert first[0].status_code == 200


@each_call
def test_a_body_that_is_too_large_is_413(url: str, call: Call) -> None:
    told = call.error(httpx.post(url + call.path, content=b"0" * 3 * 2**20, timeout=20), 413)
    assert "3145728 bytes" in told.message


@each_call
def test_models_that_could_not_be_loaded_are_503(unloaded_url: str, call: Call) -> None:
    assert call.error(call.post(unloaded_url, "good"), 503).code in (None, "not_ready")


@each_call
def test_its_metrics_have_its_name(url: str, call: Call) -> None:
    call.post(url, "good")
    assert f'wardgate_requests_total{{route="{call.path}",status="200"}}' in (
        httpx.get(f"{url}/metrics").text
    )


def test_only_the_faces_of_the_setting_are_served() -> None:
    with serving(faces=("nemo",)) as url:
        served = {call.path for call in CALLS if call.post(url, "good").status_code != 404}
    assert served == {"/v1/checks"}


@pytest.mark.parametrize(
    ("value", "names"), [("nemo, azure", ("nemo", "azure")), ("", ()), (None, None)]
)
def test_the_setting_is_names_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str | None, names: tuple[str, ...] | None
) -> None:
    if value is not None:
        monkeypatch.setenv("WARDGATE_FACES", value)
    assert load_settings().faces == names
