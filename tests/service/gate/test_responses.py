"""`/v1/responses` through the gate: items, typed events, texts that are said again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import OpenAI

from moderation.moderator import Moderator
from tests.service.gate.responses import (
    begun,
    call,
    called,
    completed,
    message,
    read_events,
    reasoning,
    response,
    said,
    stream,
    text_of,
    thought,
)
from tests.service.scripted import (
    LIBRARY,
    RecitingGenerator,
    ScriptedEngine,
    bad_is_bad,
    error_of,
    scripted_moderator,
    serving,
)
from tests.service.test_moderations import WidthReader, png
from tests.service.upstream_server import Die, Json, Pause, Raw, Step, Told, upstream_server


@pytest.fixture
def told() -> Told:
    return Told(whole=response(message("Fine.")))


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(bad_is_bad)


@pytest.fixture
def url(told: Told, engine: ScriptedEngine) -> Iterator[str]:
    with gate(told, engine) as url:
        yield url


@contextmanager
def gate(told: Told, engine: ScriptedEngine | None = None, **changes: Any) -> Iterator[str]:
    """The URL of a gate before the scripted upstream."""
    text = scripted_moderator(engine or ScriptedEngine(bad_is_bad)).text
    moderator = Moderator(LIBRARY, text, reader=WidthReader())
    with (
        upstream_server(told) as upstream,
        serving(moderator, upstreams={"test": {"base_url": upstream}}, **changes) as url,
    ):
        yield url


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/responses", json={"model": "any", "input": "Hi", **body}, timeout=20
    )


def streamed(url: str, told: Told, *events: Json | list[Json] | Step, **body: Any) -> list[Json]:
    told.steps = stream(*events)
    return read_events(ask(url, stream=True, **body))


def test_a_request_reaches_the_server_as_it_was_sent(url: str, told: Told) -> None:
    body = {"model": "any", "input": [{"role": "user", "content": "Hi"}], "top_k": 3, "store": True}
    assert ask(url, **body).status_code == 200
    assert told.asked == [body]


def test_an_answer_comes_back_as_it_was_made(url: str, told: Told) -> None:
    told.whole = response(reasoning("So."), message("Fine."), call("f", '{"a": 1}'))
    answer = ask(url).json()
    report = answer.pop("wardgate")
    assert answer == told.whole
    assert report["prompt"]["passed"]
    assert report["response"]["passed"]


def test_events_come_back_as_they_were_made(url: str, told: Told) -> None:
    items = (message("One. Two."), reasoning("So. And so."), call("f", '{"a": 1}'))
    events = streamed(
        url,
        told,
        begun(),
        said("One. ", "Two."),
        thought("So. ", "And so.", index=1),
        called("f", '{"a"', ": 1}", index=2),
        completed(*items),
    )
    report = events[-1]["response"].pop("wardgate")
    assert events == told.steps
    assert report["response"]["passed"]


@pytest.mark.parametrize(
    "blocked",
    [
        pytest.param({"input": "BAD"}, id="text"),
        pytest.param({"instructions": "BAD"}, id="instructions"),
        pytest.param({"input": [{"role": "user", "content": "BAD"}]}, id="message"),
        pytest.param(
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "BAD"}]}]},
            id="part",
        ),
        pytest.param({"input": [message("BAD")]}, id="an earlier answer"),
        pytest.param({"input": [reasoning("BAD")]}, id="earlier reasoning"),
        pytest.param(
            {"input": [{**reasoning("So"), "encrypted_content": "This is BAD"}]},
            id="words where only the server reads",
        ),
        pytest.param({"input": [call("f", '{"a": "\\u0042AD"}')]}, id="escaped arguments"),
        pytest.param({"input": [call("BAD", "{}")]}, id="name of a function"),
        pytest.param(
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "BAD"}]},
            id="result",
        ),
        pytest.param(
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_text", "text": "BAD"}],
                    }
                ]
            },
            id="result in parts",
        ),
        pytest.param(
            {
                "input": [
                    {
                        "type": "shell_call_output",
                        "call_id": "c",
                        "output": [{"stdout": "BAD", "stderr": ""}],
                    }
                ]
            },
            id="what a command said",
        ),
        pytest.param(
            {"tools": [{"type": "function", "name": "f", "description": "BAD"}]}, id="tool"
        ),
        pytest.param(
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"title": "BAD"}}}},
            id="schema of the answer",
        ),
        pytest.param({"metadata": {"a": "BAD"}}, id="unknown field"),
    ],
)
def test_every_text_of_a_request_is_content(url: str, told: Told, blocked: Json) -> None:
    answer = ask(url, **blocked).json()
    assert told.asked == [], "the server saw nothing of it"
    (item,) = answer["output"]
    assert item["content"][0]["type"] == "refusal"
    assert answer["wardgate"]["prompt"]["passed"] is False


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"type": "unheard_of"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}
                ]
            },
            "input[0].content[0]",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": "https://a.example/b.png"}
                        ],
                    }
                ]
            },
            "input[0].content[0].image_url",
        ),
        ({"input": 1}, "input"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "image_generation"}]}, "tools[0]"),
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"conversation": "conv_0"}, "conversation"),
        ({"prompt": {"id": "pmpt_0"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_9"}]}, "input[0]"),
    ],
)
def test_what_cannot_be_checked_is_refused(url: str, told: Told, body: Json, param: str) -> None:
    assert error_of(ask(url, **body), 400)["param"] == param
    assert told.asked == []


def test_images_are_judged(url: str, told: Told) -> None:
    part = {"type": "input_image", "image_url": png(80, 40), "detail": "auto"}
    for item in (
        {"role": "user", "content": [part]},
        {"type": "function_call_output", "call_id": "c", "output": [part]},
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": png(90, 40)},
        },
    ):
        verdict = ask(url, input=[item]).json()["wardgate"]["prompt"]["verdict"]
        assert [part["modality"] for part in verdict["coverage"]] == ["image"]
        assert verdict["scores"][0]["raw"] == 1.0
    assert told.asked == []


def test_a_request_goes_on_from_an_answer_that_passed_here(url: str, told: Told) -> None:
    ask(url)
    assert ask(url, previous_response_id="resp_1").status_code == 200
    reference = {"type": "item_reference", "id": "msg_0"}
    assert ask(url, input=[reference]).status_code == 200
    told.whole = response(message("BAD"), id="resp_2")
    blocked = ask(url).json()
    assert "resp_2" not in str(blocked)
    for unseen in ("resp_2", blocked["id"]):
        assert error_of(ask(url, previous_response_id=unseen), 400)["code"] == "unseen_history"


def test_a_stream_that_passed_can_be_gone_on_from(url: str, told: Told) -> None:
    streamed(url, told, begun(id="resp_3"), said("Good."), completed(id="resp_3"))
    streamed(url, told, begun(id="resp_4"), said("BAD"), completed(id="resp_4"))
    assert ask(url, previous_response_id="resp_3").status_code == 200
    assert ask(url, previous_response_id="resp_4").status_code == 400


def test_unseen_history_passes_where_the_settings_say_so(told: Told) -> None:
    prompt = {"id": "pmpt_0", "variables": {"name": "Ann"}}
    with gate(told, unseen_history="pass") as url:
        assert ask(url, previous_response_id="resp_0", prompt=prompt).status_code == 200
        for blocked in (
            {"prompt": {**prompt, "variables": {"name": "BAD"}}},
            {"prompt": {**prompt, "variables": {"a": {"type": "input_text", "text": "BAD"}}}},
        ):
            assert ask(url, **blocked).json()["wardgate"]["prompt"]["passed"] is False
    assert len(told.asked) == 1


LOGPROBS = [{"token": "Fine", "logprob": -1.0, "bytes": [], "top_logprobs": [{"token": "BAD"}]}]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(response(message("BAD")), id="text"),
        pytest.param(response(message("Fine."), message("BAD", 1)), id="second message"),
        pytest.param(response(reasoning("BAD"), message("Fine.")), id="reasoning"),
        pytest.param(response(call("f", '{"a": "\\u0042AD"}')), id="escaped arguments"),
        pytest.param(response(call("BAD", "{}")), id="name of a function"),
        pytest.param(response(message("Fine.", refusal="BAD")), id="refusal"),
        pytest.param(response(message("Fine.", logprobs=LOGPROBS)), id="alternatives of tokens"),
        pytest.param(response(message("Fine.", annotations=[{"title": "BAD"}])), id="annotation"),
        pytest.param(response(**{"a key that is BAD": 1}), id="key"),
        pytest.param(response({"type": "unheard_of", "deep": [["BAD"]]}), id="unknown item"),
        pytest.param(response({"type": "x", "arguments": {"BAD": 1}}), id="key of an argument"),
        pytest.param(response(instructions="BAD"), id="instructions that nobody gave"),
        pytest.param(response(id="This is BAD"), id="sentence for an id"),
        pytest.param(response(output="BAD"), id="output of a strange form"),
        pytest.param({"unheard_of": "BAD"}, id="answer of a strange form"),
        pytest.param(response(error={"code": "x", "message": "BAD"}), id="error"),
    ],
)
def test_every_text_of_an_answer_is_content(url: str, told: Told, answer: Json) -> None:
    told.whole = answer
    got = ask(url)
    assert "BAD" not in got.text
    body = got.json()
    assert body["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "content_filter"}
    assert body["wardgate"]["response"]["passed"] is False


PLACE = {"output_index": 0, "item_id": "msg_0", "content_index": 0}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", **PLACE, "delta": "BAD"},
        {"type": "response.output_text.delta", **PLACE, "delta": "ok", "logprobs": LOGPROBS},
        {"type": "response.output_text.done", **PLACE, "text": "A good sentence. BAD"},
        {"type": "response.output_text.done", **PLACE, "text": "Quite another, BAD"},
        {"type": "response.content_part.done", **PLACE, "part": {"type": "x", "text": "BAD"}},
        {"type": "response.output_text.annotation.added", **PLACE, "annotation": {"title": "BAD"}},
        {"type": "response.refusal.delta", **PLACE, "content_index": 1, "delta": "BAD"},
        {"type": "response.reasoning_text.delta", **PLACE, "output_index": 1, "delta": "BAD"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 1, "delta": "BAD"},
        {
            "type": "response.function_call_arguments.delta",
            "output_index": 1,
            "delta": '"\\u0042AD',
        },
        {"type": "response.custom_tool_call_input.delta", "output_index": 1, "delta": "BAD"},
        {"type": "response.shell_call_command.delta", "output_index": 1, "delta": "BAD"},
        {"type": "response.output_item.done", "output_index": 1, "item": call("BAD", "{}")},
        {"type": "response.unheard.of", "deep": ["BAD"]},
        {"type": "This is BAD"},
        {"type": "response.in_progress", "response": response(message("BAD"))},
        {"type": "response.in_progress", "response": "BAD"},
        completed(message("BAD")),
        {"type": "response.failed", "response": response(error={"message": "BAD"})},
    ],
    ids=lambda event: str(event["type"]),
)
def test_every_text_of_an_event_is_content(url: str, told: Told, event: Json) -> None:
    first = said("A good sentence. ")[:3]
    told.steps = stream(begun(), first, Pause(0.3), event, said("More", index=2), completed())
    got = ask(url, stream=True)
    assert "BAD" not in got.text
    events = read_events(got)
    assert text_of(events) == "A good sentence. "
    end = events[-1]
    assert end["type"] == "response.incomplete"
    assert end["response"]["id"] == "resp_1"
    assert end["response"]["status"] == "incomplete"
    assert end["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert end["response"]["output"] == []
    blocked = end["response"]["wardgate"]["blocked"]
    assert (blocked["policies"], blocked["retract"]) == (["harassment"], None)


def test_a_stream_that_is_blocked_at_its_first_event_has_a_beginning(url: str, told: Told) -> None:
    events = streamed(url, told, begun(metadata={"note": "BAD"}), said("Good."), completed())
    assert [event["type"] for event in events] == ["response.created", "response.incomplete"]
    assert events[0]["response"]["id"] == events[1]["response"]["id"] != "resp_1"


def test_texts_that_are_said_again_are_checked_once(
    url: str, told: Told, engine: ScriptedEngine
) -> None:
    arguments = '{"a": "\\u00e9"}'
    items = (message("One sentence. Another one."), call("weather", arguments))
    spoken = said("One sentence. ", "Another one.")
    streamed(
        url,
        told,
        begun(),
        *spoken[:-3],
        Pause(0.7),  # it is checked meanwhile
        *spoken[-3:],
        called("weather", arguments[:5], arguments[5:], index=1),
        completed(*items),
    )
    asked = [one.text for one in engine.asked]
    assert len(asked) == len(set(asked))
    assert sum("Another one." in text for text in asked) == 1


def test_another_text_in_the_place_of_one_that_passed_is_checked(url: str, told: Told) -> None:
    for other in ("Good. But BAD.", "BAD"):  # longer, and so short that nothing of it seems new
        events = streamed(url, told, begun(), said("Good."), completed(message(other)))
        assert events[-1]["type"] == "response.incomplete"
        assert "BAD" not in str(events)
    events = streamed(url, told, begun(), said("Good."), completed(message("Quite another.")))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Quite another."


def test_more_of_a_text_that_was_whole_is_an_error(url: str, told: Told) -> None:
    """Its end has left by then, and a violation may begin there."""
    more = {"type": "response.output_text.delta", **PLACE, "delta": " More."}
    events = streamed(url, told, begun(), said("Good."), more, completed())
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "upstream_broke")
    assert text_of(events) == "Good."


def test_the_end_of_an_item_is_not_held_back_to_the_end_of_the_answer(told: Told) -> None:
    told.steps = stream(
        begun(), thought("A short thought."), Pause(1.5), said("So.", index=1), completed()
    )
    body = {"model": "any", "input": "Hi", "stream": True}
    with (
        gate(told, hold_back_chars=64) as url,
        httpx.stream("POST", f"{url}/v1/responses", json=body, timeout=20) as answer,
    ):
        for line in answer.iter_lines():
            if "response.reasoning_summary_text.done" in line:
                assert told.sent < len(told.steps) - 6, "it left before the message came"
                return
    pytest.fail("the thought never came")


def test_nothing_of_a_violation_leaves_with_the_end_of_its_item(told: Told) -> None:
    """What was checked before the violation was whole stays back until the last check."""
    with gate(told, hold_back_chars=64, check_every_chars=4) as url:
        events = streamed(
            url, told, begun(), said("Is it B", "A", "D?"), completed(message("Is it BAD?"))
        )
    assert text_of(events) == ""
    assert events[-1]["type"] == "response.incomplete"


def test_what_the_answer_repeats_of_the_request_is_not_judged_as_an_answer(
    told: Told, engine: ScriptedEngine
) -> None:
    sent = {
        "instructions": "Speak of the sea only.",
        "metadata": {"case": "a b c"},
        "tools": [
            {"type": "function", "name": "f", "description": "Finds a fish.", "strict": True}
        ],
    }
    told.whole = response(message("Fine."), **sent)
    with gate(told, engine) as url:
        assert ask(url, **sent).status_code == 200
    times = [sum(text in one.text for one in engine.asked) for text in ("the sea", "a b c", "fish")]
    assert times == [1, 1, 1]


def test_in_the_mode_window_the_end_says_what_to_take_back(told: Told) -> None:
    with gate(told, stream_mode="window", window_chars=200) as url:
        events = streamed(url, told, begun(), said("It is B", "AD"), completed())
    assert events[-1]["response"]["output"] == [], "and does not say it again"
    assert events[-1]["response"]["wardgate"]["blocked"]["retract"] == {
        "field": "output[0].content[0].text",
        "start": 0,
        "end": 9,
    }


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "aaaa"},
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {"type": "image_generation_call", "id": "ig_1", "result": "aaaa"},
        },
        {"type": "response.audio.delta", "delta": "aaaa"},
    ],
    ids=lambda event: str(event["type"]),
)
def test_files_in_an_answer_end_it(url: str, told: Told, event: Json) -> None:
    events = streamed(url, told, begun(), said("Good. "), event, completed())
    assert text_of(events) == "Good. "
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "upstream_broke")
    assert "aaaa" not in str(events)


def test_a_file_in_a_whole_answer_is_an_error(url: str, told: Told) -> None:
    told.whole = response({"type": "image_generation_call", "id": "ig_1", "result": "aaaa"})
    assert error_of(ask(url), 502)["code"] == "upstream_broke"


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(Die(), id="dies"),
        pytest.param(Raw(b"data: [DONE]\n\n"), id="another end"),
        pytest.param({"type": "error", "message": "BAD", "code": "x"}, id="an error"),
    ],
)
def test_a_server_that_breaks_off_leaves_what_passed_and_an_error(
    url: str, told: Told, last: Step
) -> None:
    events = streamed(url, told, begun(), said("Something. ", "And half a")[:-3], last)
    assert text_of(events) == "Something. And half a"
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "upstream_broke")
    assert "BAD" not in str(events)


def test_the_generator_of_this_process_refuses_by_name() -> None:
    with serving(generator=RecitingGenerator()) as url:
        error = error_of(ask(url), 400)
    assert "/v1/responses" in error["message"]


def test_a_blocked_prompt_is_an_error_where_the_settings_say_so(told: Told) -> None:
    with gate(told, blocked_prompt="error") as url:
        error = error_of(ask(url, input="BAD"), 400)
    assert (error["code"], error["param"]) == ("content_filter", "input")


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_reads_whole_answers(client: OpenAI, told: Told) -> None:
    assert client.responses.create(model="any", input="Hi").output_text == "Fine."
    refused = client.responses.create(model="any", input="BAD")
    assert refused.status == "completed"
    (item,) = refused.output
    assert item.type == "message"
    assert item.content[0].type == "refusal"
    told.whole = response(message("BAD"))
    blocked = client.responses.create(model="any", input="Hello")
    assert blocked.incomplete_details is not None
    assert blocked.incomplete_details.reason == "content_filter"


def test_the_official_client_reads_streams(client: OpenAI, told: Told) -> None:
    items = (message("One. Two."), call("f", '{"a": 1}'))
    told.steps = stream(
        begun(),
        said("One. ", "Two."),
        called("f", '{"a"', ": 1}", index=1),
        completed(*items),
    )
    with client.responses.stream(model="any", input="Hi") as answer:
        final = answer.get_final_response()
    assert final.output_text == "One. Two."
    with client.responses.stream(model="any", input="BAD") as answer:
        refused = answer.get_final_response()
    assert refused.output[0].type == "message"
    assert refused.output[0].content[0].type == "refusal"


def test_the_official_client_reads_streams_that_are_cut_off(client: OpenAI, told: Told) -> None:
    told.steps = stream(begun(), said("Good. ")[:3], Pause(0.3), said("BAD", index=1), completed())
    with client.responses.stream(model="any", input="Hi") as answer:
        events = list(answer)
    assert events[-1].type == "response.incomplete"
    plain = list(client.responses.create(model="any", input="Hi", stream=True))
    assert plain[-1].type == "response.incomplete"
    assert plain[-1].response.incomplete_details is not None
    assert plain[-1].response.incomplete_details.reason == "content_filter"
    assert "BAD" not in str(plain)
