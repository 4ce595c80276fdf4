"""A reader of many streams at once that knows only what the upstream was to say.

A process of its own with code of its own: it reads the bytes of sockets and notes when they came,
by the monotonic clock, which the processes of one machine share. Nothing of the gate is imported.

    python -m benchmarks.gate.observer   # reads a `Task` as JSON from its standard input
"""

import asyncio
import bisect
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.gate.scripts import KINDS, Json, Said, Script, joined, make_script

TIMEOUT_S = 300.0
"""Of one stream; then it has stalled."""
_PLACE = tuple[int | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to read."""

    url: str
    """Of the gate."""
    seed: int
    streams: int
    at_once: int
    passed: str = ""
    """File of what the classifier passed, written once all is read: lines of [time, number of the
    stream, text]."""


@dataclass(slots=True)
class Stream:
    """What was read of one stream."""

    index: int
    status: int = 0
    retry_after: str | None = None
    first_byte_s: float | None = None
    seconds: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)
    """When an event came, and its data."""
    comments: int = 0
    problem: str | None = None
    """Why these bytes are no stream of events that ends with [DONE]."""


@dataclass(slots=True)
class Measured:
    """What came of all streams."""

    streams: int = 0
    violating: int = 0
    leaked_chars: int = 0
    """Characters of violations that came out."""
    streams_that_leaked: list[int] = field(default_factory=list)
    most_unchecked_chars: int = 0
    """That were out at any time in one stream, over all its texts."""
    most_unchecked_in: int | None = None
    """The stream in which they were."""
    not_whole: list[int] = field(default_factory=list)
    """Streams with a choice that was allowed and did not come as it was sent."""
    not_cut_off: list[int] = field(default_factory=list)
    """Streams with a choice that violates and does not end with `content_filter`."""
    invalid: dict[int, str] = field(default_factory=dict)
    """Streams that are no valid events up to [DONE], and why."""
    refused: int = 0
    """With 429."""
    refused_without_retry_after: int = 0
    events: int = 0
    comments: int = 0
    slowest_s: float = 0.0


async def read_all(task: Task) -> list[Stream]:
    """Reads the streams, so many at a time."""
    room = asyncio.Semaphore(task.at_once)

    async def read(index: int) -> Stream:
        async with room:
            return await read_stream(task.url, task.seed, index)

    return list(await asyncio.gather(*(read(index) for index in range(task.streams))))


async def read_stream(url: str, seed: int, index: int) -> Stream:
    """Asks for one stream and reads it to its end."""
    script = make_script(seed, index)
    body = json.dumps(
        {
            "model": "any",
            "stream": True,
            "n": script.num_choices,
            "messages": [{"role": "user", "content": f"stream {index} of {seed}"}],
        }
    ).encode()
    address = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    stream = Stream(index)
    started = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head + body)
            await _read(reader, stream, started)
            writer.close()
    except TimeoutError:
        stream.problem = "stalled"
    except (ValueError, OSError, asyncio.IncompleteReadError) as exc:
        stream.problem = f"{type(exc).__name__}: {exc}"
    stream.seconds = time.monotonic() - started
    return stream


async def _read(reader: asyncio.StreamReader, stream: Stream, started: float) -> None:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    stream.status = int(lines[0].split()[1])
    headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines[1:])}
    stream.retry_after = headers.get("retry-after")
    if stream.status != 200:
        await reader.read()
        return
    if headers.get("transfer-encoding") != "chunked":
        raise ValueError("expected a chunked body")
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        now = time.monotonic()
        if stream.first_byte_s is None:
            stream.first_byte_s = now - started
        *events, rest = rest.split(b"\n\n")
        for event in events:
            _note(stream, now, event.decode())
    stream.problem = _problem(stream, rest)


def _note(stream: Stream, now: float, event: str) -> None:
    if re.fullmatch(r"data: [^\n\r]*", event):
        stream.events.append((now, event.removeprefix("data: ")))
    elif re.fullmatch(r": [^\n\r]*", event):
        stream.comments += 1
    else:
        raise ValueError(f"no event: {event[:60]!r}")


def _problem(stream: Stream, rest: bytes) -> str | None:
    if rest:
        return f"{len(rest)} bytes after the last event"
    if not stream.events or stream.events[-1][1] != "[DONE]":
        return "no [DONE] at its end"
    for _, data in stream.events[:-1]:
        try:
            value = json.loads(data, parse_constant=_no_constant)
        except ValueError:
            return "an event that is no JSON"
        if "error" in value:
            return f"an error: {value['error']['code']}"
    return None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def measure(
    task: Task, streams: list[Stream], passed: dict[int, list[tuple[float, str]]]
) -> Measured:
    """Compares what came with what was sent, and with when the classifier had passed it."""
    found = Measured(streams=len(streams))
    for stream in streams:
        script = make_script(task.seed, stream.index)
        found.violating += script.violates
        found.events += len(stream.events)
        found.comments += stream.comments
        found.slowest_s = max(found.slowest_s, stream.seconds)
        if stream.status == 429:
            found.refused += 1
            found.refused_without_retry_after += stream.retry_after is None
            continue
        if stream.problem is not None or stream.status != 200:
            found.invalid[stream.index] = stream.problem or f"status {stream.status}"
        _measure_stream(script, stream, passed.get(stream.index, []), found)
    return found


def _measure_stream(
    script: Script, stream: Stream, passed: list[tuple[float, str]], found: Measured
) -> None:
    readings = {(each.choice, each.kind): _Reading(each, passed) for each in script.said}
    reasons: dict[int, str] = {}
    for at, data in stream.events:
        chunk = json.loads(data) if data != "[DONE]" else {}
        for place, piece in _pieces(chunk):
            readings[place].add(piece)
        blocked = (chunk.get("wardgate") or {}).get("blocked") or {}
        if (taken := blocked.get("retract")) is not None:
            for (choice, kind), reading in readings.items():
                if choice == blocked["choice"] and taken["field"] == KINDS[kind]:
                    reading.take_back(taken["start"])
        for entry in chunk.get("choices", ()):
            if entry["finish_reason"]:
                reasons[entry["index"]] = entry["finish_reason"]
        unchecked = sum(reading.num_unchecked(at) for reading in readings.values())
        if unchecked > found.most_unchecked_chars:
            found.most_unchecked_chars, found.most_unchecked_in = unchecked, stream.index
    leaked = sum(reading.num_leaked for reading in readings.values())
    found.leaked_chars += leaked
    if leaked:
        found.streams_that_leaked.append(stream.index)
    cut_off = script.blocked_choices
    ends_early = len(cut_off) == script.num_choices  # and so do the texts beside them
    whole = ends_early or all(
        reading.is_whole for (choice, _), reading in readings.items() if choice not in cut_off
    )
    kept = all(reasons.get(c) == "stop" for c in range(script.num_choices) if c not in cut_off)
    if not whole or not kept or any(reading.is_altered for reading in readings.values()):
        found.not_whole.append(stream.index)
    if any(reasons.get(choice) != "content_filter" for choice in cut_off):
        found.not_cut_off.append(stream.index)


class _Reading:
    """How much of one text has come, and how much of it the classifier had passed by then."""

    def __init__(self, said: Said, passed: list[tuple[float, str]]) -> None:
        self._said = said
        self._raw = "".join(said.units)
        self._ends = list(itertools.accumulate(map(len, said.units)))
        self._come = ""
        self._kept: int | None = None  # characters that were not taken back
        self._covered = sorted((at, _num_common(text, said.text)) for at, text in passed)

    def add(self, piece: str) -> None:
        self._come += piece

    def take_back(self, start: int) -> None:
        """Everything from a character of the field on, counted as they came: one that came in two
        halves is two."""
        self._kept = bisect.bisect_right(self._ends, len(joined(self._come[:start])))

    @property
    def num_out(self) -> int:
        """Whole characters of the text that have come."""
        return bisect.bisect_right(self._ends, len(joined(self._come)))

    @property
    def is_whole(self) -> bool:
        return joined(self._come) == self._raw

    @property
    def is_altered(self) -> bool:
        return not self._raw.startswith(joined(self._come))

    @property
    def num_leaked(self) -> int:
        if self._said.span is None:
            return 0
        start, end = self._said.span
        return max(0, min(self.num_out, end) - start)

    def num_unchecked(self, now: float) -> int:
        out = self.num_out if self._kept is None else min(self.num_out, self._kept)
        covered = max((n for at, n in self._covered if at <= now), default=0)
        return len(self._said.text[covered:out].rstrip())  # white space at its end says nothing


def _num_common(left: str, right: str) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def _pieces(chunk: Json) -> Iterator[tuple[_PLACE, str]]:
    if "note" in chunk:
        yield (None, "beside"), chunk["note"]
    for entry in chunk.get("choices", ()):
        choice, delta = entry["index"], entry["delta"]
        for kind, name in (
            ("content", "content"),
            ("reasoning", "reasoning_content"),
            ("refusal", "refusal"),
        ):
            if delta.get(name):
                yield (choice, kind), delta[name]
        for call in delta.get("tool_calls", ()):
            for kind, name in (("tool", "name"), ("arguments", "arguments")):
                if name in call["function"]:
                    yield (choice, kind), call["function"][name]
        for token in (entry.get("logprobs") or {}).get("content", ()):
            yield (choice, "tokens"), token["token"]
        if "x_note" in delta:
            yield (choice, "unknown"), delta["x_note"]["deep"][0]
        for key in delta.get("x_keys", ()):
            yield (choice, "key"), key


def main() -> None:
    """Reads the task, reads the streams, waits for the classifier's notes, and measures."""
    task = Task(**json.loads(sys.stdin.readline()))
    streams = asyncio.run(read_all(task))
    print("read", flush=True)
    sys.stdin.readline()
    passed: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for line in Path(task.passed).read_text().splitlines():
        at, index, text = json.loads(line)
        passed[index].append((at, text))
    print(json.dumps(asdict(measure(task, streams, passed))), flush=True)


if __name__ == "__main__":
    main()
