"""The face of Llama Stack, through Llama Stack's own client."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from llama_stack_client import BadRequestError, LlamaStackClient, NotFoundError

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

REFUSAL = "Not here."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    reading = Moderator(LIBRARY, moderator.text, reader=WidthReader())
    with serving(reading, refusal_text=REFUSAL) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with LlamaStackClient(base_url=url, max_retries=0) as client:
        yield client


def run(client: Any, *messages: dict[str, Any], shield: str = "closed", **params: Any) -> Any:
    return client.safety.run_shield(
        shield_id=shield, messages=list(messages), params=params
    ).violation


USER = {"role": "user", "content": "good"}


def test_good_messages_have_no_violation(client: Any, url: str) -> None:
    assert run(client, USER) is None
    body = {"shield_id": "closed", "messages": [USER]}
    assert httpx.post(f"{url}/v1/safety/run-shield", json=body).json() == {"violation": None}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "BAD"},
        {"role": "user", "content": {"type": "text", "text": "BAD"}},
        {"role": "user", "content": [{"type": "text", "text": "BAD"}]},
        {"role": "user", "content": "good", "context": "BAD"},
        {"role": "user", "content": [{"type": "image", "image": {"url": {"uri": png(80, 40)}}}]},
        {"role": "tool", "call_id": "1", "content": "BAD"},
        {"role": "assistant", "content": "BAD", "stop_reason": "end_of_turn"},
        {
            "role": "assistant",
            "content": "",
            "stop_reason": "end_of_message",
            "tool_calls": [{"call_id": "1", "tool_name": "say", "arguments": {"text": "BAD"}}],
        },
    ],
)
def test_every_message_is_judged(client: Any, message: dict[str, Any]) -> None:
    violation = run(client, USER, message)
    assert (violation.violation_level, violation.user_message) == ("error", REFUSAL)
    assert violation.metadata == {
        "violation_type": "harassment",
        "policies": ["harassment"],
        "action": "block",
    }


@pytest.mark.parametrize(
    ("policy_set", "level"),
    [("flagging", "warn"), ("reviewing", "error"), ("redacting", "error"), ("shadowing", None)],
)
def test_only_what_is_not_let_through_is_an_error(policy_set: str, level: str | None) -> None:
    with serving(policy_set=policy_set) as url, LlamaStackClient(base_url=url) as client:
        violation = run(client, {"role": "user", "content": "BAD"}, shield=policy_set)
    assert (violation and violation.violation_level) == level


def test_a_flag_after_an_allowed_message_is_told() -> None:
    with serving(policy_set="flagging") as url, LlamaStackClient(base_url=url) as client:
        messages = [{"role": "user", "content": "BAD"}, {"role": "user", "content": "good"}]
        assert run(client, *messages, shield="flagging").violation_level == "warn"


def test_the_operators_policies_apply_with_any_shield(client: Any) -> None:
    assert run(client, {"role": "user", "content": "BAD"}, shield="flagging") is not None


def test_the_policies_of_the_shield_apply_too(client: Any) -> None:
    violation = run(client, {"role": "user", "content": "BAD"}, shield="default")
    assert {"harassment", "violence"} <= set(violation.metadata["policies"])


def test_only_the_policies_that_decided_are_named() -> None:
    with serving(policy_set="mixed") as url, LlamaStackClient(base_url=url) as client:
        violation = run(client, {"role": "user", "content": "BAD"}, shield="mixed")
    assert violation.metadata["policies"] == ["harassment"]


def test_shields_are_the_policy_sets(client: Any) -> None:
    listed = client.shields.list()
    assert [shield.identifier for shield in listed] == list(LIBRARY.sets)
    assert client.shields.retrieve("closed") == next(s for s in listed if s.identifier == "closed")
    assert listed[0].provider_id == "wardgate"


def test_an_unknown_shield_is_refused_with_the_known_ones(client: Any) -> None:
    known = r"unknown shield 'mine'; known: .*closed"
    with pytest.raises(BadRequestError, match=known):
        run(client, USER, shield="mine")
    with pytest.raises(BadRequestError, match=known):
        client.shields.retrieve("mine")


def test_shields_cannot_be_registered(client: Any) -> None:
    with pytest.raises(Exception, match="405"):
        client.shields.register(shield_id="mine")
    with pytest.raises(NotFoundError, match="404"):
        client.get("/v1/shieldz", cast_to=object)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"params": {"temperature": 0}}, "params.temperature"),
        (
            {"messages": [{"role": "user", "content": {"type": "audio"}}]},
            "messages[0].content.type",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    url: str, body: dict[str, Any], param: str
) -> None:
    body = {"shield_id": "closed", "messages": [USER], **body}
    error = error_of(httpx.post(f"{url}/v1/safety/run-shield", json=body), 400)
    assert error["param"] == param
