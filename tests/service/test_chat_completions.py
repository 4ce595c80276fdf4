import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from moderation.errors import EngineError, EngineStopped, EngineTimeout, Unscorable
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    serving_runtime,
    stream_events,
    streamed_text,
)
from tests.waiting import wait_until


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(bad_is_bad)


@pytest.fixture
def generator() -> RecitingGenerator:
    return RecitingGenerator(["Hello", " there. ", "Bye."])


@pytest.fixture
def url(engine: ScriptedEngine, generator: RecitingGenerator) -> Iterator[str]:
    with serving(scripted_moderator(engine), generator) as url:
        yield url


def complete(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)


def test_an_answer_has_openais_shape_and_the_gates_report(url: str) -> None:
    body = complete(url, chat_body("Hi")).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "reciting"
    (choice,) = body["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello there. Bye.", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert body["wardgate"]["prompt"]["verdict"]["action"] == "allow"
    assert body["wardgate"]["response"]["verdict"]["action"] == "allow"


def test_a_stream_has_openais_shape(url: str) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}}
    response = complete(url, chat_body("Hi", **more))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = stream_events(response)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert streamed_text(events) == "Hello there. Bye."
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["wardgate"]["response"]["passed"] is True
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    without = stream_events(complete(url, chat_body("Hi", stream=True)))
    assert not any("usage" in event for event in without)


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_prompt_is_refused_and_never_generated(
    url: str, generator: RecitingGenerator, stream: bool
) -> None:
    response = complete(url, chat_body("This is BAD", stream=stream))
    assert response.status_code == 200
    if stream:
        events = stream_events(response)
        text, last = streamed_text(events), events[-1]
    else:
        last = response.json()
        text = last["choices"][0]["message"]["content"]
        assert last["usage"]["completion_tokens"] == 0
    assert "blocked by the content policy" in text
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert last["wardgate"]["prompt"]["passed"] is False
    assert last["wardgate"]["prompt"]["verdict"]["action"] == "block"
    assert last["wardgate"]["response"] is None
    assert generator.said == []


def test_a_blocked_prompt_is_an_error_where_the_settings_say_so(
    engine: ScriptedEngine, generator: RecitingGenerator
) -> None:
    with serving(scripted_moderator(engine), generator, blocked_prompt="error") as url:
        for stream in (False, True):
            error = error_of(complete(url, chat_body("BAD", stream=stream)), 400)
            assert error["code"] == "content_filter"
            assert error["wardgate"]["verdict"]["action"] == "block"
    assert generator.said == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_without_a_verdict_is_not_told_to_be_blocked(
    generator: RecitingGenerator, stream: bool
) -> None:
    def unscorable(text: str) -> float:
        raise Unscorable("NaN")

    with serving(scripted_moderator(ScriptedEngine(unscorable)), generator) as url:
        response = complete(url, chat_body("Hi", stream=stream))
    assert response.status_code == 200
    assert "could not be checked" in response.text
    assert "blocked by" not in response.text
    assert '"failure":"unscorable"' in response.text
    assert '"finish_reason":"content_filter"' in response.text
    assert generator.said == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Unscorable("NaN"), 500, "unscorable"),
        (EngineTimeout("late"), 504, "timeout"),
        (EngineStopped("died"), 503, "engine_stopped"),
    ],
)
def test_where_a_block_is_an_error_a_failure_has_its_own_status(
    generator: RecitingGenerator, failure: EngineError, status: int, code: str, stream: bool
) -> None:
    def fail(text: str) -> float:
        raise failure

    moderator = scripted_moderator(ScriptedEngine(fail))
    with serving(moderator, generator, blocked_prompt="error") as url:
        error = error_of(complete(url, chat_body("Hi", stream=stream)), status)
    assert error["code"] == code
    assert generator.said == []


def long_chat(turns: int) -> dict[str, Any]:
    messages = [
        {"role": role, "content": f"{role} says {turn}"}
        for turn in range(turns)
        for role in ("user", "assistant")
    ]
    return {"messages": [*messages, {"role": "user", "content": "BYE"}]}


def test_each_message_of_a_long_chat_has_the_deadline_to_itself() -> None:
    def slowly(_: str) -> float:
        time.sleep(0.1)
        return 0.0

    generator = RecitingGenerator()
    engine = ScriptedEngine(slowly)
    with serving(scripted_moderator(engine), generator, deadline_s=1.0) as url:
        body = complete(url, long_chat(10)).json()
    assert [m["failure"] for m in body["wardgate"]["prompt"]["messages"]] == [None] * 21
    assert body["choices"][0]["finish_reason"] == "stop"


def test_while_the_prompt_is_checked_a_stream_has_its_headers_and_comments(
    generator: RecitingGenerator,
) -> None:
    go = threading.Event()

    def wait(text: str) -> float:
        go.wait(10)
        return bad_is_bad(text)

    engine = ScriptedEngine(wait)
    with serving(scripted_moderator(engine), generator, keep_alive_s=0.05) as url:
        path = f"{url}/v1/chat/completions"
        for text, reason in (("Hi", "stop"), ("BAD", "content_filter")):
            go.clear()
            body = chat_body(text, stream=True)
            with httpx.stream("POST", path, json=body, timeout=15) as response:
                lines = response.iter_lines()
                assert response.status_code == 200
                assert any(line == ": checking" for line in lines)
                assert engine.asked == [] or engine.asked[-1].text != text, "not judged yet"
                go.set()
                rest = "\n".join(lines)
            assert f'"finish_reason":"{reason}"' in rest
            assert rest.rstrip().endswith("data: [DONE]")


def test_where_a_block_is_an_error_a_stream_waits_for_the_verdict(
    generator: RecitingGenerator,
) -> None:
    def slowly(text: str) -> float:
        time.sleep(0.4)
        return bad_is_bad(text)

    moderator = scripted_moderator(ScriptedEngine(slowly))
    with serving(moderator, generator, keep_alive_s=0.05, blocked_prompt="error") as url:
        error = error_of(complete(url, chat_body("BAD", stream=True)), 400)
        assert error["code"] == "content_filter"
        assert complete(url, chat_body("Hi", stream=True)).status_code == 200


def test_a_client_who_leaves_while_a_stream_waits_for_the_verdict_is_not_generated_for(
    generator: RecitingGenerator,
) -> None:
    go = threading.Event()

    def wait(_: str) -> float:
        go.wait(10)
        return 0.0

    moderator = scripted_moderator(ScriptedEngine(wait))
    with serving_runtime(moderator, generator, keep_alive_s=0.05) as (url, runtime):
        body = chat_body("Hi", stream=True)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            assert next(response.iter_lines())
        time.sleep(0.3)  # until the server has seen that the line is closed
        go.set()
        depth = runtime.metrics.registry.get_sample_value
        wait_until(lambda: depth("wardgate_queue_depth", {"queue": "classifier"}) == 0)
    assert generator.said == []


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_every_message_of_the_conversation_is_content(
    url: str, generator: RecitingGenerator, role: str
) -> None:
    first = "developer" if role == "developer" else "system"
    roles = [first, "user", "assistant", "user"]
    at = roles.index(role)
    messages = [
        {"role": name, "content": "BAD" if index == at else f"text {index}"}
        for index, name in enumerate(roles)
    ]
    body = complete(url, {"messages": messages}).json()
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert [m["passed"] for m in body["wardgate"]["prompt"]["messages"]] == [*[True] * at, False]
    assert generator.said == []


def test_text_parts_and_refusals_are_content_too(url: str) -> None:
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "BAD"}]
    answers = [
        complete(url, {"messages": [{"role": "user", "content": parts}]}),
        complete(
            url,
            {
                "messages": [
                    {"role": "user", "content": "u"},
                    {"role": "assistant", "content": None, "refusal": "BAD"},
                    {"role": "user", "content": "u"},
                ]
            },
        ),
    ]
    for answer in answers:
        assert answer.json()["choices"][0]["finish_reason"] == "content_filter"


def test_assistant_messages_are_judged_as_responses_to_what_was_asked(url: str) -> None:
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "BAD"},
        {"role": "user", "content": "v"},
    ]
    verdict = complete(url, {"messages": messages}).json()["wardgate"]["prompt"]["verdict"]
    assert verdict["scores"][0]["windows"][0]["surface"] == "response"


def test_what_passed_is_remembered_and_a_long_chat_is_judged_once(
    url: str, engine: ScriptedEngine
) -> None:
    first = complete(url, chat_body("one")).json()["choices"][0]["message"]
    asked = len(engine.asked)
    messages = [{"role": "user", "content": "one"}, first, {"role": "user", "content": "two"}]
    assert complete(url, {"messages": messages}).status_code == 200
    prompts = [check.text for check in engine.asked[asked:] if not check.text.startswith("Hello")]
    assert prompts == ["two"], "the first two messages were known"
    for _ in range(2):
        complete(url, chat_body("BAD"))
    assert [check.text for check in engine.asked].count("BAD") == 2, "only what passed is known"


@pytest.mark.parametrize(("policy_set", "passes"), [("flagging", True), ("reviewing", False)])
def test_flag_lets_through_and_review_does_not(
    engine: ScriptedEngine, generator: RecitingGenerator, policy_set: str, passes: bool
) -> None:
    with serving(scripted_moderator(engine), generator, policy_set=policy_set) as url:
        body = complete(url, chat_body("BAD")).json()
    assert body["wardgate"]["prompt"]["passed"] is passes
    assert bool(generator.said) is passes


@pytest.mark.parametrize(("policy_set", "passes"), [("closed", False), ("opened", True)])
def test_a_failed_check_of_the_prompt_follows_on_error_and_says_so(
    generator: RecitingGenerator, policy_set: str, passes: bool
) -> None:
    def unscorable(text: str) -> float:
        raise Unscorable("NaN")

    moderator = scripted_moderator(ScriptedEngine(unscorable))
    with serving(moderator, generator, policy_set=policy_set) as url:
        body = complete(url, chat_body("Hi")).json()
        metrics = httpx.get(f"{url}/metrics").text
    report = body["wardgate"]["prompt"]
    assert (report["passed"], report["failure"], report["verdict"]) == (passes, "unscorable", None)
    assert bool(generator.said) is passes
    outcome = "passed_unchecked" if passes else "prompt_failed"
    assert f'wardgate_gate_outcomes_total{{outcome="{outcome}"}} 1.0' in metrics


def test_a_response_that_violates_is_cut_and_keeps_what_passed(
    engine: ScriptedEngine,
) -> None:
    generator = RecitingGenerator(["A good first sentence. ", "Then there is something BAD.", "!"])

    def wait_for_the_check_of_what_was_said(index: int) -> None:
        wait_until(lambda: len(engine.asked) >= index + 1)
        time.sleep(0.1)  # until the answer to the check has reached the gate

    generator.before_piece = wait_for_the_check_of_what_was_said
    with serving(scripted_moderator(engine), generator) as url:
        body = complete(url, chat_body("Hi")).json()
    assert body["choices"][0]["message"]["content"] == "A good first sentence. "
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["wardgate"]["response"]["verdict"]["action"] == "block"
    assert body["usage"]["completion_tokens"] == 2
    assert "!" not in generator.said, "the generator was stopped"


def test_a_generator_that_fails_is_500_or_an_error_event(engine: ScriptedEngine) -> None:
    def fail(index: int) -> None:
        raise ZeroDivisionError("the words of somebody")

    generator = RecitingGenerator(before_piece=fail)
    with serving(scripted_moderator(engine), generator) as url:
        error = error_of(complete(url, chat_body("Hi")), 500)
        assert "ZeroDivisionError" in error["message"]
        assert "somebody" not in error["message"]
        events = stream_events(complete(url, chat_body("Hi", stream=True)))
    assert events[-1]["error"]["code"] == "engine_error"


def test_a_silent_stream_is_kept_alive_with_comments(engine: ScriptedEngine) -> None:
    generator = RecitingGenerator(["Hello."], before_piece=lambda _: time.sleep(0.5))
    with serving(scripted_moderator(engine), generator, keep_alive_s=0.1) as url:
        response = complete(url, chat_body("Hi", stream=True))
    assert ": checking\n\n" in response.text
    assert streamed_text(stream_events(response)) == "Hello."


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_who_leaves_frees_the_generator(engine: ScriptedEngine, stream: bool) -> None:
    generator = RecitingGenerator(
        ["A sentence of some length. "] * 1000, before_piece=lambda _: time.sleep(0.02)
    )
    path, body = "/v1/chat/completions", chat_body("Hi", stream=stream)
    with serving(scripted_moderator(engine), generator) as url:
        if stream:
            with httpx.stream("POST", url + path, json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout, match="timed out"):
                httpx.post(url + path, json=body, timeout=0.5)
        assert generator.ended.wait(60)
        assert len(generator.said) < 1000  # it did not come to its end


def test_past_capacity_chats_get_429_and_the_metric_counts_them(engine: ScriptedEngine) -> None:
    hold, begun = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        hold.wait(30)

    generator = RecitingGenerator(before_piece=wait)
    with serving_runtime(scripted_moderator(engine), generator, generation_queue_capacity=1) as (
        url,
        runtime,
    ):

        def depth() -> float | None:
            return runtime.metrics.registry.get_sample_value(
                "wardgate_queue_depth", {"queue": "generator"}
            )

        answers: list[httpx.Response] = []
        threads = []
        for number in range(2):
            body = chat_body(f"Hi {number}")
            threads.append(threading.Thread(target=lambda b=body: answers.append(complete(url, b))))
            threads[-1].start()
            # the second has to find the first running, not waiting
            assert begun.wait(15)
            wait_until(lambda n=number: depth() == n + 1)  # type: ignore[misc]
        refused = complete(url, chat_body("Hi 2"))
        metrics = httpx.get(f"{url}/metrics").text
        hold.set()
        for thread in threads:
            thread.join(10)
    assert error_of(refused, 429)["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200]
    assert 'wardgate_overloads_total{queue="generator"} 1.0' in metrics


def test_a_generation_past_its_deadline_is_504(engine: ScriptedEngine) -> None:
    generator = RecitingGenerator(before_piece=lambda _: time.sleep(1))
    with serving(scripted_moderator(engine), generator, generation_deadline_s=0.2) as url:
        assert error_of(complete(url, chat_body("Hi")), 504)["code"] == "timeout"


def test_streams_are_ascii_json_whatever_the_text(engine: ScriptedEngine) -> None:
    generator = RecitingGenerator(["One\u2028two\x85 😀."])
    with serving(scripted_moderator(engine), generator) as url:
        response = complete(url, chat_body("Hi", stream=True))
    assert response.content.isascii()
    assert streamed_text(stream_events(response)) == "One\u2028two\x85 😀."
    assert json.loads(response.text.split("\n\n")[1].removeprefix("data: "))


def test_a_message_that_cannot_be_judged_is_named(
    engine: ScriptedEngine, generator: RecitingGenerator
) -> None:
    messages = [{"role": "system", "content": "Hi"}, {"role": "user", "content": "a b " * 10_000}]
    with serving(scripted_moderator(engine), generator) as url:
        error = error_of(complete(url, {"messages": messages}), 400)
    assert (error["param"], error["code"]) == ("messages[1].content", "content_too_long")
    assert error["message"].startswith("messages[1].content has 40000 tokens")
