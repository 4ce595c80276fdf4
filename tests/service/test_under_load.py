import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from moderation.errors import ModelUnavailable
from moderation.moderator import Moderator
from service.runtime import Runtime
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    serving_runtime,
)
from tests.waiting import wait_until


class Dying(BaseException):
    """Not an Exception: ends the thread that it is raised on."""


def post(url: str, value: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/moderations", json={"input": value}, timeout=20)


class Slow:
    """A score function that waits to be let go for texts with WAIT in them."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []

    def __call__(self, text: str) -> float:
        self.begun.append(text)
        if "WAIT" in text:
            self.go.wait(10)
        return bad_is_bad(text)


@contextmanager
def slow_service(**changes: Any) -> Iterator[tuple[str, Runtime, Slow]]:
    slow = Slow()
    with serving_runtime(scripted_moderator(ScriptedEngine(slow)), **changes) as (url, runtime):
        try:
            yield url, runtime, slow
        finally:
            slow.go.set()


@contextmanager
def busy(url: str, runtime: Runtime, slow: Slow, waiting: int) -> Iterator[list[httpx.Response]]:
    """One request that is being scored and `waiting` ones in the queue, for the block's length.

    The answers of all of them are there after the block, which lets them go at its end.
    """
    with in_background(lambda: post(url, "WAIT first")) as first:
        wait_until(lambda: slow.begun != [])
        with in_background(*[lambda n=n: post(url, f"WAIT {n}") for n in range(waiting)]) as rest:
            wait_until(depth_is(runtime, 1 + waiting))
            yield rest
            slow.go.set()
    rest.extend(first)


@contextmanager
def in_background(*calls: Callable[[], httpx.Response]) -> Iterator[list[httpx.Response]]:
    """Runs the calls at once; their answers are there after the block."""
    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
        yield answers
        answers.extend(call.result(20) for call in running)


def depth_is(runtime: Runtime, depth: int) -> Callable[[], bool]:
    return lambda: (
        runtime.metrics.registry.get_sample_value("wardgate_queue_depth", {"queue": "classifier"})
        == depth
    )


def test_past_capacity_requests_get_429_at_once_and_the_others_their_answer() -> None:
    with (
        slow_service(queue_capacity=3) as (url, runtime, slow),
        busy(url, runtime, slow, waiting=2) as answers,
    ):
        started = time.monotonic()
        refused = post(url, "one too many")
        assert time.monotonic() - started < 5
    assert error_of(refused, 429)["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_overload_is_429_at_the_gate_even_where_failures_let_through() -> None:
    slow = Slow()
    generator = RecitingGenerator()
    moderator = scripted_moderator(ScriptedEngine(slow))
    with (
        serving_runtime(moderator, generator, queue_capacity=2, policy_set="opened") as served,
        busy(*served, slow, waiting=1),
    ):
        refused = httpx.post(f"{served[0]}/v1/chat/completions", json=chat_body("x"), timeout=20)
    error_of(refused, 429)
    assert generator.said == []


def test_the_event_loop_answers_while_the_classifier_works() -> None:
    with slow_service() as (url, runtime, slow), busy(url, runtime, slow, waiting=1):
        for path in ("/readyz", "/metrics", "/healthz"):
            assert httpx.get(url + path, timeout=5).status_code == 200


def test_past_its_deadline_a_request_gets_504() -> None:
    with slow_service(deadline_s=0.3) as (url, _, _slow):
        started = time.monotonic()
        assert error_of(post(url, "WAIT"), 504)["code"] == "timeout"
        assert time.monotonic() - started < 8, "the scoring itself takes 10 s"


def test_a_list_is_bound_by_one_deadline() -> None:
    def slowly(_: str) -> float:
        time.sleep(0.1)
        return 0.0

    with serving(scripted_moderator(ScriptedEngine(slowly)), deadline_s=0.5) as url:
        error_of(post(url, ["a"] * 50), 504)


def test_a_caller_who_leaves_is_not_scored() -> None:
    with slow_service() as (url, runtime, slow):
        with in_background(lambda: post(url, "WAIT")):
            wait_until(depth_is(runtime, 1))
            with pytest.raises(httpx.ReadTimeout, match="timed out"):
                httpx.post(f"{url}/v1/moderations", json={"input": "left"}, timeout=0.3)
            wait_until(depth_is(runtime, 1))
            slow.go.set()
        assert post(url, "after").status_code == 200
        assert "left" not in slow.begun


@pytest.mark.parametrize("path", ["moderations", "chat/completions"])
def test_a_caller_who_leaves_stops_the_scoring_of_a_long_text(path: str) -> None:
    slow = Slow()
    text = "WAIT " * 5000
    body = {"input": text} if path == "moderations" else chat_body(text)
    moderator = scripted_moderator(ScriptedEngine(slow))
    with serving_runtime(moderator, RecitingGenerator()) as (url, runtime):
        with pytest.raises(httpx.ReadTimeout, match="timed out"):
            httpx.post(f"{url}/v1/{path}", json=body, timeout=2)
        time.sleep(0.3)  # until the server has seen that the line is closed
        slow.go.set()
        wait_until(depth_is(runtime, 0))
        assert len(slow.begun) == 1, "of more than ten windows"


def test_a_poisoned_item_answers_its_own_caller_only() -> None:
    def poisoned(text: str) -> float:
        if "POISON" in text:
            raise ZeroDivisionError(text)
        return 0.0

    with serving(scripted_moderator(ScriptedEngine(poisoned))) as url:
        error = error_of(post(url, "POISON"), 500)
        assert error["code"] == "engine_error"
        assert "POISON" not in error["message"]
        assert post(url, "fine").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200


def test_a_score_that_is_no_number_is_an_error_and_never_a_verdict() -> None:
    with serving(scripted_moderator(ScriptedEngine(lambda _: float("nan")))) as url:
        assert error_of(post(url, "x"), 500)["type"] == "server_error"


def test_when_the_engine_dies_everyone_is_answered_and_it_comes_back() -> None:
    go = threading.Event()

    def die(text: str) -> float:
        if text == "DIE":
            go.wait(10)
            raise Dying
        return 0.0

    with serving_runtime(scripted_moderator(ScriptedEngine(die))) as (url, runtime):
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
        with in_background(lambda: post(url, "DIE")) as dying:
            wait_until(depth_is(runtime, 1))
            with in_background(lambda: post(url, "next")) as waiting:
                wait_until(depth_is(runtime, 2))
                go.set()
        for answer in (*dying, *waiting):
            assert error_of(answer, 503)["code"] == "engine_stopped"
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert httpx.get(f"{url}/readyz").json()["status"] == "stopped"
        error_of(post(url, "at once"), 503)
        assert httpx.get(f"{url}/healthz").status_code == 200
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert post(url, "later").status_code == 200


def test_while_the_classifier_hangs_the_process_asks_to_be_replaced() -> None:
    with slow_service(deadline_s=0.2, hung_after_s=0.2) as (url, _, slow):
        error_of(post(url, "WAIT"), 504)
        wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 503)
        assert httpx.get(f"{url}/healthz").json() == {"status": "hung"}
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert error_of(post(url, "x"), 503)["code"] == "engine_stopped"
        slow.go.set()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_while_the_generator_hangs_the_process_asks_to_be_replaced() -> None:
    go = threading.Event()

    def hang(_: int) -> None:
        go.wait(10)

    generator = RecitingGenerator(before_piece=hang)
    with serving(None, generator, generation_deadline_s=0.2, hung_after_s=0.2) as url:
        error_of(httpx.post(f"{url}/v1/chat/completions", json=chat_body("x"), timeout=20), 504)
        wait_until(lambda: httpx.get(f"{url}/healthz").status_code == 503)
        go.set()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)


def test_while_models_load_the_process_is_healthy_and_not_ready() -> None:
    loaded = threading.Event()

    def load() -> Moderator:
        loaded.wait(10)
        return scripted_moderator(ScriptedEngine(bad_is_bad))

    with serving_runtime(load, wait_ready=False) as (url, runtime):
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        response = httpx.get(f"{url}/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "loading")
        early = post(url, "x")
        assert error_of(early, 503)["code"] == "not_ready"
        assert early.headers["retry-after"] == "2"
        error_of(httpx.get(f"{url}/v1/models"), 503)
        loaded.set()
        wait_until(lambda: runtime.state == "ready")
        assert post(url, "x").status_code == 200


def test_models_that_cannot_be_loaded_leave_the_reason() -> None:
    def load() -> Moderator:
        raise ModelUnavailable("no such directory")

    with serving_runtime(load) as (url, runtime):
        assert str(runtime.failure) == "no such directory"
        assert httpx.get(f"{url}/readyz").json()["status"] == "failed"
        assert "log has the reason" in error_of(post(url, "x"), 503)["message"]


def test_stopping_answers_those_who_wait() -> None:
    with slow_service() as (url, runtime, slow), in_background(lambda: post(url, "WAIT")) as ran:
        wait_until(depth_is(runtime, 1))
        with in_background(lambda: post(url, "next")) as waited:
            wait_until(depth_is(runtime, 2))
            closing = threading.Thread(target=runtime.close)
            closing.start()
            time.sleep(0.05)
            slow.go.set()
            closing.join(5)
    assert [answer.status_code for answer in (*ran, *waited)] == [200, 503]
