"""`redact` in a held stream: a mark stands where the violation was, and the rest arrives."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.service.gate.responses import (
    begun,
    called,
    completed,
    message,
    read_events,
    stream,
    thought,
)
from tests.service.gate.responses import said as said_by_events
from tests.service.scripted import (
    ScriptedEngine,
    chat_body,
    error_of,
    scripted_moderator,
    serving,
    stream_events,
)
from tests.service.upstream_server import (
    DONE,
    Json,
    Pause,
    Step,
    Told,
    chunk,
    said,
    upstream_server,
)
from tests.waiting import wait_until

MARK = "[removed by the content policy]"
CHECKED = Pause(0.4)
"""Long enough for a check of what came before."""


def graded(text: str) -> float:
    """BAD violates, WORSE more so; nothing may follow an X."""
    return 1.0 if "WORSE" in text else 0.7 * bool("BAD" in text or re.search(r"X.*\[", text))


@contextmanager
def gate(told: Told, score: Any = graded, **changes: Any) -> Iterator[str]:
    """The URL of a gate that redacts, and checks at once what has come."""
    with (
        upstream_server(told) as upstream,
        serving(
            scripted_moderator(ScriptedEngine(score)),
            upstreams={"test": {"base_url": upstream}},
            **{"policy_set": "redacting_or_blocking", "idle_check_s": 0.1, **changes},
        ) as url,
    ):
        yield url


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def url(told: Told) -> Iterator[str]:
    with gate(told) as url:
        yield url


def ask(url: str, told: Told, *steps: Step, **body: Any) -> list[Json]:
    told.steps = steps
    body = chat_body(stream=True, **body)
    return stream_events(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20))


def texts(events: list[Json], field: str = "content") -> dict[int, str]:
    """What each choice says."""
    found: dict[int, str] = {}
    for event in events:
        for choice in event.get("choices", ()):
            text = choice["delta"].get(field) or ""
            found[choice["index"]] = found.get(choice["index"], "") + text
    return found


def reasons(events: list[Json]) -> dict[int, str]:
    return {
        choice["index"]: choice["finish_reason"]
        for event in events
        for choice in event.get("choices", ())
        if choice["finish_reason"]
    }


def report_of(events: list[Json]) -> Json:
    (report,) = [event["wardgate"] for event in events if "wardgate" in event]
    found: Json = report
    return found


def test_a_mark_stands_for_what_is_held_and_the_rest_arrives(url: str, told: Told) -> None:
    usage = {**chunk({}), "choices": [], "usage": {"x": 1}}
    first, *middle, end, done = said("Good. ", "B", "A", "D ", "More. ")
    told.steps = [first, middle[0], CHECKED, *middle[1:4], CHECKED, middle[4], end, usage, done]
    events = ask(url, told, *told.steps)
    report = report_of(events)
    metrics = httpx.get(f"{url}/metrics").text
    assert events[-2].pop("wardgate") is report
    marked = chunk({"content": MARK})
    assert events == [first, middle[0], marked, middle[4], end, usage]
    assert report["response"]["passed"] is True
    assert report["response"]["action"] == "redact"
    assert report["response"]["redacted"] == [
        {"choice": 0, "field": "content", "policies": ["harassment"]}
    ]
    assert 'wardgate_gate_outcomes_total{outcome="response_redacted"} 1.0' in metrics
    assert 'outcome="passed"' not in metrics


def test_what_came_while_it_was_checked_is_not_lost(told: Told) -> None:
    def slow(text: str) -> float:
        if text.endswith("BAD. "):
            wait_until(lambda: told.sent >= 3)
            time.sleep(0.1)  # until it has reached the gate
        return graded(text)

    with gate(told, slow) as url:
        steps: list[Step] = [
            chunk({"content": "This is something BAD. "}),
            Pause(0.3),
            chunk({"content": "More. "}),
            chunk({"content": "And more."}),
            Pause(0.2),
            chunk({}, "stop"),
            DONE,
        ]
        events = ask(url, told, *steps)
    assert texts(events) == {0: f"{MARK}More. And more."}


@pytest.mark.parametrize("released", [False, True])
def test_violations_in_a_row_get_one_mark(told: Told, released: bool) -> None:
    with gate(told, hold_back_chars=0 if released else 64) as url:
        bad = chunk({"content": "BAD "})
        steps: list[Step] = [
            chunk({"content": "One. "}),
            CHECKED,
            bad,
            CHECKED,
            bad,
            CHECKED,
            bad,
            CHECKED,
        ]
        events = ask(
            url,
            told,
            *steps,
            *said("Two. "),
        )
        report = report_of(events)["response"]
    start = "One. " if released else ""
    assert texts(events) == {0: f"{start}{MARK}Two. "}
    assert len(report["redacted"]) == 1
    assert report["passed"] is True


def test_violations_apart_get_a_mark_each(url: str, told: Told) -> None:
    pieces = ["One. ", "BAD ", "Two. ", "BAD ", "Three. "]
    steps = [step for text in pieces for step in (chunk({"content": text}), CHECKED)]
    events = ask(url, told, *steps, chunk({}, "stop"), DONE)
    assert texts(events) == {0: f"One. {MARK}Two. {MARK}Three. "}
    assert len(report_of(events)["response"]["redacted"]) == 2


def test_what_is_held_back_goes_with_it(told: Told) -> None:
    with gate(told, hold_back_chars=64) as url:
        steps: list[Step] = [
            chunk({"content": "One. B"}),
            CHECKED,
            chunk({"content": "AD"}),
            CHECKED,
        ]
        events = ask(url, told, *steps, *said("Two. "))
    assert texts(events) == {0: f"{MARK}Two. "}


def test_a_mark_is_judged_where_what_it_stands_for_had_passed(told: Told) -> None:
    with gate(told, hold_back_chars=64) as url:
        steps: list[Step] = [chunk({"content": "X "}), chunk({"content": "a" * 70}), CHECKED]
        events = ask(url, told, *steps, *said("BAD"))
    assert texts(events) == {0: "X "}
    assert reasons(events) == {0: "content_filter"}


def test_a_mark_comes_in_the_place_of_the_first_piece(url: str, told: Told) -> None:
    both = chunk({"role": "assistant", "content": "BAD"}, "length", token_ids=[66])
    (event,) = ask(url, told, both, DONE)
    del event["wardgate"]
    assert event == chunk({"role": "assistant", "content": MARK}, "length")


def test_what_repeats_the_text_goes_with_it(url: str, told: Told) -> None:
    def with_token(text: str, token: str) -> Json:
        logprobs = {"content": [{"token": token, "logprob": -1.0, "top_logprobs": []}]}
        return chunk({"content": text} if text else {}, logprobs=logprobs, token_ids=[1])

    said_twice = [("B", "B"), ("", "AD"), ("AD", ""), ("", "BAD")]
    steps: list[Step] = [with_token("Good. ", "Good. "), CHECKED]
    steps += [*(with_token(*each) for each in said_twice), CHECKED]
    steps += [with_token("More. ", "More. "), CHECKED, chunk({}, "stop"), DONE]
    events = ask(url, told, *steps)
    assert texts(events) == {0: f"Good. {MARK}More. "}
    del events[-1]["wardgate"]
    assert events == [steps[0], chunk({"content": MARK}), steps[7], steps[9]]


def tool(arguments: str) -> Json:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}


LOGPROBS = {"content": [{"token": "BAD"}]}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([chunk({"content": "BAD", **tool("{}")})], id="another text in the piece"),
        pytest.param([chunk({"content": "BAD"}, note="Hello there.")], id="an unknown text"),
        pytest.param([chunk({"content": "BAD"}), chunk(tool("BAD"))], id="another text as well"),
        pytest.param([chunk(tool("BAD"))], id="another text alone"),
        pytest.param([chunk({"content": "Fine"}, logprobs=LOGPROBS)], id="logprobs alone"),
        pytest.param([chunk({"content": "BAD and WORSE"})], id="another policy blocks"),
        pytest.param([chunk({"content": "X "}), CHECKED, chunk({"content": "BAD"})], id="the mark"),
        pytest.param(
            [chunk({"content": "X "}), CHECKED, chunk({"content": "BAD"}), CHECKED],
            id="the mark, which does not pass, though nothing follows yet",
        ),
    ],
)
def test_what_cannot_be_replaced_blocks(url: str, told: Told, steps: list[Step]) -> None:
    events = ask(url, told, *steps, chunk({}, "stop"), DONE)
    assert reasons(events) == {0: "content_filter"}
    assert "BAD" not in str([event["choices"] for event in events])
    assert MARK not in str([event["choices"] for event in events])
    assert report_of(events)["response"]["passed"] is False


def test_scores_beside_the_answer_are_those_of_what_was_made(url: str, told: Told) -> None:
    moderation: Json = {"model": "omni-moderation-latest"}
    events = ask(url, told, *said("One. ", "BAD "), moderation=moderation)
    (result,) = events[-1]["moderation"]["output"]["results"]
    assert result["flagged"] is True
    moderation["policy"] = {"output": {"mode": "block"}}
    events = ask(url, told, *said("One. ", "BAD "), moderation=moderation)
    assert reasons(events) == {0: "content_filter"}


def test_tool_calls_in_pieces_of_their_own_are_kept(url: str, told: Told) -> None:
    steps: list[Step] = [chunk({"content": "BAD"}), chunk(tool("{}")), chunk({}, "tool_calls")]
    events = ask(url, told, *steps, DONE)
    del events[-1]["wardgate"]
    assert events == [chunk({"content": MARK}), *steps[1:]]


def test_of_a_chunk_of_several_choices_only_the_one_changes(url: str, told: Told) -> None:
    def both(first: str, second: str) -> Json:
        made = chunk({"content": first})
        made["choices"] += chunk({"content": second}, index=1)["choices"]
        return made

    steps: list[Step] = [
        both("One. ", "Eins. "),
        CHECKED,
        both("BAD ", "Zwei. "),
        both("BAD ", "Drei. "),
    ]
    ends: list[Step] = [chunk({}, "stop"), chunk({}, "stop", index=1), DONE]
    events = ask(url, told, *steps, CHECKED, both("Two.", "Vier."), *ends, n=2)
    assert texts(events) == {0: f"One. {MARK}Two.", 1: "Eins. Zwei. Drei. Vier."}
    assert reasons(events) == {0: "stop", 1: "stop"}


def test_a_choice_can_be_blocked_after_something_was_redacted(url: str, told: Told) -> None:
    pieces = ["One. ", "BAD ", "Two. ", "WORSE ", "Three. "]
    steps = [step for text in pieces for step in (chunk({"content": text}), CHECKED)]
    events = ask(url, told, *steps, chunk({}, "stop"), DONE)
    assert texts(events) == {0: f"One. {MARK}Two. "}
    assert reasons(events) == {0: "content_filter"}
    report = report_of(events)
    assert report["blocked"]["policies"] == ["harassment", "violence"]
    assert len(report["response"]["redacted"]) == 1


@pytest.mark.parametrize("mode", ["window", "final"])
def test_where_text_leaves_unchecked_it_is_blocked(told: Told, mode: str) -> None:
    with gate(told, stream_mode=mode, window_chars=8) as url:
        steps = said("BA", "D, and it goes on past the window.")
        events = ask(url, told, *steps)
    assert reasons(events) == {0: "content_filter"}
    assert MARK not in str(events)


def ask_for_events(url: str, told: Told, *events: Any) -> list[Json]:
    told.steps = stream(*events)
    body = {"model": "m", "input": "Hi", "stream": True}
    return read_events(httpx.post(f"{url}/v1/responses", json=body, timeout=20))


def texts_of(value: Any) -> list[str]:
    """All that stands in the places of texts of an event."""
    if isinstance(value, list):
        return [text for element in value for text in texts_of(element)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("text", "delta") if isinstance(value.get(key), str)]
    return own + [text for element in value.values() for text in texts_of(element)]


def test_events_say_the_mark_wherever_they_said_the_text(url: str, told: Told) -> None:
    first = said_by_events("Good. ", "B", "AD. ", "More.")
    second = said_by_events("Also good.", index=1)
    whole, other = message("Good. BAD. More."), message("Also good.", 1)
    paused = [*first[:3], CHECKED, *first[3:5], CHECKED, *first[5:]]
    events = ask_for_events(url, told, begun(), paused, second, completed(whole, other))
    left = f"Good. {MARK}More."
    said = ["", "Good. ", MARK, "", "More.", left, left, left]
    also = ["", "Also good.", "Also good.", "Also good.", "Also good."]
    assert texts_of(events) == [*said, *also, left, "Also good."]
    assert len(events) == 18
    report = events[-1]["response"].pop("wardgate")["response"]
    sent = completed(message(left), other)
    assert events[-1] == {**sent, "sequence_number": 17}
    assert report["redacted"] == [
        {"choice": 0, "field": "output[0].content[0].text", "policies": ["harassment"]}
    ]
    body = {"model": "m", "input": "Hi", "previous_response_id": "resp_1"}
    again = httpx.post(f"{url}/v1/responses", json=body, timeout=20)
    assert error_of(again, 400)["code"] == "unseen_history"


def test_events_that_are_all_held_are_redacted_with_their_repetitions(url: str, told: Told) -> None:
    tokens = [{"token": "BAD", "logprob": -1.0, "top_logprobs": []}]
    bad = said_by_events("BAD")
    bad[2] |= {"logprobs": tokens, "obfuscation": "abc"}
    bad[3] |= {"logprobs": tokens}
    for event in bad[4:]:
        part = event.get("part") or event["item"]["content"][0]
        part["logprobs"] = tokens
    events = ask_for_events(url, told, begun(), bad, completed(message("BAD", logprobs=tokens)))
    del events[-1]["response"]["wardgate"]
    assert events == stream(begun(), said_by_events(MARK), completed(message(MARK)))


def test_a_text_that_is_said_at_once_gets_its_mark_there(url: str, told: Told) -> None:
    bad = [event for event in said_by_events("BAD") if "delta" not in event["type"]]
    events = ask_for_events(url, told, begun(), bad, completed(message("BAD")))
    assert texts_of(events) == ["", *[MARK] * 4]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([said_by_events("BAD"), called("f", '{"a": "BAD"}', index=1)], id="a call"),
        pytest.param([thought("BAD"), said_by_events("BAD", index=1)], id="reasoning"),
        pytest.param([said_by_events("X "), CHECKED, said_by_events("BAD", index=1)], id="WORSE"),
    ],
)
def test_events_with_a_violation_elsewhere_are_blocked(
    url: str, told: Told, events: list[Any]
) -> None:
    if events[1] is CHECKED:
        events[2][3]["note"] = "So WORSE"
    found = ask_for_events(url, told, begun(), *events, completed(message("BAD", 1)))
    assert found[-1]["type"] == "response.incomplete"
    assert "BAD" not in str(found)


def test_another_text_in_the_place_of_one_that_was_redacted_is_judged(url: str, told: Told) -> None:
    events = said_by_events("BAD")
    events[3] |= {"text": "Other."}
    end = completed(message("BAD"))
    found = ask_for_events(url, told, begun(), events[:3], CHECKED, events[3:], end)
    assert texts_of(found) == ["", MARK, "Other.", *[MARK] * 3]
    events[3] |= {"text": "A BAD one."}
    found = ask_for_events(url, told, begun(), events[:3], CHECKED, events[3:], end)
    assert found[-1]["type"] == "response.incomplete"
    assert "BAD" not in str(found)


SPAN = re.compile(r"<[^<>]*>")
LETTERS = "abcdefgh    ..,!?\n\té漢😀\u2028"


def words(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(0, most)))


def cut(rng: random.Random, text: str) -> list[str]:
    pieces = []
    while text:
        end = rng.choice([1, 1, 2, 5, 30, 200])
        pieces.append(text[:end])
        text = text[end:]
    return pieces


def piece(index: int, text: str, *, with_tokens: bool) -> Json:
    tokens = [{"token": text, "logprob": -1.0, "top_logprobs": []}]
    return chunk(
        {"content": text}, index=index, logprobs={"content": tokens} if with_tokens else None
    )


@pytest.fixture(scope="module")
def anywhere() -> Iterator[tuple[str, Told]]:
    told = Told()
    with gate(
        told,
        lambda text: float(bool(SPAN.search(text))),
        hold_back_chars=64,
        policy_set="redacting",
    ) as url:
        yield url, told


@pytest.mark.parametrize("seed", range(40))
def test_streams_cut_anywhere(seed: int, anywhere: tuple[str, Told]) -> None:
    url, told = anywhere
    rng = random.Random(seed)
    num_choices = rng.choice([1, 1, 2, 3])
    given: list[tuple[str, str, str]] = []
    waiting: list[list[Step]] = []
    for index in range(num_choices):
        before = "a" + words(rng, rng.choice([3, 100, 300]))
        span = f"<{words(rng, rng.choice([0, 1, 40]))}>" if rng.random() < 0.8 else ""
        after = words(rng, rng.choice([0, 20, 200]))
        given.append((before, span, after))
        with_tokens = rng.random() < 0.5
        pieces = cut(rng, before + span + after)
        waiting.append([piece(index, text, with_tokens=with_tokens) for text in pieces])
    steps: list[Step] = []
    while any(waiting):
        steps.append(rng.choice([pieces for pieces in waiting if pieces]).pop(0))
        if rng.random() < 0.05:
            steps.append(Pause(rng.random() * 0.08))
    steps.append(CHECKED)
    steps += [chunk({"content": "TAIL."}, index=index) for index in range(num_choices)]
    steps += [chunk({}, "stop", index=index) for index in range(num_choices)]
    events = ask(url, told, *steps, DONE, n=num_choices)
    assert reasons(events) == dict.fromkeys(range(num_choices), "stop")
    tokens = "".join(
        token["token"]
        for event in events
        for choice in event["choices"]
        for token in (choice.get("logprobs") or {"content": ()})["content"]
    )
    assert "<" not in tokens
    assert ">" not in tokens
    for index, (before, span, after) in enumerate(given):
        text = texts(events)[index]
        if not span:
            assert text == f"{before}{after}TAIL."
            continue
        assert text.count(MARK) == 1
        start, _, end = text.partition(MARK)
        assert before.startswith(start)
        assert f"{after}TAIL.".endswith(end)
        assert end.endswith("TAIL.")
