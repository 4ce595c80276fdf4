"""The face of NeMo Guardrails' `/v1/checks`."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.scripted import error_of, serving
from tests.service.test_moderations import png

REFUSAL = "Not here."
REMOVED = "[removed by the content policy]"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(refusal_text=REFUSAL) as url:
        yield url


def post(url: str, messages: list[dict[str, Any]], **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/checks", json={"model": "m", "messages": messages, **body})


def check(url: str, messages: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
    response = post(url, messages, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


BLOCKED = {"status": "blocked", "content": REFUSAL, "rail": "harassment"}


def test_good_messages_pass_with_the_last_of_them(url: str) -> None:
    messages = [said("user", "Hi"), said("assistant", "Hello")]
    assert check(url, messages) == {"status": "passed", "content": "Hello"}


@pytest.mark.parametrize(
    "messages",
    [
        [said("user", "BAD"), said("user", "good")],
        [said("system", "BAD"), said("user", "good")],
        [said("user", "good"), said("assistant", "BAD")],
        [said("user", "good"), said("assistant", None, tool_calls=[{"function": "BAD"}])],
        [said("user", "good"), said("tool", "BAD", tool_call_id="1")],
    ],
)
def test_every_message_is_judged(url: str, messages: list[dict[str, Any]]) -> None:
    assert check(url, messages) == BLOCKED


def test_tools_are_judged_where_a_model_would_read_them(url: str) -> None:
    tools = [{"type": "function", "function": {"name": "BAD"}}]
    messages = [said("user", "good"), said("assistant", "fine")]
    assert check(url, messages, tools=tools) == BLOCKED
    output = {"rail_types": ["output"]}
    assert check(url, messages, tools=tools, guardrails=output)["status"] == "passed"


def test_rail_types_choose_the_side(url: str) -> None:
    messages = [said("user", "BAD"), said("assistant", "good")]
    assert check(url, messages, guardrails={"rail_types": ["input"]}) == BLOCKED
    assert check(url, messages, guardrails={"rail_types": ["input", "output"]}) == BLOCKED
    passed = {"status": "passed", "content": "good"}
    assert check(url, messages, guardrails={"rail_types": ["output"]}) == passed


def test_a_configuration_is_a_policy_set_besides_the_operators(url: str) -> None:
    for guardrails in ({"config_id": "flagging"}, {"config_ids": ["flagging"]}):
        assert check(url, [said("user", "BAD")], guardrails=guardrails) == BLOCKED
    error = error_of(post(url, [said("user", "x")], guardrails={"config_id": "mine"}), 400)
    assert error["code"] == "unknown_policy"
    assert "flagging" in error["message"]


def test_the_last_message_is_modified_where_the_action_says_so() -> None:
    with serving(policy_set="redacting", refusal_text=REFUSAL) as url:
        assert check(url, [said("user", "good"), said("assistant", "BAD")]) == {
            "status": "modified",
            "content": REMOVED,
        }
        for messages in (
            [said("user", "BAD"), said("assistant", "good")],
            [said("user", "BAD", name="someone")],
        ):
            assert check(url, messages) == BLOCKED, "the answer has no room for more than a text"


@pytest.mark.parametrize(
    ("policy_set", "status"), [("flagging", "passed"), ("reviewing", "blocked")]
)
def test_flags_pass_and_reviews_do_not(policy_set: str, status: str) -> None:
    with serving(policy_set=policy_set) as url:
        assert check(url, [said("user", "BAD")])["status"] == status


def test_an_image_that_was_not_judged_in_full_blocks(url: str) -> None:
    parts = [
        {"type": "text", "text": "good"},
        {"type": "image_url", "image_url": {"url": png(40, 80)}},
    ]
    assert check(url, [said("user", parts)])["rail"] == "on_incomplete"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [said("user", "")]}, "messages"),
        ({"messages": [said("context", {"a": "b"})]}, "messages[0].role"),
        (
            {"messages": [said("user", [{"type": "image_url", "image_url": png(9, 9)}] * 65)]},
            "messages[0]",
        ),
        ({"guardrails": {"rail_types": []}}, "guardrails.rail_types"),
        ({"guardrails": {"rail_types": ["output"]}}, "messages"),
        ({"guardrails": {"rail_types": ["retrieval"]}}, "guardrails.rail_types.0"),
        ({"guardrails": {"context": {"a": "b"}}}, "guardrails.context"),
        ({"guardrails": {"options": {"rails": []}}}, "guardrails.options"),
        ({"guardrails": {"state": {"a": 1}}}, "guardrails.state"),
        ({"guardrails": {"thread_id": "0123456789abcdef"}}, "guardrails.thread_id"),
        (
            {"guardrails": {"config_id": "closed", "config_ids": ["closed"]}},
            "guardrails.config_ids",
        ),
        ({"guardrails": {"config_ids": ["closed", "opened"]}}, "guardrails.config_ids"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    url: str, body: dict[str, Any], param: str
) -> None:
    response = httpx.post(f"{url}/v1/checks", json={"messages": [said("user", "good")], **body})
    assert error_of(response, 400)["param"] == param


def test_how_a_model_would_answer_makes_no_difference(url: str) -> None:
    more = {"stream": True, "temperature": 0.2, "max_tokens": 5, "tool_choice": "auto"}
    assert check(url, [said("user", "good")], **more)["status"] == "passed"
