"""The end of a text waits for more of it, but not for ever: reasoning ends where content begins."""

import httpx

from tests.service.scripted import (
    ScriptedEngine,
    bad_is_bad,
    chat_body,
    scripted_moderator,
    serving,
)
from tests.service.upstream_server import DONE, Json, Pause, Step, Told, chunk, upstream_server

HOLD_BACK = 20
SENTENCE = "One more sentence. "  # nearly as long


def answered(steps: list[Step], until: str = "[DONE]") -> str:
    """What leaves of a stream: up to a text, its end, or a long silence."""
    told = Told(steps=steps)
    with (
        upstream_server(told) as upstream,
        serving(
            scripted_moderator(ScriptedEngine(bad_is_bad)),
            upstreams={"one": {"base_url": upstream}},
            hold_back_chars=HOLD_BACK,
        ) as url,
        httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=chat_body(stream=True), timeout=20
        ) as response,
    ):
        got = ""
        for line in response.iter_lines():
            got += line + "\n"
            if until in got or line.startswith(":"):
                return got
        return got


def reasoned(text: str) -> Json:
    return chunk({"reasoning_content": text})


def test_content_does_not_wait_for_the_end_of_the_reasoning_before_it() -> None:
    content = [chunk({"content": f"{n}. {SENTENCE}"}) for n in range(12)]
    got = answered([reasoned("So I think."), *content, Pause(30), DONE], until="5. One")
    assert "So I think." in got
    assert "5. One" in got


def test_a_short_interruption_does_not_let_the_beginning_of_a_violation_out() -> None:
    steps: list[Step] = [
        reasoned("So I think. B"),
        chunk({"content": SENTENCE}),
        chunk({"content": SENTENCE}),
        Pause(0.5),
        reasoned("AD"),
        chunk({}, "stop"),
        DONE,
    ]
    got = answered(steps)
    assert " B" not in got
    assert "content_filter" in got


def test_what_goes_on_after_a_long_interruption_is_still_checked() -> None:
    content = [chunk({"content": SENTENCE}) for _ in range(8)]
    steps: list[Step] = [
        reasoned("So I think."),
        *content,
        Pause(0.3),
        reasoned(" BAD"),
        *content,
        DONE,
    ]
    got = answered(steps)
    assert "So I think." in got
    assert "BAD" not in got
    assert "content_filter" in got
