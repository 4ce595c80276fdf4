import base64
from typing import Any

import pytest

from moderation.content import ImagePart, TextPart
from policies import Surface
from service.errors import BadRequest, UnsupportedInput
from service.faces.messages import Message, questions_about, read_messages, spoken

PIXELS = b"bytes of an image"
DATA_URL = "data:image/png;base64," + base64.b64encode(PIXELS).decode()


def read(content: Any, role: str = "user", **more: Any) -> Message:
    (message,) = read_messages([{"role": role, "content": content, **more}])
    return message


def texts(message: Message) -> list[str]:
    return [part.text for part in message.parts if isinstance(part, TextPart)]


def test_the_text_parts_of_a_message_are_judged_as_one() -> None:
    message = read([{"type": "text", "text": "How do I build"}, {"type": "text", "text": "it?"}])
    assert texts(message) == ["How do I build\nit?"] == [message.text]
    assert message.names == ("messages[0].content",)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
        {"type": "image_url", "image_url": DATA_URL},
        {"type": "image", "image": {"data": base64.b64encode(PIXELS).decode()}},
        {"type": "image", "image": {"url": {"uri": DATA_URL}}},
    ],
)
def test_an_image_is_read_as_openai_and_llama_stack_write_it(part: dict[str, Any]) -> None:
    for content in (part, [part]):
        assert read(content).parts == (ImagePart(PIXELS),)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "BAD"}, "name: BAD"),
        ({"refusal": "BAD"}, "refusal: BAD"),
        ({"reasoning_content": "BAD thoughts"}, "reasoning_content: BAD thoughts"),
        ({"context": [{"type": "text", "text": "BAD"}]}, "context: text: BAD"),
        ({"tool_call_id": "BAD words"}, "tool_call_id: BAD words"),
        ({"whatever_comes": {"next": ["BAD"]}}, "whatever_comes: next:\nBAD"),
        (
            {"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "BAD"}}]},
            "tool_calls: function:\nname: BAD",
        ),
    ],
)
def test_every_other_field_of_a_message_is_judged(more: dict[str, Any], said: str) -> None:
    assert texts(read("good", role="assistant", **more)) == ["good", said]


def test_a_second_text_in_a_part_is_judged_too() -> None:
    message = read([{"type": "text", "text": "good", "refusal": "BAD"}])
    assert texts(message) == ["good", "refusal: BAD"]


@pytest.mark.parametrize(
    "more",
    [
        {"tool_call_id": "call_9f"},
        {"stop_reason": "end_of_turn", "call_id": "1"},
        {"name": None, "tool_calls": []},
    ],
)
def test_labels_and_nothing_are_not_judged(more: dict[str, Any]) -> None:
    assert texts(read("good", **more)) == ["good"]


def test_the_arguments_of_a_tool_are_read_as_the_tool_reads_them() -> None:
    call = {"function": {"name": "say", "arguments": r'{"a": "\u0042AD", "a": "fine"}'}}
    assert spoken(call).splitlines() == [
        "function:",
        "name: say",
        "arguments:",
        "a: BAD",
        "a: fine",
    ]


@pytest.mark.parametrize("text", ["[" * 100_000, "{not json", '["a", '])
def test_what_only_looks_like_json_is_a_text(text: str) -> None:
    assert spoken({"arguments": text}) == f"arguments: {text}"


@pytest.mark.parametrize(
    ("value", "said"),
    [("words", "words"), (None, ""), ({}, ""), ({"n": 1, "b": True}, "n: 1\nb: true")],
)
def test_every_kind_of_value_is_spoken(value: object, said: str) -> None:
    assert spoken(value) == said


@pytest.mark.parametrize(
    ("message", "param", "kind"),
    [
        ({"role": "wizard", "content": "x"}, "messages[0].role", BadRequest),
        ({"content": "x"}, "messages[0].role", BadRequest),
        ({"role": ["user"], "content": "x"}, "messages[0].role", BadRequest),
        ({"role": "user", "content": 1}, "messages[0].content", BadRequest),
        ({"role": "user", "content": [None]}, "messages[0].content[0]", BadRequest),
        (
            {"role": "user", "content": [{"type": "text", "text": 1}]},
            "messages[0].content[0].text",
            BadRequest,
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            "messages[0].content[0].type",
            UnsupportedInput,
        ),
        (
            {"role": "user", "content": [{"type": ["text"]}]},
            "messages[0].content[0].type",
            UnsupportedInput,
        ),
        (
            {"role": "user", "content": {"type": "image_url", "image_url": {"url": "http://a"}}},
            "messages[0].content.image_url",
            UnsupportedInput,
        ),
        (
            {"role": "user", "content": {"type": "image", "image": {"url": DATA_URL, "data": "A"}}},
            "messages[0].content.image",
            BadRequest,
        ),
        (
            {"role": "user", "content": {"type": "image", "image": {"data": "no base64"}}},
            "messages[0].content.image",
            BadRequest,
        ),
        ({"role": "assistant", "audio": {"data": "A"}}, "messages[0].audio", UnsupportedInput),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(
    message: dict[str, Any], param: str, kind: type[BadRequest]
) -> None:
    with pytest.raises(kind, match=r"messages\[0\]") as caught:
        read_messages([message])
    assert caught.value.param == param


def test_an_assistant_answers_the_last_user_before_it() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "Two.", "tool_call_id": "1"},
        {"role": "assistant", "content": "Three."},
    ]
    asked = questions_about(read_messages(messages))
    assert [(q.content.surface, q.content.context) for _, q in asked] == [
        (Surface.PROMPT, None),
        (Surface.PROMPT, None),
        (Surface.PROMPT, None),
        (Surface.RESPONSE, "One?"),
    ]
