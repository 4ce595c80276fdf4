"""The field `moderation` of requests that are answered: scores beside the answer, and blocking."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.service.gate.responses import begun, completed, message, response, stream
from tests.service.gate.responses import said as said_by_events
from tests.service.scripted import (
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    stream_events,
    streamed_text,
)
from tests.service.upstream_server import (
    DONE,
    Json,
    Told,
    chunk,
    completion,
    said,
    upstream_server,
)

MODEL = "omni-moderation-latest"
BLOCK = {"mode": "block"}


def no_scores(text: str) -> float:
    if "NOSCORE" in text:
        raise ValueError("no score")
    return bad_is_bad(text)


@contextmanager
def gate(told: Told, score: Any = bad_is_bad, **changes: Any) -> Iterator[str]:
    """The URL of a gate that only flags, before the scripted upstream."""
    with (
        upstream_server(told) as upstream,
        serving(
            scripted_moderator(ScriptedEngine(score)),
            upstreams={"test": {"base_url": upstream}},
            **{"policy_set": "flagging", **changes},
        ) as url,
    ):
        yield url


def ask(url: str, text: str = "Hi", *, endpoint: str = "chat/completions", **more: Any) -> Json:
    body = {"model": "any", "input": text} if endpoint == "responses" else chat_body(text)
    wanted = {"moderation": {"model": MODEL}, **body, **more}
    answer = httpx.post(f"{url}/v1/{endpoint}", json=wanted, timeout=20)
    assert answer.status_code == 200, answer.text
    parsed: Json = answer.json()
    return parsed


def modes(**of: Json) -> Json:
    return {"model": MODEL, "policy": of}


def result_of(side: Json) -> Json:
    assert side["type"] == "moderation_results"
    (result,) = side["results"]
    found: Json = result
    assert found["type"] == "moderation_result"
    return found


def test_both_sides_have_scores_and_the_server_sees_no_such_field() -> None:
    told = Told(whole=completion("This is BAD."))
    with gate(told) as url:
        sides = ask(url, "Good morning.")["moderation"]
    prompt, answer = result_of(sides["input"]), result_of(sides["output"])
    assert (prompt["flagged"], answer["flagged"]) == (False, True)
    assert (prompt["category_scores"]["harassment"], prompt["categories"]["harassment"]) == (0, 0)
    assert (answer["category_scores"]["harassment"], answer["categories"]["harassment"]) == (1, 1)
    assert answer["category_applied_input_types"]["harassment"] == ["text"]
    assert told.asked == [chat_body("Good morning.")]


def test_the_worst_of_all_contents_is_told() -> None:
    told = Told(whole=completion("Fine.", reasoning_content="BAD"))
    messages = [{"role": role, "content": text} for role, text in (("user", "BAD"), ("user", "Hi"))]
    with gate(told) as url:
        sides = ask(url, messages=messages)["moderation"]
    assert result_of(sides["input"])["flagged"]
    assert result_of(sides["output"])["flagged"]


def test_nobody_gets_what_was_not_asked_for() -> None:
    with gate(Told(whole=completion("Fine."))) as url:
        assert "moderation" not in ask(url, moderation=None)


def test_scores_cost_no_checks_of_their_own() -> None:
    engine = ScriptedEngine(bad_is_bad)
    told = Told(whole=completion("Fine."))
    with (
        upstream_server(told) as upstream,
        serving(scripted_moderator(engine), upstreams={"test": {"base_url": upstream}}) as url,
    ):
        ask(url)
    assert len(engine.asked) == 2


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_mode_blocks_what_the_policy_set_only_flags(side: str) -> None:
    told = Told(whole=completion("BAD" if side == "output" else "Fine."))
    text = "BAD" if side == "input" else "Hi"
    other = "output" if side == "input" else "input"
    with gate(told) as url:
        for wanted, reason in (
            (modes(**{side: {"mode": "score"}}), "stop"),
            (modes(**{other: BLOCK}), "stop"),
            (modes(**{side: BLOCK}), "content_filter"),
        ):
            answer = ask(url, text, moderation=wanted)
            assert answer["choices"][0]["finish_reason"] == reason
            assert result_of(answer["moderation"][side])["flagged"]


def test_no_mode_lets_pass_what_the_policy_set_blocks() -> None:
    told = Told(whole=completion("BAD"))
    wanted = modes(input={"mode": "score"}, output={"mode": "score"})
    with gate(told, policy_set="closed") as url:
        answer = ask(url, "Hi", moderation=wanted)
        refused = ask(url, "BAD", moderation=wanted)
    for body in (answer, refused):
        assert body["choices"][0]["finish_reason"] == "content_filter"
    assert result_of(answer["moderation"]["output"])["flagged"]
    assert result_of(refused["moderation"]["input"])["flagged"]
    assert refused["moderation"]["output"]["code"] == "no_answer"


def test_a_side_without_a_verdict_is_an_error() -> None:
    told = Told(whole=completion("NOSCORE"))
    with gate(told, no_scores, policy_set="opened") as url:
        sides = ask(url)["moderation"]
        silent = Told(whole=completion(""))
    assert sides["output"]["type"] == "error"
    assert sides["output"]["code"] == "engine_error"
    assert "NOSCORE" not in str(sides)
    with gate(silent) as url:
        assert ask(url)["moderation"]["output"]["code"] == "content_empty"


def streamed(url: str, text: str = "Hi", **more: Any) -> list[Json]:
    body = chat_body(text, stream=True, moderation={"model": MODEL}, **more)
    return stream_events(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20))


def test_a_stream_has_them_in_a_chunk_of_their_own_at_its_end() -> None:
    told = Told(steps=said("Good. ", "BAD."))
    with gate(told) as url:
        events = streamed(url)
    assert streamed_text(events) == "Good. BAD."
    assert [event for event in events if "moderation" in event] == events[-1:]
    assert events[-1]["choices"] == []
    assert result_of(events[-1]["moderation"]["output"])["flagged"]


def test_a_stream_that_is_cut_off_or_refused_has_them_too() -> None:
    told = Told(steps=[chunk({"content": "Good. "}), chunk({"content": "BAD"}), DONE])
    with gate(told, policy_set="closed") as url:
        cut_off, refused = streamed(url), streamed(url, "BAD")
    assert result_of(cut_off[-1]["moderation"]["output"])["flagged"]
    assert refused[-1]["moderation"]["output"]["type"] == "error"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_generator_of_this_process_has_them(is_streamed: bool) -> None:
    with serving(generator=RecitingGenerator(("This is ", "BAD.")), policy_set="flagging") as url:
        sides = streamed(url)[-1]["moderation"] if is_streamed else ask(url)["moderation"]
    assert result_of(sides["output"])["flagged"]
    assert not result_of(sides["input"])["flagged"]


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("yes", "moderation"),
        ({}, "moderation.model"),
        ({"model": "gpt-4"}, "moderation.model"),
        ({"model": MODEL, "policy": {"input": {"mode": "off"}}}, "moderation.policy.input.mode"),
        ({"model": MODEL, "else": 1}, "moderation.else"),
    ],
)
def test_another_form_is_refused(value: Any, param: str) -> None:
    told = Told()
    with gate(told) as url:
        body = chat_body(moderation=value)
        error = error_of(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20), 400)
    assert error["param"] == param
    assert told.asked == []


def test_the_official_client_reads_them() -> None:
    told = Told(whole=completion("BAD"), steps=said("BAD"))
    with (
        gate(told) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        chat = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Hi"}],
            moderation={"model": MODEL, "policy": {"output": {"mode": "score"}}},
        )
        assert chat.moderation is not None
        assert chat.moderation.output.type == "moderation_results"
        assert chat.moderation.output.results[0].flagged
        chunks = list(
            client.chat.completions.create(
                model="any",
                messages=[{"role": "user", "content": "Hi"}],
                moderation={"model": MODEL},
                stream=True,
            )
        )
        assert chunks[-1].moderation is not None
        assert chunks[-1].moderation.input.type == "moderation_results"
        told.whole = response(message("BAD"))
        answer = client.responses.create(model="any", input="Hi", moderation={"model": MODEL})
        assert answer.moderation is not None
        assert answer.moderation.output.type == "moderation_result"
        assert answer.moderation.output.flagged
        told.steps = stream(begun(), said_by_events("BAD"), completed(message("BAD")))
        with client.responses.stream(
            model="any", input="Hi", moderation={"model": MODEL}
        ) as events:
            final = events.get_final_response()
        assert final.moderation is not None
        assert final.moderation.output.type == "moderation_result"
        assert final.moderation.output.flagged
