"""Answers of `/v1/responses` for the scripted upstream, and how a stream of them is read."""

import json
from typing import Any

import httpx

from tests.service.upstream_server import Json, Step


def message(text: str, number: int = 0, **part: Any) -> Json:
    """A message that says something."""
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **part}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }


def reasoning(text: str) -> Json:
    """Reasoning with a summary."""
    summary = [{"type": "summary_text", "text": text}]
    return {"id": "rs_0", "type": "reasoning", "summary": summary, "encrypted_content": "gAAA_b=="}


def call(name: str, arguments: str) -> Json:
    """A call of a function."""
    return {
        "id": "fc_0",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_0",
        "name": name,
        "arguments": arguments,
    }


def response(*output: Json, **more: Any) -> Json:
    """A whole answer."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "scripted",
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 3,
        },
        **more,
    }


def begun(**more: Any) -> list[Json]:
    """How a stream begins."""
    new = response(status="in_progress", usage=None, **more)
    return [{"type": f"response.{kind}", "response": new} for kind in ("created", "in_progress")]


def said(*texts: str, index: int = 0) -> list[Json]:
    """The events of a message that comes in these pieces."""
    whole = message("".join(texts), index)
    (part,) = whole["content"]
    place = {"output_index": index, "item_id": whole["id"], "content_index": 0}
    new = {**whole, "status": "in_progress", "content": []}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": new},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *(
            {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}
            for text in texts
        ),
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    ]


def thought(*texts: str, index: int = 0) -> list[Json]:
    """The events of reasoning whose summary comes in these pieces."""
    whole = reasoning("".join(texts))
    place = {"output_index": index, "item_id": whole["id"], "summary_index": 0}
    kind = "response.reasoning_summary_text"
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**whole, "summary": []},
        },
        {
            "type": "response.reasoning_summary_part.added",
            **place,
            "part": {"type": "summary_text", "text": ""},
        },
        *({"type": f"{kind}.delta", **place, "delta": text} for text in texts),
        {"type": f"{kind}.done", **place, "text": "".join(texts)},
        {
            "type": "response.reasoning_summary_part.done",
            **place,
            "part": whole["summary"][0],
        },
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    ]


def called(name: str, *arguments: str, index: int = 0) -> list[Json]:
    """The events of a call whose arguments come in these pieces."""
    whole = call(name, "".join(arguments))
    place = {"output_index": index, "item_id": whole["id"]}
    kind = "response.function_call_arguments"
    new = {**whole, "status": "in_progress", "arguments": ""}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": new},
        *({"type": f"{kind}.delta", **place, "delta": piece} for piece in arguments),
        {"type": f"{kind}.done", **place, "arguments": whole["arguments"]},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    ]


def completed(*output: Json, **more: Any) -> Json:
    """How a stream ends."""
    return {"type": "response.completed", "response": response(*output, **more)}


def stream(*events: Json | list[Json] | Step) -> list[Step]:
    """Events in order, numbered."""
    flat = [one for event in events for one in (event if isinstance(event, list) else [event])]
    number = -1
    steps: list[Step] = []
    for step in flat:
        if isinstance(step, dict):
            number += 1
            step = {**step, "sequence_number": number}
        steps.append(step)
    return steps


def read_events(answer: httpx.Response) -> list[Json]:
    """The events of a stream, after a check of their names and numbers."""
    assert answer.status_code == 200, answer.text
    blocks = [block for block in answer.text.split("\n\n") if block and block[0] != ":"]
    events = []
    for number, block in enumerate(blocks):
        name, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        events.append(event)
    return events


def text_of(events: list[Json]) -> str:
    """What a client shows of a stream."""
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
