"""The face of LiteLLM's generic guardrail API, and LiteLLM itself in front of it."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from moderation.moderator import Moderator
from tests.service.scripted import (
    LIBRARY,
    ScriptedEngine,
    bad_is_bad,
    error_of,
    scripted_moderator,
    serving,
)
from tests.service.test_moderations import WidthReader, png

PATH = "/beta/litellm_basic_guardrail_api"
ENGINE = ScriptedEngine(bad_is_bad)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    moderator = scripted_moderator(ENGINE)
    with serving(Moderator(LIBRARY, moderator.text, reader=WidthReader())) as url:
        yield url


def check(url: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(url + PATH, json={"input_type": "request", **body}, timeout=20)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


BLOCKED = {
    "action": "BLOCKED",
    "blocked_reason": "blocked by the content policy: harassment",
}
WIDE = png(80, 40)
"""An image in which the reader reads BAD."""


def test_what_litellm_sends_passes_and_is_blocked(url: str) -> None:
    sent = {
        "input_type": "request",
        "litellm_call_id": "3f",
        "litellm_trace_id": None,
        "structured_messages": [{"role": "user", "content": "good"}],
        "images": None,
        "tools": None,
        "texts": ["good"],
        "request_data": {"user_api_key_hash": "88dc", "user_api_key_team_id": None},
        "request_headers": {"host": "localhost", "authorization": "[present]"},
        "litellm_version": "1.110.2",
        "additional_provider_specific_params": {},
        "tool_calls": None,
        "model": "gemma-3",
    }
    assert check(url, **sent) == {"action": "NONE"}
    assert check(url, **{**sent, "texts": ["good", "BAD"]}) == BLOCKED


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"texts": ["good", "BAD"]}, id="texts"),
        pytest.param({"images": [WIDE]}, id="image as a data URL"),
        pytest.param({"images": [WIDE.partition(",")[2]]}, id="image in base64"),
        pytest.param({"tools": [{"type": "code_interpreter", "hint": "BAD"}]}, id="built-in tool"),
        pytest.param(
            {"tools": [{"function": {"name": "a", "parameters": {"x": {"description": "BAD"}}}}]},
            id="tool",
        ),
        pytest.param(
            {"tool_calls": [{"id": "1", "function": {"name": "a", "arguments": '{"q": "BAD"}'}}]},
            id="tool call",
        ),
        pytest.param(
            {"structured_messages": [{"role": "user", "content": "BAD"}]}, id="a message alone"
        ),
        pytest.param(
            {"texts": ["good"], "structured_messages": [{"role": "user", "name": "BAD"}]},
            id="a field of a message",
        ),
        pytest.param(
            {
                "texts": ["good"],
                "structured_messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": WIDE}}]}
                ],
            },
            id="an image of a message",
        ),
    ],
)
@pytest.mark.parametrize("input_type", ["request", "response"])
def test_nothing_passes_unjudged(url: str, body: dict[str, Any], input_type: str) -> None:
    assert check(url, input_type=input_type, **body) == BLOCKED


def test_a_sentence_split_over_parts_is_judged_whole() -> None:
    def split(text: str) -> float:
        return float("pipe" in text and "bomb" in text)

    parts = [{"type": "text", "text": "a pipe"}, {"type": "text", "text": "bomb"}]
    body = {
        "texts": ["a pipe", "bomb"],
        "structured_messages": [{"role": "user", "content": parts}],
    }
    with serving(scripted_moderator(ScriptedEngine(split))) as url:
        assert check(url, **body) == BLOCKED


def test_what_is_sent_twice_is_judged_once(url: str) -> None:
    ENGINE.asked.clear()
    messages = [{"role": "user", "content": "good"}, {"role": "system", "content": "kind"}]
    check(url, texts=["good", "kind", "good"], structured_messages=messages)
    assert [asked.text for asked in ENGINE.asked] == ["good", "kind"]


def test_what_comes_after_a_block_is_not_judged_any_more(url: str) -> None:
    ENGINE.asked.clear()
    assert check(url, texts=["BAD", "more"]) == BLOCKED
    assert [asked.text for asked in ENGINE.asked] == ["BAD"]


@pytest.mark.parametrize(
    ("input_type", "surface"), [("request", "prompt"), ("response", "response")]
)
def test_the_input_type_is_the_surface(url: str, input_type: str, surface: str) -> None:
    before = httpx.get(f"{url}/metrics").text
    check(url, input_type=input_type, texts=["fresh"])
    changed = set(httpx.get(f"{url}/metrics").text.splitlines()) - set(before.splitlines())
    assert any(f'verdicts_total{{action="allow",surface="{surface}"' in line for line in changed)


@pytest.mark.parametrize("body", [{}, {"texts": []}, {"texts": ["", " \n"]}, {"texts": None}])
def test_where_there_is_nothing_to_judge_there_is_nothing_to_block(
    url: str, body: dict[str, Any]
) -> None:
    assert check(url, **body) == {"action": "NONE"}


@pytest.mark.parametrize("policy_set", ["flagging", "shadowing"])
def test_what_is_let_through_is_let_through(policy_set: str) -> None:
    with serving(policy_set=policy_set) as url:
        assert check(url, texts=["BAD"]) == {"action": "NONE"}


def test_review_blocks_because_nobody_can_review_in_time() -> None:
    with serving(policy_set="reviewing") as url:
        assert check(url, texts=["BAD"]) == BLOCKED


def test_an_image_that_was_not_judged_in_full_blocks_and_says_so(url: str) -> None:
    assert check(url, images=[png(40, 80)]) == {
        "action": "BLOCKED",
        "blocked_reason": "blocked by the content policy: a part of it could not be judged",
    }


def test_texts_are_removed_in_place_only_where_the_action_says_so() -> None:
    with serving(policy_set="redacting") as url:
        assert check(url, texts=["one", "BAD", "", "BAD", "two"]) == {
            "action": "GUARDRAIL_INTERVENED",
            "texts": [
                "one",
                "[removed by the content policy]",
                "",
                "[removed by the content policy]",
                "two",
            ],
        }
        messages = [{"role": "user", "content": "BAD"}]
        answer = check(url, texts=["BAD"], structured_messages=messages)
        assert answer["action"] == "GUARDRAIL_INTERVENED"


@pytest.mark.parametrize(
    "body",
    [
        {"tool_calls": [{"function": {"arguments": "BAD"}}]},
        {"texts": ["BAD"], "tool_calls": [{"function": {"arguments": "BAD too"}}]},
        {"texts": ["good"], "structured_messages": [{"role": "user", "name": "BAD"}]},
    ],
)
def test_what_cannot_be_removed_is_blocked(body: dict[str, Any]) -> None:
    with serving(policy_set="redacting") as url:
        assert check(url, **body) == BLOCKED


def test_policies_can_be_added_and_nothing_else_asked_for(url: str) -> None:
    add = {"policies": ["any_harm"]}
    assert check(url, texts=["BAD"], additional_provider_specific_params=add) == BLOCKED
    for params, code in (
        ({"policies": ["hate"]}, "unknown_policy"),
        ({"threshold": 0.8}, "unknown_parameter"),
    ):
        body = {
            "input_type": "request",
            "texts": ["good"],
            "additional_provider_specific_params": params,
        }
        assert error_of(httpx.post(url + PATH, json=body), 400)["code"] == code


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"images": ["https://a.org/b.png"]}, "images[0]", "remote_image_not_supported"),
        ({"images": ["no base64"]}, "images[0]", "invalid_data_url"),
        ({"images": [base64.b64encode(b"none").decode()]}, "images[0]", "unreadable_image"),
        ({"texts": ["good", 1]}, "texts.1", "invalid_parameter"),
        ({"texts": ["good"], "input_type": "both"}, "input_type", "invalid_parameter"),
        ({"structured_messages": [{}]}, "structured_messages[0].role", "unsupported_role"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(
    url: str, body: dict[str, Any], param: str, code: str
) -> None:
    body = {"input_type": "request", **body}
    error = error_of(httpx.post(url + PATH, json=body), 400)
    assert (error["param"], error["code"]) == (param, code)
