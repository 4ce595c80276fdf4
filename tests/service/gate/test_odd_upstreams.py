"""Servers that lie, ramble, or never end: nothing leaks, nothing grows for ever, nothing is cut."""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from service.gate import gate, post_filter
from service.upstreams import openai_server
from tests.service.gate.test_proxy import behind, reasons
from tests.service.scripted import (
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
    Pause,
    Raw,
    Step,
    Told,
    chunk,
    completion,
    said,
    upstream_server,
)


def answered(
    steps: Sequence[Step], *, asking: Json | None = None, **changes: Any
) -> httpx.Response:
    """What a client gets of a stream of these steps."""
    engine = ScriptedEngine(changes.pop("score", bad_is_bad))
    with (
        upstream_server(Told(steps)) as upstream,
        serving(scripted_moderator(engine), **behind(upstream), **changes) as url,
    ):
        body = chat_body(stream=True, **(asking or {}))
        return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)


def whole(answer: Json) -> httpx.Response:
    """What a client gets of an answer that is not streamed."""
    with upstream_server(Told(whole=answer)) as upstream, serving(**behind(upstream)) as url:
        return httpx.post(f"{url}/v1/chat/completions", json=chat_body(), timeout=20)


STRANGE: list[Any] = [
    pytest.param({"choices": {"0": {"delta": {"content": "BAD"}}}}, id="choices by name"),
    pytest.param(
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": {"BAD": 1}}}]}),
        id="arguments as an object: a key",
    ),
    pytest.param(
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": {"model": "BAD"}}}]}),
        id="arguments as an object: what looks like a name",
    ),
    pytest.param(chunk({"content": '{"a": "\\u0042AD"}'}), id="JSON with escapes as content"),
]


@pytest.mark.parametrize("strange", STRANGE)
def test_content_in_a_strange_form_is_content(strange: Json) -> None:
    seen = answered([chunk({"content": "Good. "}), Pause(0.3), strange, DONE]).text
    assert "BAD" not in seen
    assert "0042AD" not in seen
    assert "content_filter" in seen


def test_choices_by_name_are_content_in_a_whole_answer() -> None:
    response = whole(completion("Fine.") | {"choices": {"0": {"message": {"content": "BAD"}}}})
    assert "BAD" not in response.text


@pytest.mark.parametrize("mode", ["hold", "window", "final"])
@pytest.mark.parametrize("pieces", [["word " * 1000] * 8, ["First.", *["\n" * 5000] * 8, "last."]])
def test_a_long_answer_arrives_whole(mode: str, pieces: list[str]) -> None:
    """More than is read ahead of the checks; too long for the classifier, so failures pass."""
    response = answered(
        said(*pieces), stream_mode=mode, policy_set="opened", check_every_chars=10**6
    )
    events = stream_events(response)
    assert streamed_text(events) == "".join(pieces)
    assert reasons(events) == {0: "stop"}


def test_a_choice_that_nobody_asked_for_is_checked_and_cuts_off_no_other() -> None:
    steps: list[Step] = [
        chunk({"content": "BAD"}, index=7),
        chunk({}, "stop", index=7),
        Pause(0.2),
        *said("Good. ", "And more."),
    ]
    response = answered(steps)
    assert "BAD" not in response.text
    events = stream_events(response)
    assert streamed_text(events) == "Good. And more."
    assert reasons(events) == {7: "content_filter", 0: "stop"}


def test_a_character_in_two_halves_is_one() -> None:
    halves = ["Good ", "\ud83d", "\ude00", " end."]
    events = stream_events(answered(said(*halves)))
    assert streamed_text(events) == "".join(halves)
    assert reasons(events) == {0: "stop"}


@pytest.mark.parametrize("reason", ["stop", ""])
def test_text_after_the_end_of_its_choice_has_no_head_start(reason: str) -> None:
    steps: list[Step] = [
        chunk({"content": "Fine. BA"}, reason),
        Pause(0.3),
        chunk({"content": "D"}, reason),
        DONE,
    ]
    events = stream_events(answered(steps, hold_back_chars=3, idle_check_s=0.05))
    assert "BA" not in streamed_text(events)
    assert reasons(events)[0] == "content_filter"


def test_what_escapes_hide_is_held_back_in_the_characters_that_they_stand_for() -> None:
    def call(arguments: str) -> Json:
        return chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})

    escaped = [f"\\u{ord(letter):04x}" for letter in "BAD"]
    steps: list[Step] = [
        call('{"a": "fine '),
        *(s for e in escaped for s in (call(e), Pause(0.15))),
        DONE,
    ]
    response = answered(steps, hold_back_chars=3, idle_check_s=0.05, check_every_chars=2)
    assert "u0042" not in response.text
    assert reasons(stream_events(response)) == {0: "content_filter"}


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_too_large_for_json_is_an_error(number: str) -> None:
    events = stream_events(
        answered([chunk({}), Raw(f'data: {{"a": {number}}}\n\n'.encode()), DONE])
    )
    assert events[-1]["error"]["code"] == "upstream_broke"


def test_more_texts_than_any_answer_has_are_an_error_and_not_a_flood_of_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (post_filter, gate):
        monkeypatch.setattr(module, "MAX_TEXTS", 100)
    few = {f"field_{index}": f"text {index}" for index in range(90)}
    many = {f"more_{index}": f"text {index}" for index in range(90)}
    at_once: list[int] = []

    def count(_: str) -> float:
        at_once.append(sum(t.name == "wardgate-judge" for t in threading.enumerate()))
        time.sleep(0.002)
        return 0.0

    response = answered([chunk(few), Pause(0.5), chunk(many), DONE], score=count)
    assert max(at_once) < 20, "of 90: four at a time, and threads that are just ending"
    events = stream_events(response)
    assert events[-1]["error"]["code"] == "upstream_broke"
    assert "texts" in events[-1]["error"]["message"]
    assert "field_7" in response.text
    assert "more_7" not in response.text
    error = error_of(whole(completion("Fine.", **few, **many)), 502)
    assert error["code"] == "upstream_broke"


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_an_event_without_an_end_is_an_error(
    monkeypatch: pytest.MonkeyPatch, ending: bytes
) -> None:
    monkeypatch.setattr(openai_server, "MAX_EVENT_BYTES", 100_000)
    told = Told([Raw(b"data: {"), *[Raw(b'"a' + b"a" * 1000 + ending + b"data:")] * 5000, DONE])
    with upstream_server(told) as upstream, serving(**behind(upstream)) as url:
        body = chat_body(stream=True)
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
        error = error_of(response, 502)
        assert error["code"] == "upstream_broke"
        assert "too long" in error["message"]
        assert told.sent < 5000


def test_chunks_that_say_nothing_do_not_keep_text_waiting() -> None:
    text = chunk({"content": "Some words"})
    silent: list[Step] = [Pause(0.05), chunk({})]
    steps: list[Step] = [
        text,
        *silent * 30,
        chunk({"content": "."}),
        chunk({}, "stop"),
        DONE,
    ]
    with (
        upstream_server(Told(steps)) as upstream,
        serving(**behind(upstream), idle_check_s=0.2) as url,
    ):
        started = time.monotonic()
        body = chat_body(stream=True)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as response:
            lines = response.iter_lines()
            assert "Some words" in next(line for line in lines if line.startswith("data"))
            assert time.monotonic() - started < 1.2, "the pauses alone take 1.5 s"
            list(lines)


def test_no_end_of_chunks_that_say_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_filter, "MAX_HELD_CHUNKS", 100)
    steps: list[Step] = [chunk({"content": "Some words"}), *[chunk({})] * 3000, DONE]
    events = stream_events(answered(steps, hold_back_chars=64))
    assert "say nothing" in events[-1]["error"]["message"]


def test_an_index_that_lies_hides_nothing() -> None:
    told = Told()
    with upstream_server(told) as upstream, serving(**behind(upstream)) as url:
        for index in (True, "0", None, -1, 2**70, 0.0, {"x": 1}):
            choice = {"index": index, "delta": {"content": "BAD"}, "finish_reason": None}
            told.steps = [{**chunk({}), "choices": [choice]}, DONE]
            body = chat_body(stream=True)
            seen = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20).text
            assert "BAD" not in seen
            assert "content_filter" in seen


def test_of_a_key_that_comes_twice_what_is_checked_is_what_leaves() -> None:
    twice = json.dumps(chunk({"content": "x"})).replace(
        '"content": "x"', '"content": "BAD", "content": "Good."'
    )
    response = answered([Raw(f"data: {twice}\n\n".encode()), chunk({}, "stop"), DONE])
    assert "BAD" not in response.text
    assert streamed_text(stream_events(response)) == "Good."


def test_two_pieces_of_a_choice_in_one_chunk_are_one_text() -> None:
    both = chunk({"content": "B"})
    both["choices"] += chunk({"content": "AD"})["choices"]
    assert reasons(stream_events(answered([both, DONE]))) == {0: "content_filter"}


def test_a_stream_without_a_word_is_an_answer() -> None:
    events = stream_events(answered([DONE]))
    assert events == []


def test_an_event_in_many_lines_of_any_ending_is_one() -> None:
    lines = json.dumps(chunk({"content": "a\u2028b\x85c"}), indent=1, ensure_ascii=False)
    raw = "".join(f"data: {line}\r\n" for line in lines.splitlines(keepends=False) if line)
    if "\u2028" in lines:  # str.splitlines would have cut there
        raw = "".join(f"data: {line}\r\n" for line in lines.split("\n"))
    data = ("\ufeffevent: x\r\nid: 1\r\n" + raw + "\r\n: comment\r\n\r\n").encode()
    pieces = [Raw(data[i : i + 3]) for i in range(0, len(data), 3)]
    events = stream_events(answered([*pieces, chunk({}, "stop"), DONE]))
    assert streamed_text(events) == "a\u2028b\x85c"


def test_what_stands_beside_a_blocked_choice_is_not_lost() -> None:
    steps: list[Step] = [
        chunk({"content": "BAD "}) | {"note": "one, "},
        Pause(0.2),
        chunk({"content": "more"}) | {"note": "two, "},
        chunk({"content": "Good."}, "stop", index=1),
        chunk({}, "stop") | {"note": "three", "usage": {"total_tokens": 3}},
        DONE,
    ]
    events = stream_events(answered(steps, asking={"n": 2}))
    assert "".join(event.get("note", "") for event in events) == "one, two, three"
    assert any(event.get("usage") for event in events)
    assert reasons(events) == {0: "content_filter", 1: "stop"}


def test_arguments_may_be_cut_within_a_character() -> None:
    def call(arguments: str) -> Json:
        return chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})

    steps: list[Step] = [call('{"a": "\ud83d'), call('\ude00"}'), chunk({}, "tool_calls"), DONE]
    assert reasons(stream_events(answered(steps))) == {0: "tool_calls"}


def test_halves_of_characters_are_held_back_as_characters() -> None:
    halves = [*"fine ", *["\ud83d", "\ude00"] * 3]
    steps: list[Step] = [step for half in halves for step in (chunk({"content": half}), Pause(0.1))]
    seen = streamed_text(
        stream_events(
            answered(
                [*steps, DONE],
                hold_back_chars=3,
                idle_check_s=0.03,
                check_every_chars=2,
                score=lambda text: float("😀😀😀" in text),
            )
        )
    )
    assert "\ud83d" not in seen
