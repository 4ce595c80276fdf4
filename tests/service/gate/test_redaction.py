"""`redact` at the gate: what violates in prompts and in whole answers is replaced, and what is left
is judged before it goes through. Streams are in test_redacted_streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from moderation.moderator import Moderator
from moderation.prompts import JudgePrompt
from tests.service.gate.responses import call, message, reasoning, response
from tests.service.scripted import (
    LIBRARY,
    TOKENIZER,
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
from tests.service.test_moderations import WidthReader, image_part, png
from tests.service.upstream_server import Json, Told, completion, said, upstream_server

MARK = "[removed by the content policy]"
WIDE, TALL = png(80, 40), png(40, 80)  # BAD, GOOD
FUNCTION = {"name": "f", "description": "BAD"}


def graded(text: str) -> float:
    """BAD violates, WORSE more so."""
    return 1.0 if "WORSE" in text else 0.7 * bad_is_bad(text)


@contextmanager
def gate(told: Told, **changes: Any) -> Iterator[str]:
    """The URL of a gate that redacts, before the scripted upstream; it reads texts in images."""
    text = scripted_moderator(ScriptedEngine(graded)).text
    with (
        upstream_server(told) as upstream,
        serving(
            Moderator(LIBRARY, text, reader=WidthReader()),
            upstreams={"test": {"base_url": upstream}},
            **{"policy_set": "redacting_images", **changes},
        ) as url,
    ):
        yield url


@pytest.fixture
def told() -> Told:
    return Told(whole=completion("Fine."))


@pytest.fixture
def url(told: Told) -> Iterator[str]:
    with gate(told) as url:
        yield url


def post(url: str, body: Json, endpoint: str = "chat/completions") -> Json:
    answer = httpx.post(f"{url}/v1/{endpoint}", json=body, timeout=20)
    assert answer.status_code == 200, answer.text
    parsed: Json = answer.json()
    return parsed


def chat(*contents: Any, **more: Any) -> Json:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "any", "messages": messages, **more}


def text_part(text: str, **more: Any) -> Json:
    return {"type": "text", "text": text, **more}


# --- prompts ---


@pytest.mark.parametrize("pre_filter", ["first", "hidden"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_one_to_what_is_left(told: Told, pre_filter: str, stream: bool) -> None:
    def repeated(body: Json) -> str:
        return " and ".join(message["content"] for message in body["messages"])

    told.whole = lambda body: completion(repeated(body).replace("BAD", "unredacted"))
    told.steps = lambda body: said(repeated(body).replace("BAD", "unredacted"))
    body = chat("This is BAD.", "Hello.", "BAD again", stream=stream, top_k=3)
    with gate(told, pre_filter=pre_filter) as url:
        if stream:
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
            events = stream_events(answer)
            text, report = streamed_text(events), events[-1]["wardgate"]["prompt"]
        else:
            found = post(url, body)
            text, report = found["choices"][0]["message"]["content"], found["wardgate"]["prompt"]
        metrics = httpx.get(f"{url}/metrics").text
    assert text == f"{MARK} and Hello. and {MARK}"
    assert told.asked[-1] == chat(MARK, "Hello.", MARK, stream=stream, top_k=3)
    assert len(told.asked) == 1 or (pre_filter == "hidden" and told.asked[:-1] == [body])
    assert (report["passed"], report["action"], report["verdict"]["action"]) == (
        True,
        "redact",
        "allow",
    )
    assert report["redacted"] == [
        {
            "where": f"messages[{index}].content",
            "index": index,
            "start": 0,
            "end": end,
            "policies": ["harassment"],
        }
        for index, end in ((0, 12), (2, 9))
    ]
    assert 'wardgate_gate_outcomes_total{outcome="prompt_redacted"} 1.0' in metrics
    assert 'outcome="passed"' not in metrics


def test_of_a_long_text_only_the_windows_that_violate_go(url: str, told: Told) -> None:
    before, after = "A fine day. " * 400, "A fine night. " * 400
    report = post(url, chat(f"{before}BAD. {after}"))["wardgate"]["prompt"]
    (place,) = report["redacted"]
    given = f"{before}BAD. {after}"
    sent = told.asked[0]["messages"][0]["content"]
    assert sent == given[: place["start"]] + MARK + given[place["end"] :]
    assert sent.startswith("A fine day. " * 150)
    assert sent.endswith("A fine night. " * 150)
    assert "BAD" not in sent


def test_of_parts_those_go_that_a_window_that_violates_lies_in(url: str, told: Told) -> None:
    first, last = text_part("A fine day. " * 400), text_part("Fine. " * 400, cache="x")
    post(url, chat([first, text_part("BAD"), image_part(TALL), last]))
    sent = told.asked[0]["messages"][0]["content"]
    assert sent[1:3] == [text_part(MARK), image_part(TALL)]
    assert sent[0]["text"].startswith("A fine day. " * 100)
    assert sent[0]["text"].endswith(MARK)
    assert sent[3]["text"].startswith(MARK)
    assert sent[3]["text"].endswith("Fine. " * 100)
    assert sent[3]["cache"] == "x"


def test_an_image_becomes_a_text(url: str, told: Told) -> None:
    found = post(url, chat("Hi", [text_part("See:"), image_part(TALL), image_part(WIDE)]))
    sent = told.asked[0]["messages"][1]["content"]
    assert sent == [text_part("See:"), image_part(TALL), text_part(MARK)]
    (place,) = found["wardgate"]["prompt"]["redacted"]
    assert (place["where"], place["start"], place["end"]) == ("messages[1].content[2]", 0, 0)


def test_earlier_answers_and_what_they_refuse_are_redacted_too(url: str, told: Told) -> None:
    earlier = {"role": "assistant", "content": None, "refusal": "BAD"}
    post(url, {"model": "any", "messages": [*chat("Hi")["messages"], earlier]})
    assert told.asked[0]["messages"][1] == {**earlier, "refusal": MARK}


def test_the_answer_is_judged_as_one_to_what_is_left(told: Told) -> None:
    seen: list[str] = []

    class Watched(ScriptedEngine):
        def answer(self, prompt: JudgePrompt) -> list[float]:
            seen.append(TOKENIZER.decode(list(prompt.prefix)))
            return super().answer(prompt)

    with (
        upstream_server(told) as upstream,
        serving(
            scripted_moderator(Watched(bad_is_bad)),
            upstreams={"test": {"base_url": upstream}},
            policy_set="redacting",
        ) as url,
    ):
        post(url, chat("This is BAD."))
    (last,) = [text for text in seen if "Fine." in text]
    assert MARK in last
    assert "BAD" not in last


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(chat("Hi", tools=[{"type": "function", "function": FUNCTION}]), id="tools"),
        pytest.param(chat("Hi", documents=["BAD"]), id="another field"),
        pytest.param(chat("BAD", documents=["BAD"]), id="another field as well"),
        pytest.param(
            {"model": "any", "messages": [{"role": "user", "content": "BAD", "name": "So BAD"}]},
            id="a name as well",
        ),
        pytest.param(chat([text_part("Hi", note="BAD")]), id="an unknown field of a part"),
        pytest.param(chat([text_part("BAD", note="Hi there")]), id="beside an unknown field"),
        pytest.param(
            {
                "model": "any",
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "function": {"name": "f", "arguments": '{"a":"BAD"}'}}
                        ],
                    }
                ],
            },
            id="arguments of a tool call",
        ),
        pytest.param(chat("BAD", "WORSE"), id="another policy blocks another message"),
        pytest.param(chat("BAD and WORSE"), id="another policy blocks the same text"),
        pytest.param(
            chat(
                "BAD",
                moderation={
                    "model": "omni-moderation-latest",
                    "policy": {"input": {"mode": "block"}},
                },
            ),
            id="the caller asks for a block",
        ),
    ],
)
def test_what_cannot_be_replaced_blocks(told: Told, body: Json) -> None:
    with gate(told, policy_set="redacting_or_blocking") as url:
        answer = post(url, body)
    assert told.asked == []
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    report = answer["wardgate"]["prompt"]
    assert (report["passed"], report["failure"]) == (False, None)
    assert "redacted" not in report


@pytest.mark.parametrize("text", ["BAD itself", "A FINE TEXT"])
def test_what_is_left_is_judged_again_and_only_once(told: Told, text: str) -> None:
    with gate(told, redacted_text=text) as url:
        answer = post(url, chat("This is BAD."))
    passes = text == "A FINE TEXT"
    assert [body["messages"][0]["content"] for body in told.asked] == [text] * passes
    assert answer["wardgate"]["prompt"]["passed"] is passes


def test_an_image_that_was_not_judged_in_full_is_not_let_through_by_a_redaction(
    told: Told,
) -> None:
    with gate(told, policy_set="redacting") as url:  # on_incomplete: review
        answer = post(url, chat([text_part("BAD"), image_part(TALL)]))
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    assert told.asked == []


def test_a_policy_in_shadow_replaces_and_blocks_nothing(told: Told) -> None:
    with gate(told, policy_set="redacting_or_blocking") as url:
        report = post(url, chat("BAD"))["wardgate"]["prompt"]
    (place,) = report["redacted"]
    assert place["policies"] == ["harassment"]
    with gate(told, policy_set="shadowing") as url:
        assert "redacted" not in post(url, chat("BAD"))["wardgate"]["prompt"]
    assert [body["messages"][0]["content"] for body in told.asked] == [MARK, "BAD"]


def test_a_text_in_its_normal_form_is_replaced_as_it_was_sent(url: str, told: Told) -> None:
    post(url, chat("This is B\u200bA\u200bD."))
    assert told.asked[0]["messages"][0]["content"] == MARK


def test_what_was_redacted_once_is_redacted_again(url: str, told: Told) -> None:
    for _ in range(2):
        post(url, chat("BAD", "Hi"))
    assert told.asked == [chat(MARK, "Hi")] * 2


def test_prompts_of_completions(url: str, told: Told) -> None:
    told.whole = {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": 0, "text": "Fine.", "logprobs": None, "finish_reason": "stop"}],
    }
    for prompt in ("BAD", ["BAD"], ["Hi", "BAD"]):
        post(url, {"model": "any", "prompt": prompt}, "completions")
    assert [body["prompt"] for body in told.asked] == [MARK, [MARK], ["Hi", MARK]]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"input": "BAD"}, {"input": MARK}),
        ({"input": "Hi", "instructions": "BAD"}, {"input": "Hi", "instructions": MARK}),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "Hi"},
                            {"type": "input_image", "image_url": WIDE},
                        ],
                    },
                    {"type": "function_call_output", "call_id": "c", "output": "BAD"},
                ]
            },
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "Hi"},
                            {"type": "input_text", "text": MARK},
                        ],
                    },
                    {"type": "function_call_output", "call_id": "c", "output": MARK},
                ]
            },
        ),
    ],
)
def test_input_of_responses(url: str, told: Told, given: Json, left: Json) -> None:
    told.whole = response(message("Fine."))
    post(url, {"model": "any", **given}, "responses")
    assert told.asked == [{"model": "any", **left}]


def test_a_screenshot_has_no_text_that_could_stand_for_it(url: str, told: Told) -> None:
    shot = {"type": "computer_screenshot", "image_url": WIDE}
    call = {"type": "computer_call_output", "call_id": "c", "output": shot}
    post(url, {"model": "any", "input": [call]}, "responses")
    assert told.asked == []


def test_scores_beside_the_answer_are_those_of_what_was_sent(url: str) -> None:
    wanted = {"moderation": {"model": "omni-moderation-latest"}}
    (result,) = post(url, chat("BAD", **wanted))["moderation"]["input"]["results"]
    assert result["flagged"] is True


# --- whole answers ---


def choice_of(answer: Json, **more: Any) -> Json:
    (choice,) = answer["choices"]
    return {**answer, "choices": [{**choice, **more}]}


LOGPROBS = {"content": [{"token": "BAD", "logprob": -1.0, "top_logprobs": []}]}
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_of_a_whole_answer_the_text_is_replaced_and_what_repeats_it_goes(
    url: str, told: Told
) -> None:
    told.whole = choice_of(
        completion("BAD", tool_calls=CALLS), logprobs=LOGPROBS, token_ids=[66, 65, 68]
    )
    answer = post(url, chat_body())
    (choice,) = answer["choices"]
    message = {"role": "assistant", "content": MARK, "tool_calls": CALLS}
    assert choice == {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "stop",
    }
    report = answer["wardgate"]["response"]
    assert (report["passed"], report["action"]) == (True, "redact")
    assert report["redacted"] == [{"choice": 0, "field": "content", "policies": ["harassment"]}]
    metrics = httpx.get(f"{url}/metrics").text
    assert 'wardgate_gate_outcomes_total{outcome="response_redacted"} 1.0' in metrics


def test_of_a_long_answer_only_the_windows_that_violate_go(url: str, told: Told) -> None:
    before, after = "A fine day. " * 400, "A fine night. " * 400
    told.whole = completion(f"{before}BAD. {after}")
    text = post(url, chat_body())["choices"][0]["message"]["content"]
    assert text.startswith("A fine day. " * 150)
    assert text.endswith("A fine night. " * 150)
    assert text.count(MARK) == 1
    assert "BAD" not in text


def test_an_image_as_a_text_goes_as_a_whole(url: str, told: Told) -> None:
    told.whole = completion(WIDE)
    assert post(url, chat_body())["choices"][0]["message"]["content"] == MARK


def test_a_text_with_coded_letters_goes_as_a_whole(url: str, told: Told) -> None:
    padding = r"\u0041 fine day. " * 300
    told.whole = completion(rf"{padding}\u0042AD. {padding}")
    assert post(url, chat_body())["choices"][0]["message"]["content"] == MARK


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(completion("BAD", reasoning_content="BAD"), id="reasoning as well"),
        pytest.param(completion("Fine.", reasoning_content="BAD"), id="reasoning alone"),
        pytest.param(choice_of(completion("Fine."), logprobs=LOGPROBS), id="logprobs alone"),
        pytest.param(choice_of(completion("BAD"), note="BAD"), id="an unknown field"),
        pytest.param(completion("BAD") | {"note": "BAD"}, id="beside the choices"),
        pytest.param(completion("BAD and WORSE"), id="another policy blocks"),
    ],
)
def test_an_answer_that_violates_elsewhere_is_blocked(told: Told, answer: Json) -> None:
    told.whole = answer
    with gate(told, policy_set="redacting_or_blocking") as url:
        found = post(url, chat_body())
        metrics = httpx.get(f"{url}/metrics").text
    assert found["choices"][0]["finish_reason"] == "content_filter"
    assert MARK not in found["choices"][0]["message"]["content"]
    assert "BAD" not in str(found["choices"])
    assert "redacted" not in found["wardgate"]["response"]
    assert 'wardgate_gate_outcomes_total{outcome="response_blocked"} 1.0' in metrics


def test_choices_are_redacted_one_by_one(url: str, told: Told) -> None:
    told.whole = completion("BAD")
    first = told.whole["choices"][0]
    others: list[Json] = [{"content": "Good."}, {"content": "BAD", "refusal": "BAD"}]
    told.whole["choices"] += [
        {**first, "index": index, "message": message} for index, message in enumerate(others, 1)
    ]
    answer = post(url, chat_body(n=3))
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts[:2] == [MARK, "Good."]
    assert [c["finish_reason"] for c in answer["choices"]] == ["stop", "stop", "content_filter"]


def test_a_choice_that_is_listed_twice_says_its_text_once(url: str, told: Told) -> None:
    told.whole = completion("BA")
    told.whole["choices"].append({"index": 0, "message": {"content": "D"}})
    choices = post(url, chat_body())["choices"]
    assert [choice["message"].get("content") for choice in choices] == [MARK, None]


def test_an_answer_is_blocked_that_does_not_pass_when_it_is_redacted(told: Told) -> None:
    told.whole = completion("BAD")
    with gate(told, redacted_text="BAD itself") as url:
        answer = post(url, chat_body())
    assert "BAD" not in str(answer["choices"])
    assert answer["choices"][0]["finish_reason"] == "content_filter"


def test_texts_of_completions(url: str, told: Told) -> None:
    choice = {"index": 0, "text": "BAD", "logprobs": {"tokens": ["BAD"]}, "finish_reason": "stop"}
    told.whole = {"id": "c", "object": "text_completion", "model": "m", "choices": [choice]}
    (found,) = post(url, {"model": "m", "prompt": "Hi"}, "completions")["choices"]
    assert found == {"index": 0, "text": MARK, "logprobs": None, "finish_reason": "stop"}


def test_of_an_answer_of_responses_the_part_is_replaced(url: str, told: Told) -> None:
    first, second = message("BAD", tokens=[66, 65, 68]), message("Good.", 1, note=7)
    first |= {"index": 1, "token_ids": [66, 65, 68]}  # not where it stands
    (part,) = first["content"]
    cited = {"type": "url_citation", "start_index": 0, "end_index": 3, "url": "http://x.example"}
    part |= {"annotations": [cited], "logprobs": LOGPROBS["content"]}
    told.whole = response(first, second | {"index": 0})
    body = {"model": "any", "input": "Hi"}
    answer = post(url, body, "responses")
    report = answer.pop("wardgate")["response"]
    assert answer == response(message(MARK), second | {"index": 0})
    assert (report["passed"], report["action"]) == (True, "redact")
    assert report["redacted"] == [
        {"choice": 0, "field": "output[1].content[0].text", "policies": ["harassment"]}
    ]
    # the server remembers what was replaced, so nobody may go on from it
    again = httpx.post(f"{url}/v1/responses", json=body | {"previous_response_id": answer["id"]})
    assert error_of(again, 400)["code"] == "unseen_history"


@pytest.mark.parametrize(
    "output",
    [
        pytest.param([message("BAD"), call("f", '{"a": "BAD"}')], id="a call as well"),
        pytest.param([reasoning("BAD"), message("BAD")], id="reasoning as well"),
        pytest.param([message("BAD"), message("Fine.", 1, logprobs=LOGPROBS)], id="tokens alone"),
        pytest.param([message("BAD", note="BAD")], id="an unknown field"),
        pytest.param([message("BAD"), message("WORSE", 1)], id="another policy blocks"),
    ],
)
def test_an_answer_of_responses_that_violates_elsewhere_is_blocked(
    told: Told, output: list[Json]
) -> None:
    told.whole = response(*output)
    with gate(told, policy_set="redacting_or_blocking") as url:
        answer = post(url, {"model": "any", "input": "Hi"}, "responses")
    assert answer["status"] == "incomplete"
    assert "BAD" not in str(answer["output"])
    assert MARK not in str(answer["output"])


def test_images_are_removed_and_prompts_for_them_blocked(url: str, told: Told) -> None:
    images = [{"b64_json": image.partition(",")[2]} for image in (TALL, WIDE)]
    told.whole = {"created": 1, "data": images}
    answer = post(url, {"model": "any", "prompt": "A boat."}, "images/generations")
    assert [image["b64_json"] for image in answer["data"]] == [images[0]["b64_json"], None]
    refused = httpx.post(
        f"{url}/v1/images/generations", json={"model": "any", "prompt": "BAD"}, timeout=20
    )
    assert error_of(refused, 400)["code"] == "content_filter"
    assert len(told.asked) == 1


def test_the_generator_of_this_process_reads_and_says_what_is_left() -> None:
    generator = RecitingGenerator(["This is ", "BAD."])
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with serving(moderator, generator, policy_set="redacting", pre_filter="hidden") as url:
        answer = post(url, chat_body("BAD"))
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (MARK, "stop")
    assert [answer["wardgate"][side]["action"] for side in ("prompt", "response")] == ["redact"] * 2
