"""Where the gate says what its checks came to: in the body, in headers, in both, nowhere."""

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gate.report_headers import dictionary
from tests.service.gate.test_images import BAD, GOOD, gate, images
from tests.service.gate.test_proxy import behind
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    stream_events,
)
from tests.service.upstream_server import Json, Pause, Told, completion, said, upstream_server

MEMBER = r"[a-z*][a-z0-9_.*-]*(=(\?0|-?[0-9]{1,12}(\.[0-9]{1,3})?|[A-Za-z*][A-Za-z0-9_.*:/-]*))?"
PLACES = [("body", True, False), ("headers", False, True), ("both", True, True)]
PLACES += [("none", False, False)]


@pytest.fixture
def told() -> Told:
    return Told(whole=completion("Fine."), steps=said("Fine. ", "Yes."))


@pytest.fixture
def upstream(told: Told) -> Iterator[str]:
    with upstream_server(told) as url:
        yield url


def ask(url: str, body: Json, path: str = "chat/completions") -> httpx.Response:
    return httpx.post(f"{url}/v1/{path}", json=body, timeout=20)


def ours(response: httpx.Response) -> dict[str, str]:
    found = {k: v for k, v in response.headers.items() if k.startswith("wardgate-")}
    for value in found.values():
        assert re.fullmatch(rf"{MEMBER}(, {MEMBER})*", value)
    return found


@pytest.mark.parametrize(("report", "in_body", "in_headers"), PLACES)
def test_a_report_stands_where_the_setting_says(
    upstream: str, told: Told, report: str, in_body: bool, in_headers: bool
) -> None:
    with serving(report=report, **behind(upstream)) as url:
        whole = ask(url, chat_body())
        stream = ask(url, chat_body(stream=True))
        told.whole = {"object": "response", "id": "r", "output": [], "status": "completed"}
        response = ask(url, {"input": "Hi"}, "responses")
        blocked = ask(url, chat_body("BAD"))
    for answer in (whole, response, blocked):
        assert ("wardgate" in answer.json()) is in_body
    assert any("wardgate" in event for event in stream_events(stream)) is in_body
    if not in_headers:
        assert ours(whole) == ours(stream) == ours(blocked) == {}
        return
    passed = {
        "wardgate-prompt": "passed, action=allow",
        "wardgate-prompt-scores": "harassment=0.0",
    }
    assert ours(stream) == passed
    assert ours(whole) == {
        **passed,
        "wardgate-response": "passed, action=allow",
        "wardgate-response-scores": "harassment=0.0",
    }
    assert ours(blocked) == {
        "wardgate-prompt": "passed=?0, action=block",
        "wardgate-prompt-scores": "harassment=1.0",
    }


def test_headers_have_the_worst_of_all_contents(upstream: str) -> None:
    engine = ScriptedEngine(lambda text: 0.4567 if "middling" in text else 0.1)
    middling = {"role": "system", "content": "middling"}
    body = {"model": "any", "messages": [middling, {"role": "user", "content": "Hi"}]}
    with serving(scripted_moderator(engine), report="headers", **behind(upstream)) as url:
        found = ours(ask(url, body))
    assert found["wardgate-prompt-scores"] == "harassment=0.457"
    assert found["wardgate-response-scores"] == "harassment=0.1"


def test_an_answer_of_this_process_has_both_sides() -> None:
    with serving(generator=RecitingGenerator(), report="headers") as url:
        answer = ask(url, chat_body())
    assert "wardgate" not in answer.json()
    assert ours(answer).keys() == {
        f"wardgate-{side}{more}" for side in ("prompt", "response") for more in ("", "-scores")
    }


def test_a_failure_has_its_code_and_no_scores(upstream: str, told: Told) -> None:
    def score(text: str) -> float:
        if "broken" in text:
            raise RuntimeError
        return 0.0

    told.whole = completion("broken")
    moderator = scripted_moderator(ScriptedEngine(score))
    with serving(moderator, report="both", policy_set="opened", **behind(upstream)) as url:
        found = ours(ask(url, chat_body()))
    assert found["wardgate-response"] == "passed, failure=engine_error"
    assert "wardgate-response-scores" not in found


def test_a_stream_that_begins_before_the_verdict_has_no_headers_of_it(upstream: str) -> None:
    def slowly(text: str) -> float:
        time.sleep(0.5)
        return bad_is_bad(text)

    changes: dict[str, Any] = {"report": "headers", "keep_alive_s": 0.05, **behind(upstream)}
    with serving(scripted_moderator(ScriptedEngine(slowly)), **changes) as url:
        answer = ask(url, chat_body(stream=True))
    assert answer.text.startswith(": checking")
    assert ours(answer) == {}


@pytest.mark.parametrize("report", ["headers", "none"])
@pytest.mark.parametrize("mode", ["window", "final"])
def test_what_a_client_takes_back_is_said_wherever_the_report_stands(
    upstream: str, told: Told, report: str, mode: str
) -> None:
    told.steps = [*said("Fine. ", "BA")[:-2], Pause(0.3), *said("D", "more")[1:]]
    changes: dict[str, Any] = {"report": report, "stream_mode": mode, "idle_check_s": 5.0}
    with serving(window_chars=50, **changes, **behind(upstream)) as url:
        events = stream_events(ask(url, chat_body(stream=True)))
    (found,) = [event["wardgate"] for event in events if "wardgate" in event]
    assert found.keys() == {"blocked"}
    assert found["blocked"]["policies"] == ["harassment"]
    assert found["blocked"]["retract"]["start"] == 0


@pytest.mark.parametrize("report", ["body", "headers", "none"])
def test_an_error_says_why_in_its_body_too(upstream: str, report: str) -> None:
    with serving(report=report, blocked_prompt="error", **behind(upstream)) as url:
        answers = [ask(url, chat_body("BAD", stream=stream)) for stream in (False, True)]
    for answer in answers:
        assert error_of(answer, 400)["wardgate"]["verdict"]["action"] == "block"
        said = ours(answer).get("wardgate-prompt")
        assert said == ("passed=?0, action=block" if report == "headers" else None)


def test_images_say_it_where_the_setting_says(told: Told) -> None:
    told.whole = images({"b64_json": GOOD}, {"b64_json": BAD})
    with gate(told, report="headers") as url:
        answer = ask(url, {"model": "any", "prompt": "A boat."}, "images/generations")
        blocked = ask(url, {"model": "any", "prompt": "BAD"}, "images/generations")
    assert answer.json()["data"][1] == {"b64_json": None, "finish_reason": "content_filter"}
    assert "wardgate" not in answer.json()
    assert ours(answer)["wardgate-response"] == "passed=?0, action=block"
    assert error_of(blocked, 400)["code"] == "content_filter"
    assert ours(blocked)["wardgate-prompt-scores"] == "harassment=1.0"


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.floats(0, 1)))
def test_nothing_but_names_and_numbers_gets_into_a_header(members: dict[str, Any]) -> None:
    try:
        value = dictionary(members)
    except ValueError:
        return
    assert not members or re.fullmatch(rf"{MEMBER}(, {MEMBER})*", value)


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: b", "a, b=c", "", "ä", "a\n", "a b", "A"])
def test_a_key_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a header"):
        dictionary({text: 0.5})
