"""`/v1/chat/completions`."""

from collections.abc import Iterator

from moderation.content import Content
from policies import Surface
from service.errors import UnsupportedInput
from service.gate.dialects.choices import ChoiceAnswers
from service.gate.dialects.dialect import (
    SYSTEM_ROLES,
    Item,
    Json,
    Path,
    count_of_choices,
    entries,
    list_of_objects,
    parts_of,
)
from service.gate.dialects.other_fields import item_of_other_fields, item_of_tools
from service.gate.dialects.parts import (
    NAMES,
    File,
    Text,
    lines,
    places_of,
    read_parts,
    remote_files_of,
)
from service.gate.strings import strings, unescaped
from service.remote_files import RemoteFile


class ChatDialect(ChoiceAnswers):
    """See `Dialect`."""

    endpoint = "chat/completions"
    object_name = "chat.completion"
    chunk_object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"
    inside = frozenset({"message", "delta"})
    chosen = frozenset({"arguments", "input", "parsed"})
    said = "content"

    def items(self, body: Json) -> list[Item]:
        """See `Dialect.items`."""
        if body.get("audio") is not None or "audio" in (body.get("modalities") or ()):
            raise UnsupportedInput(
                "answers in audio cannot be checked here; ask for text", param="modalities"
            )
        items = []
        asked = None
        for index, message in enumerate(list_of_objects(body, "messages")):
            where = f"messages[{index}]"
            texts, files = _read(message, where, ("messages", index))
            text = lines(texts)
            parts = (*parts_of(text, _beside(message)), *(each.file for each in files))
            is_answer = message.get("role") == "assistant"
            if parts:
                content = Content(
                    surface=Surface.RESPONSE if is_answer else Surface.PROMPT,
                    parts=parts,
                    context=asked if is_answer else None,
                )
                role = message.get("role")
                named = role if isinstance(role, str) else None
                places = places_of(content, texts, files)
                is_system = named in SYSTEM_ROLES
                items.append(Item(where, content, index, named, places, is_system=is_system))
            if message.get("role") == "user":
                asked = text or asked
        tools = item_of_tools({name: body.get(name) for name in ("tools", "functions")})
        others = item_of_other_fields(body, known=("messages", "tools", "functions"))
        return [*items, *(item for item in (tools, others) if item is not None)]

    def remote_files(self, body: Json, /) -> Iterator[RemoteFile]:
        """See `Dialect.remote_files`."""
        for index, message in enumerate(entries(body.get("messages"))):
            yield from remote_files_of(message.get("content"), f"messages[{index}].content")

    def asked(self, body: Json) -> str | None:
        """The last user's text."""
        for message in reversed(list_of_objects(body, "messages")):
            if message.get("role") == "user":
                texts, _ = _read(message, "messages")
                if text := lines(texts):
                    return text
        return None

    def num_choices(self, body: Json) -> int:
        """See `Dialect.num_choices`."""
        return count_of_choices(body)

    def _text_of(self, choice: Json) -> str:
        return choice["delta"].get("content") or ""

    def _choice(self, index: int, text: str, finish_reason: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }

    def _said(self, index: int, text: str) -> Json:
        delta = {"role": "assistant", "content": text}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _saying(self, choice: Json, text: str) -> Json:
        name = "message" if "message" in choice else "delta"
        message = choice.get(name)
        rest = message if isinstance(message, dict) else {}
        kept = {k: v for k, v in rest.items() if k not in ("content", "logprobs")}
        return {name: {**kept, "content": text} if text else kept}

    def _end(self, index: int) -> Json:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}


def _read(message: Json, where: str, path: Path = ()) -> tuple[list[Text], list[File]]:
    """What a message says, in order, and the files it holds; see `read_parts`."""
    texts, files = read_parts(message.get("content"), f"{where}.content", (*path, "content"))
    if isinstance(refusal := message.get("refusal"), str):
        texts.append(Text(refusal, (*path, "refusal")))
    return texts, files


def _beside(message: Json) -> str:
    """What a message holds beside its words: tool calls, a name, reasoning, unknown fields."""
    rest = {k: v for k, v in message.items() if k not in ("content", "refusal")}
    if rest.get("audio") is not None:
        raise UnsupportedInput("audio in messages cannot be checked here", param="messages")
    return "\n".join(unescaped(leaf.text) for leaf in strings(rest, names=NAMES))
