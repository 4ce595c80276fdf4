"""The end of the process: everyone who waits is answered in the shape that they know."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn

from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    chat_body,
    error_of,
    scripted_moderator,
    serving_server,
    stream_events,
)
from tests.waiting import wait_until


@dataclass
class Held:
    """Holds the classifier for texts with WAIT in them, and the generator, until the block ends."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def score(self, text: str) -> float:
        if "WAIT" in text:
            self.begun.set()
            self.go.wait(20)
        return 0.0

    def speak(self, index: int) -> None:
        if index:
            self.begun.set()
            self.go.wait(20)


@contextmanager
def held_service(policy_set: str = "closed") -> Iterator[tuple[str, uvicorn.Server, Held]]:
    held = Held()
    generator = RecitingGenerator(["A first sentence of it. ", "More."], before_piece=held.speak)
    moderator = scripted_moderator(ScriptedEngine(held.score))
    with serving_server(moderator, generator, policy_set=policy_set, stop_grace_s=0.2) as (
        url,
        _,
        server,
    ):
        try:
            yield url, server, held
        finally:
            held.go.set()


def asked_until_the_stop(url: str, server: uvicorn.Server, held: Held, path: str, body: Any) -> Any:
    """The answer to a request that is being worked on when the server is told to stop."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/v1/{path}", json=body, timeout=20))

    asking = threading.Thread(target=ask)
    asking.start()
    assert held.begun.wait(10)
    server.should_exit = True
    asking.join(15)
    assert not held.go.is_set(), "the model was still at work"
    return answers[0]


def test_who_waits_for_a_verdict_gets_engine_stopped() -> None:
    with held_service() as served:
        answer = asked_until_the_stop(*served, "moderations", {"input": "WAIT"})
    assert error_of(answer, 503)["code"] == "engine_stopped"


@pytest.mark.parametrize("policy_set", ["closed", "opened"])
def test_a_chat_whose_prompt_is_being_checked_gets_engine_stopped_whatever_on_error_says(
    policy_set: str,
) -> None:
    with held_service(policy_set) as served:
        answer = asked_until_the_stop(*served, "chat/completions", chat_body("WAIT"))
    assert error_of(answer, 503)["code"] == "engine_stopped"


def test_a_chat_that_is_being_generated_gets_engine_stopped() -> None:
    with held_service() as served:
        answer = asked_until_the_stop(*served, "chat/completions", chat_body("Hi"))
    assert error_of(answer, 503)["code"] == "engine_stopped"


def test_a_stream_ends_with_an_error_event_and_done() -> None:
    with held_service() as served:
        body = chat_body("Hi", stream=True)
        answer = asked_until_the_stop(*served, "chat/completions", body)
    events = stream_events(answer)
    assert events[-1]["error"]["code"] == "engine_stopped"


def test_what_ends_within_the_grace_is_answered() -> None:
    held = Held()
    moderator = scripted_moderator(ScriptedEngine(held.score))
    answers: list[httpx.Response] = []
    with serving_server(moderator, stop_grace_s=10.0) as (url, runtime, server):
        body = {"input": "WAIT"}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/moderations", json=body))
        )
        asking.start()
        assert held.begun.wait(10)
        server.should_exit = True
        wait_until(lambda: runtime.state == "stopped")
        held.go.set()
        asking.join(10)
    assert answers[0].status_code == 200


def test_a_second_close_waits_for_what_is_left_of_the_grace_only() -> None:
    held = Held()
    moderator = scripted_moderator(ScriptedEngine(held.score))
    waits: list[float] = []
    with serving_server(moderator, stop_grace_s=0.2) as (url, runtime, _):
        asking = threading.Thread(
            target=lambda: httpx.post(f"{url}/v1/moderations", json={"input": "WAIT"}, timeout=20)
        )
        asking.start()
        assert held.begun.wait(10)
        runtime.close()
        waits.append(runtime.grace_left_s)
        runtime.close()
        waits.append(runtime.grace_left_s)
        held.go.set()
        asking.join(10)
    assert waits == [0.0, 0.0]


def test_a_body_that_is_still_coming_gets_engine_stopped() -> None:
    from tests.service.test_body_limit import answer, begun_upload

    with held_service() as (url, server, _), begun_upload(url, sent=10, stated=1000) as line:
        assert httpx.get(f"{url}/healthz").status_code == 200  # the upload was accepted before
        server.should_exit = True
        status, response = answer(line)
    assert error_of(response, status)["code"] == "engine_stopped"
    assert status == 503
