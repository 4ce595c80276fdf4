"""`/v1/responses`: answers made of items, streamed as typed events.

An answer is one choice here: its items build on each other, and a violation in one ends all.
"""

import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.errors import UpstreamBroke, error_body
from service.event_stream import Framing, line_of
from service.gate.dialects.choices import ANSWER_NAMES
from service.gate.dialects.dialect import ChunkReader, Field, Item, Json, Piece, entries
from service.gate.dialects.responses_input import (
    asked_of,
    is_opaque,
    read_items,
    remote_files_in,
)
from service.gate.history import History
from service.gate.strings import Leaf, changed, strings
from service.remote_files import RemoteFile

LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})

_ITEM_NAMES = ANSWER_NAMES | {"call_id", "created_by", "item_id", "obfuscation", "phase", "status"}
_CHOSEN = frozenset({"arguments", "input", "parsed"})
"""Objects whose keys a model wrote; see `strings`."""
_SETTING_NAMES = _ITEM_NAMES | {
    "code",
    "effort",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reason",
    "safety_identifier",
    "summary",
    "tool_choice",
    "truncation",
    "user",
    "verbosity",
}
"""Fields beside `output` that hold names: mostly what the server made of the request."""

_TEXTS = {
    "output_text": (True, "text"),
    "refusal": (True, "refusal"),
    "reasoning_text": (True, "text"),
    "reasoning_summary_text": (True, "text"),
    "function_call_arguments": (False, "arguments"),
    "mcp_call_arguments": (False, "arguments"),
    "custom_tool_call_input": (False, "input"),
    "code_interpreter_call_code": (False, "code"),
}
"""Of the events `response.*.delta` and `response.*.done`: whether their text stands in a part of
the item or in the item, and its field there."""
_EVENT = re.compile(r"response\.([a-z0-9_.]{1,64})\.([a-z_]{1,32})")
_EVENT_KEYS = frozenset(
    {"content_index", "item_id", "output_index", "sequence_number", "summary_index", "type"}
)
"""That say what an event is about."""
_SAID = re.compile(r"output\[[0-9]+\]\.content\[[0-9]+\]\.text")
"""Texts that can be replaced."""
_ITEM_KEYS = frozenset({"content", "id", "phase", "role", "status", "summary", "type"})
"""What is left of an item in which one is."""
_FILES = frozenset({"response.audio.delta", "response.image_generation_call.partial_image"})

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the answer a value of an event belongs."""

    path: _Path
    is_whole: bool
    """Whether it is all that stands there, rather than more of it."""


class ResponsesDialect:
    """See `Dialect`."""

    endpoint = "responses"
    last_events = LAST_EVENTS

    def __init__(self, history: History) -> None:
        """`history` knows which answers a request may go on from."""
        self._history = history

    def framing(self) -> Framing:
        """See `Dialect.framing`."""
        return _EventFraming()

    def items(self, body: Json) -> list[Item]:
        """See `Dialect.items`."""
        return read_items(body, self._history)

    def remote_files(self, body: Json, /) -> Iterator[RemoteFile]:
        """See `Dialect.remote_files`."""
        return remote_files_in(body)

    def asked(self, body: Json) -> str | None:
        """See `Dialect.asked`."""
        return asked_of(body)

    def num_choices(self, _: Json, /) -> int:
        """See `Dialect.num_choices`."""
        return 1

    def reader(self, body: Json, /) -> ChunkReader:
        """See `Dialect.reader`."""
        return _EventReader(body)

    def noted(self, so_far: Json, chunk: Json) -> Json:
        """See `Dialect.noted`: the last number, and the answer as it was when it began."""
        number = chunk.get("sequence_number")
        return {
            "response": so_far.get("response") or chunk.get("response"),
            "sequence_number": number if type(number) is int else so_far.get("sequence_number", -1),
        }

    def cut_off(self, body: Json, so_far: Json, _: int, /) -> list[Json]:
        """See `Dialect.cut_off`. The answer at its end repeats nothing of what was said."""
        begun = so_far.get("response")
        response = {
            **(begun or _response(body, [])),
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "output": [],
        }
        events = [{"type": "response.incomplete", "response": response}]
        if begun is None:
            created = {**response, "status": "in_progress", "incomplete_details": None}
            events.insert(0, {"type": "response.created", "response": created})
        return _numbered(events, so_far.get("sequence_number", -1) + 1)

    def with_report(self, chunk: Json, report: Json, moderation: Json | None, /) -> Json:
        """See `Dialect.with_report`; the report belongs to the answer that the event holds."""
        fields = {"wardgate": report, "moderation": moderation}
        more = {name: value for name, value in fields.items() if value}
        if not isinstance(response := chunk.get("response"), dict):
            return {**chunk, **more}
        return {**chunk, "response": {**response, **more}}

    def last_chunks(
        self, _body: Json, _so_far: Json, _usage: Json | None, _moderation: Json | None, /
    ) -> list[Json]:
        """See `Dialect.last_chunks`: the last event holds all of it."""
        return []

    def moderation_side(self, result: Json, /) -> Json:
        """See `Dialect.moderation_side`."""
        return result

    def passed(self, end: Json) -> None:
        """See `Dialect.passed`."""
        response = end.get("response", end)
        if isinstance(response, dict):
            self._history.add(response.get("id"))
            for item in entries(response.get("output")):
                self._history.add(item.get("id"))

    def blocked_whole(
        self, body: Json, _answer: Json, refusals: Mapping[int | None, str], /
    ) -> Json:
        """See `Dialect.blocked_whole`; under another id, because nobody shall go on from it."""
        (text,) = refusals.values()  # the answer is one choice
        return {
            **_response(body, [_refusal_item(text)]),
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
        }

    def is_said(self, name: Field, /) -> bool:
        """See `Dialect.is_said`."""
        return _SAID.fullmatch(name.name) is not None

    def repeats(self, name: Field, said: Field, /) -> bool:
        """See `Dialect.repeats`."""
        return name.name.startswith(f"{said.name.removesuffix('.text')}.logprobs")

    def with_said(self, answer: Json, name: Field, text: str, /) -> Json:
        """See `Dialect.with_said`. An event is never left out, so that all keep their numbers."""
        if answer.get("object") == "response":
            return _response_saying(answer, name, text)
        made: Json = {}
        for key, value in answer.items():
            place = _place(answer, key)
            if key == "response" and isinstance(value, dict):
                made[key] = _response_saying(value, name, text)
            elif key == "logprobs":
                made[key] = []
            elif place is not None:
                made[key] = _saying(value, place.path, name, text)
            elif key in _EVENT_KEYS:
                made[key] = value
        return made

    def refusal(self, body: Json, text: str) -> Json:
        """See `Dialect.refusal`: as a model refuses."""
        return _response(body, [_refusal_item(text)])

    def refusal_chunks(self, body: Json, text: str) -> list[Json]:
        """See `Dialect.refusal_chunks`."""
        response = self.refusal(body, text)
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        (item,) = response["output"]
        (part,) = item["content"]
        new = {**item, "status": "in_progress", "content": []}
        in_item = {"output_index": 0, "item_id": item["id"], "content_index": 0}
        events: list[Json] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": new},
            {"type": "response.content_part.added", **in_item, "part": {**part, "refusal": ""}},
            {"type": "response.refusal.delta", **in_item, "delta": text},
            {"type": "response.refusal.done", **in_item, "refusal": text},
            {"type": "response.content_part.done", **in_item, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ]
        return _numbered(events, 0)

    def whole_of(self, chunks: Sequence[Json], _: Json | None, /) -> Json:
        """See `Dialect.whole_of`: the last event holds it."""
        response: Json = chunks[-1]["response"]
        return response


class _EventReader:
    """See `ChunkReader`; an event may say a text again that others said in pieces."""

    def __init__(self, body: Json) -> None:
        self._body = body

    def pieces(self, answer: Json, /) -> list[Piece]:
        """See `ChunkReader.pieces`."""
        if answer.get("object") == "response":
            return _joined(_leaves_of_response(answer, self._body), is_whole=True)
        found: list[Piece] = []
        for key, value in answer.items():
            _refuse_file(answer, value)
            if key == "response" and isinstance(value, dict):
                found += _joined(_leaves_of_response(value, self._body), is_whole=True)
                continue
            place = _place(answer, key)
            if place is not None:
                leaves = strings(value, names=_ITEM_NAMES, chosen=_CHOSEN, path=place.path)
            else:  # nobody knows what it is: a text of its own, that may go on
                leaves = strings(
                    {key: value}, names=_ITEM_NAMES, chosen=_CHOSEN, path=_unknown(answer)
                )
            found += _joined(leaves, is_whole=place is not None and place.is_whole)
        return found

    def ended_choices(self, chunk: Json, /) -> frozenset[int]:
        """See `ChunkReader.ended_choices`."""
        return frozenset({0} if chunk.get("type") in LAST_EVENTS else ())

    def without(self, chunk: Json, choices: frozenset[int], /) -> Json | None:
        """See `ChunkReader.without`."""
        return None if choices else chunk


class _EventFraming:
    """Events with names and numbers; the last of them is the end."""

    end = ""

    def __init__(self) -> None:
        self._number = -1

    def line(self, data: Json) -> str:
        """See `Framing.line`."""
        if type(number := data.get("sequence_number")) is int:
            self._number = number
        kind = data.get("type")
        name = f"event: {kind}\n" if isinstance(kind, str) and kind.isprintable() else ""
        return name + line_of(data)

    def error(self, exc: Exception) -> str:
        """See `Framing.error`."""
        error: Any = error_body(exc)["error"]
        return self.line({**error, "type": "error", "sequence_number": self._number + 1})


def _place(event: Json, key: str) -> _Place | None:
    """Where in the answer the value of an event's key belongs; None where nobody knows."""
    stem, change = _kind(event)
    part = _part(event)
    is_whole = change == "done"  # what is added may grow
    if key == "item":
        return _Place(_item(event), is_whole)
    if key == "part":
        return _Place(part, is_whole)
    if key == "annotation":
        return _Place((*part, "annotations", *_index(event, "annotation_index")), is_whole)
    if key == "logprobs":
        return _Place((*part, "logprobs"), is_whole)
    is_in_part, field = _TEXTS.get(stem, (True, ""))
    if (change, key) in (("delta", "delta"), ("done", field)):
        return _Place((*(part if is_in_part else _item(event)), field or stem), key == field)
    return None


def _unknown(event: Json) -> _Path:
    return (*_part(event), _kind(event)[0])


def _kind(event: Json) -> tuple[str, str]:
    """What an event tells of, and what of it: `output_text` and `delta`."""
    kind = event.get("type")
    found = _EVENT.fullmatch(kind) if isinstance(kind, str) else None
    return (found[1], found[2]) if found else ("event", "")


def _item(event: Json) -> _Path:
    return ("output", *_index(event, "output_index"))


def _part(event: Json) -> _Path:
    listed = "summary" if "summary_index" in event else "content"
    return (*_item(event), listed, *_index(event, f"{listed}_index"))


def _index(event: Json, name: str) -> tuple[int, ...]:
    value = event.get(name)
    return (value,) if type(value) is int else ()


def _leaves_of_response(response: Json, body: Json) -> Iterator[Leaf]:
    for item in entries(response.get("output")):
        _refuse_file(response, item)
    for key, value in response.items():
        if key == "output":
            yield from strings(value, names=_ITEM_NAMES, chosen=_CHOSEN, path=(key,))
            continue
        sent = {leaf.text for leaf in strings(body.get(key), keys=())}
        for leaf in strings({key: value}, names=_SETTING_NAMES):
            if leaf.text not in sent:
                yield leaf


def _refuse_file(event: Json, item: Any) -> None:
    kind = item.get("type") if isinstance(item, dict) else None
    if event.get("type") in _FILES or (kind == "image_generation_call" and item.get("result")):
        raise UpstreamBroke(
            "the upstream answered with an image or audio, which cannot be checked in a response"
        )


def _joined(leaves: Iterator[Leaf], *, is_whole: bool) -> list[Piece]:
    """The leaves by their place; tokens of `logprobs` are one list, however it is cut."""
    texts: dict[str, str] = {}
    for leaf in leaves:
        path: _Path = leaf.path
        if is_opaque(leaf):
            continue
        if "logprobs" in path:
            at = path.index("logprobs")
            path = (*path[:at], *("*" if isinstance(step, int) else step for step in path[at:]))
        name = Leaf(path, "").where
        texts[name] = texts.get(name, "") + leaf.text
    return [Piece(Field(0, name), text, is_whole) for name, text in texts.items()]


def _response_saying(response: Json, name: Field, text: str) -> Json:
    path: _Path = ("output",)
    return {
        key: _saying(value, path, name, text) if key == "output" else value
        for key, value in response.items()
    }


def _saying(value: Any, path: _Path, name: Field, text: str) -> Any:
    """A value of an answer in which a text is another one. Of its part only that is left, and of
    the item its parts: token ids, `parsed`, `encrypted_content` and the like may say it again.

    Args:
        value: that stands at `path`.
        path: in the answer.
        name: of the text.
        text: the other one.
    """
    for leaf in strings(value, names=_ITEM_NAMES, chosen=_CHOSEN, path=path):
        if leaf.where != name.name or leaf.at is None:
            continue
        value = changed(value, leaf.at, partial(_put, text))
        text = ""  # once, should the place be listed twice
        if leaf.at:
            value = changed(value, leaf.at[:-1], _bare_part)
        if len(leaf.at) >= 3:
            value = changed(value, leaf.at[:-3], _bare_item)
    return value


def _put(text: str, _: Any) -> str:
    return text


def _bare_part(part: Json) -> Json:
    emptied: Json = {key: [] for key in ("annotations", "logprobs") if key in part}
    return {"type": part.get("type"), "text": part["text"], **emptied}


def _bare_item(item: Json) -> Json:
    return {key: value for key, value in item.items() if key in _ITEM_KEYS}


def _numbered(events: Sequence[Json], first: int) -> list[Json]:
    return [
        {**event, "sequence_number": number} for number, event in enumerate(events, start=first)
    ]


def _refusal_item(text: str) -> Json:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": text}],
    }


def _response(body: Json, output: list[Json]) -> Json:
    """An answer of the gate's own."""
    model = body.get("model")
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model if isinstance(model, str) else "wardgate",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
    }
