"""A conversation to continue: checked, and reduced to what the gate and the generator read.

Whatever a generator here cannot honour is refused by name; nothing is dropped in silence.
"""

from dataclasses import dataclass
from typing import Any, Literal

from service.errors import BadRequest, UnsupportedInput
from service.schemas import MAX_STOPS, ChatMessage, ChatRequest

Role = Literal["system", "user", "assistant"]

MAX_STOP_CHARS = 256


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; what the gate judges is, character for character, what the generator reads."""

    role: Role
    text: str


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


def chat_from_request(request: ChatRequest, *, max_new_tokens: int) -> Chat:
    """The conversation of a request.

    Raises:
        UnsupportedInput: it asks for tools, images, several choices, logprobs, ...
        BadRequest: messages without text, roles out of order, too many tokens asked for.
    """
    _refuse_unsupported(request)
    messages = tuple(
        _message(message, f"messages[{index}]") for index, message in enumerate(request.messages)
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


def _message(message: ChatMessage, where: str) -> Message:
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
    texts = _texts(message.content, f"{where}.content")
    if message.refusal:
        texts.append(message.refusal)
    text = "\n".join(texts)
    if not text.strip():
        raise BadRequest(
            f"{where} holds no text; expected something to read",
            param=f"{where}.content",
            code="content_empty",
        )
    return Message(role, text)


def _texts(content: Any, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise BadRequest(f"{where} has to be a text or a list of parts", param=where)
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise UnsupportedInput(
                f"{where}[{index}] is no text part; this generator reads text only",
                param=f"{where}[{index}].type",
                code="unsupported_part",
            )
        if not isinstance(part.get(kind), str):
            raise BadRequest(
                f"{where}[{index}].{kind} has to be a text", param=f"{where}[{index}].{kind}"
            )
        texts.append(part[kind])
    return texts


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
