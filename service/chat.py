"""A conversation to continue: checked, and reduced to what the gate and the generator read.

Whatever a generator here cannot honour is refused by name; nothing is dropped in silence.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from service.errors import BadRequest, UnsupportedInput
from service.moderation_input import decode_data_url
from service.schemas import MAX_STOPS, ChatMessage, ChatRequest

Role = Literal["system", "user", "assistant"]

MAX_STOP_CHARS = 256


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a message."""

    data: bytes
    """Its file."""
    where: str
    """Its place as the caller knows it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; what the gate judges is, character for character, what the generator reads."""

    role: Role
    parts: tuple[str | Image, ...]
    """In order; no text follows another."""

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """In order."""
        return tuple(part for part in self.parts if isinstance(part, Image))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn; the defaults are the ones that Gemma 3 was released with."""

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 64
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation, and how its next turn is to be generated."""

    messages: tuple[Message, ...]
    sampling: Sampling
    stop: tuple[str, ...]
    max_tokens: int

    @property
    def images(self) -> tuple[Image, ...]:
        """Of all messages, in order."""
        return tuple(image for message in self.messages for image in message.images)


def chat_from_request(request: ChatRequest, *, max_new_tokens: int, reads_images: bool) -> Chat:
    """The conversation of a request.

    Args:
        request: what was asked for.
        max_new_tokens: the most that may be.
        reads_images: whether the generator does, in messages of the user.

    Raises:
        UnsupportedInput: it asks for tools, several choices, logprobs, images of a generator that
            reads none, ...
        BadRequest: messages with nothing to read, no data URL, roles out of order, too many tokens
            asked for.
    """
    _refuse_unsupported(request)
    messages = tuple(
        _message(message, f"messages[{index}]", reads_images=reads_images)
        for index, message in enumerate(request.messages)
    )
    _check_order(messages)
    stop = request.stop or ()
    if any(not 0 < len(text) <= MAX_STOP_CHARS for text in stop):
        raise BadRequest(
            f"stop has to be at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters",
            param="stop",
        )
    defaults = Sampling()
    return Chat(
        messages=messages,
        sampling=Sampling(
            temperature=_or(request.temperature, defaults.temperature),
            top_p=_or(request.top_p, defaults.top_p),
            top_k=_or(request.top_k, defaults.top_k),
            seed=request.seed,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
        ),
        stop=stop,
        max_tokens=_max_tokens(request, max_new_tokens),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _max_tokens(request: ChatRequest, limit: int) -> int:
    asked = request.max_completion_tokens or request.max_tokens
    if asked is None:
        return limit
    if asked > limit:
        raise BadRequest(
            f"max_tokens is {asked}; at most {limit} are generated here",
            param="max_completion_tokens" if request.max_completion_tokens else "max_tokens",
            code="max_tokens_too_large",
        )
    return asked


def _refuse_unsupported(request: ChatRequest) -> None:
    wants = {
        "n": request.n not in (None, 1),
        "logprobs": bool(request.logprobs),
        "top_logprobs": bool(request.top_logprobs),
        "logit_bias": bool(request.logit_bias),
        "tools": bool(request.tools),
        "tool_choice": request.tool_choice not in (None, "none", "auto"),
        "functions": bool(request.functions),
        "function_call": request.function_call not in (None, "none", "auto"),
        "response_format": request.response_format not in (None, {"type": "text"}),
        "modalities": request.modalities not in (None, ["text"]),
        "audio": request.audio is not None,
        "prediction": request.prediction is not None,
        "web_search_options": request.web_search_options is not None,
        "reasoning_effort": request.reasoning_effort not in (None, "none"),
        "verbosity": request.verbosity is not None,
    }
    for name, wanted in wants.items():
        if wanted:
            raise UnsupportedInput(
                f"{name!r} is not supported by this generator; leave it out", param=name
            )


def _message(message: ChatMessage, where: str, *, reads_images: bool) -> Message:
    if message.role in ("tool", "function"):
        raise UnsupportedInput(
            f"{where} has the role {message.role!r}; this generator has no tools",
            param=f"{where}.role",
            code="unsupported_role",
        )
    for name in ("tool_calls", "function_call", "tool_call_id", "audio"):
        if getattr(message, name):
            raise UnsupportedInput(
                f"{where}.{name} is not supported by this generator; leave it out",
                param=f"{where}.{name}",
            )
    role: Role = (
        "assistant"
        if message.role == "assistant"
        else "user"
        if message.role == "user"
        else "system"
    )
    parts = _parts(message.content, f"{where}.content", role, reads_images=reads_images)
    if message.refusal:
        parts.append(message.refusal)
    if not any(isinstance(part, Image) or part.strip() for part in parts):
        raise BadRequest(
            f"{where} holds no text; expected something to read",
            param=f"{where}.content",
            code="content_empty",
        )
    return Message(role, _lines_joined(parts))


def _lines_joined(parts: list[str | Image]) -> tuple[str | Image, ...]:
    """The parts with each run of texts as one, line by line."""
    joined: list[str | Image] = []
    for is_image, run in groupby(parts, lambda part: isinstance(part, Image)):
        found = list(run)
        joined += found if is_image else ["\n".join(map(str, found))]
    return tuple(joined)


def _parts(content: Any, where: str, role: Role, *, reads_images: bool) -> list[str | Image]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise BadRequest(f"{where} has to be a text or a list of parts", param=where)
    return [
        _part(part, f"{where}[{index}]", role, reads_images=reads_images)
        for index, part in enumerate(content)
    ]


def _part(part: Any, where: str, role: Role, *, reads_images: bool) -> str | Image:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url" and reads_images and role == "user":
        file = part.get(kind)
        url = file.get("url") if isinstance(file, dict) else file
        name = f"{where}.{kind}.url" if isinstance(file, dict) else f"{where}.{kind}"
        if not isinstance(url, str):
            raise BadRequest(
                f'{where}.{kind} has to be {{"url": "data:image/png;base64,..."}}', param=name
            )
        return Image(decode_data_url(url, name), name)
    if kind not in ("text", "refusal"):
        reads = "text, and images in messages of the user" if reads_images else "text only"
        raise UnsupportedInput(
            f"{where} is of another kind; this generator reads {reads}",
            param=f"{where}.type",
            code="unsupported_part",
        )
    if not isinstance(text := part.get(kind), str):
        raise BadRequest(f"{where}.{kind} has to be a text", param=f"{where}.{kind}")
    return text


def _check_order(messages: tuple[Message, ...]) -> None:
    """System messages first, then user and assistant in turn, a user at the end: what Gemma's
    own template demands, and what leaves no room for forged turns."""
    turns = [(index, message) for index, message in enumerate(messages)]
    while turns and turns[0][1].role == "system":
        turns.pop(0)
    for position, (index, message) in enumerate(turns):
        expected = "user" if position % 2 == 0 else "assistant"
        if message.role != expected:
            raise BadRequest(
                f"messages[{index}] is from the {message.role}, expected the {expected}: system"
                " messages come first, then user and assistant take turns",
                param=f"messages[{index}].role",
                code="invalid_role_order",
            )
    if len(turns) % 2 == 0:
        raise BadRequest(
            "the last message has to be from the user", param="messages", code="invalid_role_order"
        )
