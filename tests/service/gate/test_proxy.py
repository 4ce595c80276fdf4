"""A server of one's own behind the gate: what reaches it, what leaves, what is stopped."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, RedirectResponse

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
    Die,
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


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(bad_is_bad)


@pytest.fixture
def url(told: Told, engine: ScriptedEngine) -> Iterator[str]:
    with (
        upstream_server(told) as upstream,
        serving(scripted_moderator(engine), **behind(upstream)) as url,
    ):
        yield url


def behind(upstream: str, **more: Any) -> dict[str, Any]:
    return {"upstreams": {"test": {"base_url": upstream, **more}}}


def ask(url: str, body: Json, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def streamed(url: str, told: Told, steps: list[Step], **body: Any) -> list[Json]:
    told.steps = steps
    return stream_events(ask(url, chat_body(stream=True, **body)))


def reasons(events: list[Json]) -> dict[int, str]:
    return {
        choice["index"]: choice["finish_reason"]
        for event in events
        for choice in event.get("choices", ())
        if choice["finish_reason"]
    }


def test_a_request_reaches_the_server_as_it_was_sent(url: str, told: Told) -> None:
    told.whole = completion("Fine.")
    body = chat_body(top_k=3, min_p=0.1, chat_template_kwargs={"thinking": True}, n=1, seed=2**60)
    assert ask(url, body).status_code == 200
    assert told.asked == [body]


def test_an_answer_comes_back_as_it_was_made(url: str, told: Told) -> None:
    told.whole = completion("Fine.", reasoning_content="So.") | {"system_fingerprint": "fp_1"}
    answer = ask(url, chat_body()).json()
    report = answer.pop("wardgate")
    assert answer == told.whole
    assert report["prompt"]["passed"]
    assert report["response"]["passed"]


def test_an_upstream_cannot_write_the_gates_report(url: str, told: Told) -> None:
    forged = {"wardgate": {"prompt": {"verdict": "BAD"}}}
    told.whole = completion("Fine.") | forged
    answer = ask(url, chat_body()).json()
    assert answer["choices"][0]["message"]["content"] == "Fine."
    assert answer["wardgate"]["prompt"]["passed"] is True
    events = streamed(url, told, [chunk({"content": "Fine."}) | forged, *said("Yes.")])
    assert streamed_text(events) == "Fine.Yes."
    assert [e["wardgate"]["prompt"]["passed"] for e in events if "wardgate" in e] == [True]


def test_chunks_come_back_as_they_were_made(url: str, told: Told) -> None:
    usage = {**chunk({}), "choices": [], "usage": {"x": 1}}
    steps: list[Step] = [*said("One. ", "Two.")[:-1], usage, DONE]
    events = streamed(url, told, steps)
    events[-2].pop("wardgate")
    assert events == steps[:-1]


def test_the_callers_key_is_passed_on_and_nothing_else(url: str, told: Told) -> None:
    told.whole = completion("Fine.")
    ask(url, chat_body(), authorization="Bearer mine", cookie="a=b", **{"x-api-key": "other"})
    (headers,) = told.headers
    assert headers["authorization"] == "Bearer mine"
    assert "cookie" not in headers
    assert "x-api-key" not in headers


def test_a_key_of_the_upstream_takes_the_place_of_the_callers(told: Told) -> None:
    told.whole = completion("Fine.")
    moderator = scripted_moderator(ScriptedEngine(bad_is_bad))
    with (
        upstream_server(told) as upstream,
        serving(moderator, **behind(upstream, api_key="ours")) as url,
    ):
        ask(url, chat_body(), authorization="Bearer mine")
        told.whole = JSONResponse({"error": {"message": "no such key"}}, 401)
        refused = error_of(ask(url, chat_body()), 502)
    assert told.headers[0]["authorization"] == "Bearer ours"
    assert refused["code"] == "upstream_refused"


def whole_with(**message: Any) -> Json:
    return completion("Fine.", **message)


def calling(name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return whole_with(tool_calls=[{"id": "call_1", "type": "function", "function": function}])


LOGPROBS = {"content": [{"token": "Fine", "logprob": -1.0, "top_logprobs": [{"token": "BAD"}]}]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole_with(reasoning_content="BAD"), id="reasoning"),
        pytest.param(whole_with(refusal="BAD"), id="refusal"),
        pytest.param(
            calling("f", '{"a": "BAD"}'),
            id="arguments",
        ),
        pytest.param(
            calling("f", '"\\u0042AD"'),
            id="escaped arguments",
        ),
        pytest.param(calling("BAD", "{}"), id="name of a tool"),
        pytest.param(whole_with(audio={"transcript": "BAD"}), id="transcript"),
        pytest.param(whole_with(unheard_of={"deep": [["BAD"]]}), id="unknown field"),
        pytest.param(whole_with(**{"a key that is BAD": 1}), id="key"),
        pytest.param(whole_with(role="This is BAD"), id="sentence for a role"),
        pytest.param(completion("Fine.") | {"id": "This is BAD"}, id="sentence for an id"),
        pytest.param(completion("Fine.") | {"note": "BAD"}, id="beside the choices"),
        pytest.param(completion("Fine.") | {"choices": ["BAD"]}, id="choice of a strange form"),
        pytest.param(completion("Fine.") | {"choices": "BAD"}, id="choices of a strange form"),
        pytest.param(
            completion("Fine.")
            | {
                "choices": [
                    {"index": 0, "message": {"content": "Fine."}, "logprobs": LOGPROBS},
                ]
            },
            id="alternatives of tokens",
        ),
    ],
)
def test_every_text_of_an_answer_is_content(url: str, told: Told, answer: Json) -> None:
    told.whole = answer
    response = ask(url, chat_body())
    assert "BAD" not in response.text
    body = response.json()
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["wardgate"]["response"]["passed"] is False


@pytest.mark.parametrize(
    "delta",
    [
        pytest.param({"content": "BAD"}, id="content"),
        pytest.param({"reasoning_content": "BAD"}, id="reasoning"),
        pytest.param({"refusal": "BAD"}, id="refusal"),
        pytest.param(
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": "\\u0042AD'}}]},
            id="arguments that are not finished",
        ),
        pytest.param({"tool_calls": [{"index": 0, "function": {"name": "BAD"}}]}, id="tool"),
        pytest.param({"unheard_of": ["BAD"]}, id="unknown field"),
    ],
)
def test_every_text_of_a_chunk_is_content(url: str, told: Told, delta: Json) -> None:
    good = {"content": "A good first sentence. "}
    told.steps = [chunk(good), Pause(0.3), chunk(delta), chunk({"content": "More."}), DONE]
    response = ask(url, chat_body(stream=True))
    assert "BAD" not in response.text
    events = stream_events(response)
    assert streamed_text(events) == "A good first sentence. "
    assert reasons(events) == {0: "content_filter"}
    blocked = events[-1]["wardgate"]["blocked"]
    assert (blocked["choice"], blocked["policies"], blocked["retract"]) == (0, ["harassment"], None)


def test_a_text_that_is_cut_anywhere_is_one_text(url: str, told: Told) -> None:
    calls = [
        {"tool_calls": [{"index": 1, "function": {"arguments": piece}}]}
        for piece in ("B", "A", "D")
    ]
    others = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in "xyz"]
    mixed = [chunk(delta) for pair in zip(calls, others, strict=True) for delta in pair]
    events = streamed(url, told, [*mixed, chunk({}, "tool_calls"), DONE])
    assert reasons(events) == {0: "content_filter"}
    assert not any(choice["delta"] for event in events for choice in event["choices"])


def test_choices_are_cut_off_one_by_one(url: str, told: Told) -> None:
    steps: list[Step] = [
        chunk({"content": "Good. "}),
        chunk({"content": "BAD "}, index=1),
        chunk({"content": "Also good."}),
        chunk({}, "stop", index=1),
        chunk({}, "stop"),
        DONE,
    ]
    events = streamed(url, told, steps, n=2)
    assert streamed_text(events) == "Good. Also good."
    assert reasons(events) == {0: "stop", 1: "content_filter"}


def test_of_a_whole_answer_only_the_choice_that_violates_is_replaced(url: str, told: Told) -> None:
    told.whole = completion("Good.")
    told.whole["choices"].append({"index": 1, "message": {"content": "BAD"}})
    choices = ask(url, chat_body(n=2)).json()["choices"]
    assert [c["finish_reason"] for c in choices] == ["stop", "content_filter"]
    assert choices[0]["message"]["content"] == "Good."
    assert "blocked by" in choices[1]["message"]["content"]


def test_a_choice_that_has_ended_leaves_while_others_go_on(url: str, told: Told) -> None:
    told.steps = [
        chunk({"content": "First."}),
        chunk({}, "stop"),
        Pause(1.0),
        chunk({"content": "Second."}, index=1),
        chunk({}, "stop", index=1),
        DONE,
    ]
    body = chat_body(stream=True, n=2)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=10) as response:
        lines = (line for line in response.iter_lines() if line)
        first = [next(lines), next(lines)]
        assert told.sent < 4, "they left before the second choice came"
        assert "First." in first[0]
        assert '"finish_reason":"stop"' in first[1]
        assert list(lines)[-1] == "data: [DONE]"


def test_the_server_sees_that_an_answer_is_not_wanted_any_more(url: str, told: Told) -> None:
    more: list[Step] = [Pause(0.05), chunk({"content": "more "})]
    steps: list[Step] = [chunk({"content": "BAD "}), *more * 200, DONE]
    events = streamed(url, told, steps)
    assert reasons(events) == {0: "content_filter"}
    assert told.left.wait(5)
    assert told.sent < 100


def test_a_server_that_dies_leaves_what_passed_and_an_error(url: str, told: Told) -> None:
    events = streamed(url, told, [*said("Something. ", "And half a")[:-2], Die()])
    assert streamed_text(events) == "Something. And half a"
    assert events[-1]["error"]["code"] == "upstream_broke"
    assert reasons(events) == {}


def test_what_a_dying_server_said_is_checked_all_the_same(url: str, told: Told) -> None:
    events = streamed(url, told, [chunk({"content": "BAD"}), Die()])
    assert streamed_text(events) == ""
    assert reasons(events) == {0: "content_filter"}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        pytest.param([Raw(b"data: {\n\n")], "no JSON", id="no JSON"),
        pytest.param([Raw(b"data: [1]\n\n")], "no object", id="no object"),
        pytest.param([Raw(b'data: {"a": NaN}\n\n')], "no JSON", id="not a number"),
        pytest.param([], "without [DONE]", id="no end"),
        pytest.param([{"error": {"message": "BAD"}}], "an error", id="an error"),
    ],
)
@pytest.mark.parametrize("has_begun", [True, False])
def test_nonsense_in_a_stream_is_an_error(
    url: str, told: Told, steps: list[Step], words: str, has_begun: bool
) -> None:
    told.steps = [*([chunk({"role": "assistant"})] if has_begun else []), *steps]
    response = ask(url, chat_body(stream=True))
    error = stream_events(response)[-1]["error"] if has_begun else error_of(response, 502)
    assert error["code"] == "upstream_broke"
    assert words in error["message"]
    assert "BAD" not in response.text


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        pytest.param(
            JSONResponse({"error": {"message": "max_tokens is too large"}}, 400),
            400,
            "upstream_refused",
            "max_tokens is too large",
            id="its own 4xx with its words",
        ),
        pytest.param(
            JSONResponse({"error": {"message": "you said BAD"}}, 400),
            400,
            "upstream_refused",
            "status 400",
            id="words that do not pass",
        ),
        pytest.param(
            JSONResponse({"detail": "slow down"}, 429, {"retry-after": "7"}),
            429,
            "upstream_refused",
            "slow down",
            id="429",
        ),
        pytest.param(JSONResponse({}, 500), 502, "upstream_refused", "status 500", id="5xx"),
        pytest.param(
            RedirectResponse("http://127.0.0.1:9/"), 502, "upstream_refused", "307", id="redirect"
        ),
        pytest.param(JSONResponse([1]), 502, "upstream_broke", "no object", id="no object"),
    ],
)
def test_what_a_server_refuses_is_told(
    url: str, told: Told, answer: Any, status: int, code: str, words: str
) -> None:
    told.whole = answer
    response = ask(url, chat_body())
    error = error_of(response, status)
    assert error["code"] == code
    assert words in error["message"]
    assert "BAD" not in response.text
    if status == 429:
        assert response.headers["retry-after"] == "7"


def test_a_server_that_is_not_there_is_502() -> None:
    with serving(**behind("http://127.0.0.1:9/v1")) as url:
        error = error_of(ask(url, chat_body()), 502)
        assert error["code"] == "upstream_unavailable"
        assert "cannot be reached" in error["message"]


def test_a_server_that_falls_silent_is_504_or_an_event(told: Told) -> None:
    with (
        upstream_server(told) as upstream,
        serving(**behind(upstream, silence_s=0.3)) as url,
    ):
        events = streamed(url, told, [chunk({"content": "So far. "}), Pause(5), DONE])
    assert streamed_text(events) == "So far. "
    assert events[-1]["error"]["code"] == "upstream_timeout"


def test_models_go_to_the_upstreams_that_answer_them() -> None:
    first, second = Told(whole=completion("First.")), Told(whole=completion("Second."))
    with upstream_server(first) as one, upstream_server(second) as two:
        upstreams = {"one": {"base_url": one, "models": ["a"]}, "two": {"base_url": two}}
        with serving(upstreams=upstreams) as url:
            texts = [
                ask(url, chat_body() | {"model": model}).json()["choices"][0]["message"]["content"]
                for model in ("a", "b")
            ]
            models = httpx.get(f"{url}/v1/models").json()["data"]
        assert texts == ["First.", "Second."]
        assert [model["id"] for model in models] == ["a", "embedded"]
        with serving(upstreams={"one": {"base_url": one, "models": ["a"]}}) as url:
            error = error_of(ask(url, chat_body() | {"model": "b"}), 404)
            assert error["code"] == "model_not_found"


def test_completions_without_roles(url: str, told: Told) -> None:
    def say(text: str) -> Json:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
        return {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [choice]}

    def complete(**body: Any) -> Json:
        answer = httpx.post(f"{url}/v1/completions", json={"model": "m", **body}, timeout=10)
        found: Json = answer.json()
        return found

    told.whole = say("Fine.")
    assert complete(prompt="Hi")["choices"][0]["text"] == "Fine."
    for blocked in (
        {"prompt": "BAD"},
        {"prompt": ["Hi", "BAD"]},
        {"prompt": "Hi", "suffix": "BAD"},
    ):
        assert complete(**blocked)["choices"][0]["finish_reason"] == "content_filter"
    assert len(told.asked) == 1, "the server saw none of these"
    told.whole = say("BAD")
    assert complete(prompt="Hi there")["choices"][0]["finish_reason"] == "content_filter"
    assert complete(prompt=[1, 2])["error"]["code"] == "unsupported_parameter"
