"""What `/v1/chat/completions` and `/v1/completions` have in common: answers made of choices."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from service.event_stream import DataFraming, Framing
from service.gate.dialects.dialect import Field, Json, Piece, choices_of
from service.gate.strings import Leaf, strings

ANSWER_NAMES = frozenset(
    {
        "finish_reason",
        "id",
        "model",
        "native_finish_reason",
        "object",
        "provider",
        "role",
        "service_tier",
        "stop_reason",
        "system_fingerprint",
        "type",
    }
)
"""Fields of an answer that hold names, not content."""


_HEAD = frozenset(
    {"choices", "created", "id", "model", "object", "service_tier", "system_fingerprint"}
)
"""Fields that stand in every chunk of an answer."""


class ChoiceAnswers:
    """Answers, whole and in chunks, that have a list of choices."""

    object_name: str
    """The `object` of a whole answer."""
    chunk_object_name: str
    """The `object` of a chunk."""
    id_prefix: str
    inside: frozenset[str]
    """Fields of a choice that hold its content: `message` of a whole one is `delta` in a chunk, so
    that neither belongs to the name of a field."""
    last_events: frozenset[str] = frozenset()
    chosen: frozenset[str]
    """Objects in a choice whose keys a model wrote; see `strings`."""
    said: str
    """The field of a choice whose text can be replaced."""

    def framing(self) -> Framing:
        """See `Dialect.framing`."""
        return DataFraming()

    def reader(self, _: Json, /) -> "ChoiceAnswers":
        """See `Dialect.reader`: an answer repeats nothing of its request."""
        return self

    def pieces(self, answer: Json, /) -> list[Piece]:
        """See `ChunkReader.pieces`."""
        beside = {key: value for key, value in answer.items() if key != "choices"}
        found = [
            Piece(Field(None, leaf.where), leaf.text)
            for leaf in strings(beside, names=ANSWER_NAMES)
        ]
        choices = answer.get("choices")
        strange = choices
        if isinstance(choices, list):
            strange = [entry for entry in choices if not isinstance(entry, dict)]
        found += [Piece(Field(None, "choices"), leaf.text) for leaf in strings(strange, keys=())]
        for index, choice in choices_of(answer):
            found += [
                Piece(Field(index, self._name(leaf)), leaf.text)
                for leaf in strings(choice, names=ANSWER_NAMES, chosen=self.chosen)
            ]
        return found

    def ended_choices(self, chunk: Json, /) -> frozenset[int]:
        """See `ChunkReader.ended_choices`."""
        return frozenset(
            index for index, choice in choices_of(chunk) if choice.get("finish_reason")
        )

    def without(self, chunk: Json, choices: frozenset[int], /) -> Json | None:
        """See `ChunkReader.without`."""
        if not choices or not chunk.get("choices"):
            return chunk
        left = [choice for index, choice in choices_of(chunk) if index not in choices]
        says_more = any(chunk[name] is not None for name in chunk.keys() - _HEAD)
        return {**chunk, "choices": left} if left or says_more else None

    def noted(self, so_far: Json, chunk: Json) -> Json:
        """See `Dialect.noted`: the first chunk has all that others are made of."""
        return so_far or chunk

    def cut_off(self, body: Json, so_far: Json, choice: int) -> list[Json]:
        """See `Dialect.cut_off`."""
        head = so_far or self._head(body, self.chunk_object_name)
        return [self._chunk(head, [self._end(choice)])]

    def with_report(self, chunk: Json, report: Json, _: Json | None, /) -> Json:
        """See `Dialect.with_report`; `moderation` has a chunk of its own."""
        return {**chunk, "wardgate": report} if report else chunk

    def last_chunks(
        self, body: Json, so_far: Json, usage: Json | None, moderation: Json | None, /
    ) -> list[Json]:
        """See `Dialect.last_chunks`."""
        chunk = self._chunk(so_far or self._head(body, self.chunk_object_name), [])
        options = body.get("stream_options")
        chunks = []
        if usage is not None and isinstance(options, dict) and options.get("include_usage"):
            chunks.append({**chunk, "usage": usage})
        if moderation is not None:
            chunks.append({**chunk, "moderation": moderation})
        return chunks

    def moderation_side(self, result: Json, /) -> Json:
        """See `Dialect.moderation_side`."""
        return {"type": "moderation_results", "model": result["model"], "results": [result]}

    def passed(self, _: Json, /) -> None:
        """See `Dialect.passed`: no later request can refer to it."""

    def blocked_whole(self, body: Json, answer: Json, refusals: Mapping[int | None, str]) -> Json:
        """See `Dialect.blocked_whole`."""
        if None in refusals:  # what stands beside the choices goes as well
            return self.refusal(body, refusals[None])
        made = [
            self._choice(index, refusals[index], "content_filter") if index in refusals else choice
            for index, choice in choices_of(answer)
        ]
        return {**answer, "choices": made}

    def is_said(self, name: Field, /) -> bool:
        """See `Dialect.is_said`."""
        return name.choice is not None and name.name == self.said

    def repeats(self, name: Field, said: Field, /) -> bool:
        """See `Dialect.repeats`."""
        return name.choice == said.choice and name.name.startswith(("logprobs.", "logprobs["))

    def with_said(self, answer: Json, name: Field, text: str, /) -> Json | None:
        """See `Dialect.with_said`: of the choice, only how it ended and what else its message holds
        are left."""
        made = []
        says_anything = any(answer[key] is not None for key in answer.keys() - _HEAD)
        for index, given in choices_of(answer):
            if index != name.choice:
                made.append(given)
                says_anything = True
                continue
            saying = self._saying(given, text)
            text = ""  # once, should the choice be listed twice
            reason = given.get("finish_reason")
            made.append({"index": index, **saying, "logprobs": None, "finish_reason": reason})
            says_anything |= bool(reason) or any(map(_is_said, saying.values()))
        return {**answer, "choices": made} if says_anything else None

    def refusal(self, body: Json, text: str) -> Json:
        """See `Dialect.refusal`."""
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return {
            **self._head(body, self.object_name),
            "choices": [self._choice(0, text, "content_filter")],
            "usage": usage,
        }

    def refusal_chunks(self, body: Json, text: str) -> list[Json]:
        """See `Dialect.refusal_chunks`."""
        head = self._head(body, self.chunk_object_name)
        return [self._chunk(head, [self._said(0, text)]), self._chunk(head, [self._end(0)])]

    def whole_of(self, chunks: Sequence[Json], usage: Json | None) -> Json:
        """See `Dialect.whole_of`; of chunks whose only text is what a choice says."""
        said: dict[int, str] = {}
        reasons: dict[int, str] = {}
        beside: Json = {}
        for chunk in chunks:
            for index, choice in choices_of(chunk):
                said[index] = said.get(index, "") + self._text_of(choice)
                if choice.get("finish_reason"):
                    reasons[index] = choice["finish_reason"]
            beside |= {name: chunk[name] for name in ("wardgate", "moderation") if name in chunk}
        made = [self._choice(index, text, reasons[index]) for index, text in said.items()]
        head = {name: chunks[0][name] for name in ("id", "created", "model")}
        return {**head, "object": self.object_name, "choices": made, "usage": usage, **beside}

    def _text_of(self, choice: Json) -> str:
        raise NotImplementedError

    def _choice(self, index: int, text: str, finish_reason: str) -> Json:
        raise NotImplementedError

    def _said(self, index: int, text: str) -> Json:
        raise NotImplementedError

    def _saying(self, choice: Json, text: str) -> Json:
        """What is left of a choice, or a piece of one, that says another text."""
        raise NotImplementedError

    def _end(self, index: int) -> Json:
        raise NotImplementedError

    def _name(self, leaf: Leaf) -> str:
        path = leaf.path[1:] if leaf.path and leaf.path[0] in self.inside else leaf.path
        if "logprobs" in path:  # a list of tokens that goes on in the next chunk
            path = tuple("*" if isinstance(step, int) else step for step in path)
        return Leaf(path, "").where

    def _head(self, body: Json, kind: str) -> Json:
        model = body.get("model")
        return {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model if isinstance(model, str) else "wardgate",
        }

    def _chunk(self, head: Json, choices: list[Json]) -> Json:
        kept: Json = {name: head[name] for name in ("id", "created", "model") if name in head}
        made: dict[str, Any] = {"object": self.chunk_object_name, "choices": choices}
        return {**kept, **made, **({"usage": None} if "usage" in head else {})}


def _is_said(value: Any) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)
