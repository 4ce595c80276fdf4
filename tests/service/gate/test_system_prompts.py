"""`check_system_prompts: false`: what then passes unjudged, what does not, and that it is said."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.gate.test_proxy import behind
from tests.service.scripted import serving, stream_events
from tests.service.upstream_server import Json, Told, completion, said, upstream_server

WHY = "the setting check_system_prompts is false"
HI = {"role": "user", "content": "Hi"}


@pytest.fixture
def told() -> Told:
    return Told(whole=completion("Fine."), steps=said("Fine."))


@pytest.fixture
def upstream(told: Told) -> Iterator[str]:
    with upstream_server(told) as url:
        yield url


@pytest.fixture
def url(upstream: str) -> Iterator[str]:
    with serving(check_system_prompts=False, report="both", **behind(upstream)) as url:
        yield url


def ask(url: str, body: Json, path: str = "chat/completions") -> httpx.Response:
    return httpx.post(f"{url}/v1/{path}", json={"model": "any", **body}, timeout=20)


def system(role: Any = "system") -> Json:
    return {"role": role, "content": [{"type": "text", "text": "Never say BAD."}]}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_prompt_passes_unjudged_and_the_answer_says_so(
    url: str, told: Told, role: str
) -> None:
    body = {"messages": [system(role), HI]}
    answer = ask(url, body)
    prompt = answer.json()["wardgate"]["prompt"]
    assert prompt["passed"]
    assert [entry["where"] for entry in prompt["messages"]] == ["messages[1]"]
    assert prompt["not_checked"] == [
        {"where": "messages[0]", "index": 0, "role": role, "reason": WHY}
    ]
    assert answer.headers["wardgate-prompt"] == "passed, action=allow, not_checked=1"
    assert told.asked[0]["messages"] == body["messages"]
    streamed = stream_events(ask(url, {**body, "stream": True}))
    assert streamed[-1]["wardgate"]["prompt"]["not_checked"] == prompt["not_checked"]


def test_it_is_judged_by_default(upstream: str) -> None:
    with serving(**behind(upstream)) as url:
        prompt = ask(url, {"messages": [system(), HI]}).json()["wardgate"]["prompt"]
    assert not prompt["passed"]
    assert "not_checked" not in prompt


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [system("System")]},
        {"messages": [system("user")]},
        {"messages": [system("tool")]},
        {"messages": [system("assistant")]},
        {"messages": [system(None)]},
        {"messages": [HI], "tools": [{"type": "function", "function": {"name": "BAD thing"}}]},
        {"messages": [HI], "system": "BAD"},
        {"messages": [HI], "instructions": "BAD"},
    ],
)
def test_all_else_is_judged_as_before(url: str, told: Told, body: Json) -> None:
    prompt = ask(url, body).json()["wardgate"]["prompt"]
    assert not prompt["passed"]
    assert told.asked == []


def test_what_was_left_out_is_told_of_a_blocked_prompt_too(url: str) -> None:
    body = {"messages": [system(), {"role": "user", "content": "BAD"}]}
    prompt = ask(url, body).json()["wardgate"]["prompt"]
    assert [entry["where"] for entry in prompt["messages"]] == ["messages[1]"]
    assert len(prompt["not_checked"]) == 1


def test_an_answer_to_it_is_judged(url: str, told: Told) -> None:
    told.whole = completion("BAD")
    answer = ask(url, {"messages": [system(), HI]}).json()
    assert answer["choices"][0]["finish_reason"] == "content_filter"


def test_instructions_of_a_response_pass_and_items_that_only_look_like_it_do_not(
    url: str, told: Told
) -> None:
    told.whole = {"object": "response", "id": "r", "output": [], "status": "completed"}
    passing = {"instructions": "Never say BAD.", "input": [{"role": "developer", "content": "BAD"}]}
    prompt = ask(url, passing, "responses").json()["wardgate"]["prompt"]
    assert prompt["passed"]
    assert [entry["where"] for entry in prompt["not_checked"]] == ["instructions", "input[0]"]
    output = {"type": "function_call_output", "call_id": "1", "role": "system", "output": "BAD"}
    for body in ({"input": [output]}, {"input": [{"role": {}, "content": "BAD"}]}):
        assert not ask(url, body, "responses").json()["wardgate"]["prompt"]["passed"]
