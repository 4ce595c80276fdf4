"""Request bodies: read within the limit, parsed off the event loop, refused in clear words.

What a body could be made to cost is bounded before it is parsed; see `service.json_screen`.

Knows the fields of the requests; what they mean is the business of the handlers.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from moderation.errors import InvalidText
from service.errors import BadRequest, BodyTooComplex, InvalidJson
from service.json_screen import has_more_pieces

MAX_PIECES = 100_000
"""Strings, commas, colons and opening brackets of one body. The longest conversation that is
taken, 2048 messages of two text parts, has about half as many."""

Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
MAX_STOPS = 8
Stops = Annotated[
    tuple[str, ...],
    Field(max_length=MAX_STOPS, fail_fast=True),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value, str | list[str]),
]


class Body(BaseModel):
    """An unknown field is an error: what cannot be honoured must not be dropped in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModerationRequest(Body):
    """`POST /v1/moderations`: OpenAI's fields, and three of our own."""

    input: Any = Field(
        description="A text, a list of texts (one result each), or a list of parts"
        " (`text`, `image_url` or `video_url` with a data URL; one result)."
    )
    model: str | None = Field(
        None,
        max_length=256,
        description="Any of OpenAI's moderation model names, the loaded classifier's, or the id"
        " of a policy set, whose policies are then judged as well.",
    )
    policies: tuple[str, ...] = Field(
        (),
        max_length=256,
        fail_fast=True,
        description="Ids of policies to judge on top of the operator's set.",
    )
    surface: Literal["prompt", "response"] = Field(
        "prompt", description="Whose words the content is: a user's prompt or a response."
    )
    context: str | None = Field(
        None, description="For a response: the prompt that it answers; shown, not judged."
    )


class ChatMessage(Body):
    """One message of a conversation; `content` is checked by `service.chat`."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ModerationMode(Body):
    """What follows from the result of one side."""

    mode: Literal["score", "block"]


class ModerationModes(Body):
    """One for each side."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class ModerationOptions(Body):
    """The field `moderation` of a request that is answered: results that are wanted with it."""

    model: str = Field(max_length=256)
    policy: ModerationModes | None = None


class WithModeration(Body):
    """The one field of such a request that is the gate's."""

    moderation: ModerationOptions | None = None


class ChatRequest(Body):
    """`POST /v1/chat/completions`: what is honoured, what is ignored as harmless, what is
    refused unless it asks for nothing."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=2048, fail_fast=True)
    model: str | None = Field(None, max_length=256, description="Ignored: one generator is loaded.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_k: int | None = Field(None, ge=1, le=1000, description="Not OpenAI's; Gemma's default 64.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Stops | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None

    # ignored, because the answer is right without them
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None

    # refused by `service.chat` unless they ask for nothing
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None

    # the gate answers it
    moderation: ModerationOptions | None = None


IGNORED_FIELDS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
"""Fields of a chat request that change nothing here."""

Model = TypeVar("Model", bound=Body)
Parsed = TypeVar("Parsed")
_OBJECT = TypeAdapter(dict[str, Any])


async def read_body(request: Request, model: type[Model]) -> Model:
    """The parsed body of a request.

    Raises:
        ServiceError: see `read_json`.
        BadRequest: a field is missing, unknown or of the wrong kind; names it.
    """
    raw = await _read(request)
    return await asyncio.to_thread(_parse, raw, model.model_validate_json)


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a request that is for somebody else, every field as it came.

    Raises:
        BodyTooLarge, BodyTimeout, BodiesOverloaded: from the middleware that counts the bytes.
        BodyTooComplex: more than `MAX_PIECES`.
        InvalidJson: the body is no JSON.
        InvalidText: one of its texts has a lone surrogate.
        BadRequest: it is no object.
    """
    raw = await _read(request)
    return await asyncio.to_thread(_parse, raw, _OBJECT.validate_json)


def checked(body: dict[str, Any], model: type[Model]) -> Model:
    """A body that was read, as a request of a kind. Raises `BadRequest`, which names the field."""
    try:
        return model.model_validate(body)
    except ValidationError as exc:
        raise _bad_request(exc) from exc


async def _read(request: Request) -> bytearray:
    raw = bytearray()  # `request.body()` would hold it twice, and to the end of the request
    try:
        async for chunk in request.stream():
            raw += chunk
    except Exception:
        raw.clear()  # else the traceback would hold it until the refusal is sent
        raise
    return raw


def _parse(raw: bytearray, validate: Callable[[bytearray], Parsed]) -> Parsed:
    if has_more_pieces(raw, MAX_PIECES):
        raise BodyTooComplex(
            f"the body has more than {MAX_PIECES} strings, commas, colons and opening brackets;"
            " send less in one request"
        )
    try:
        return validate(raw)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        if problem["type"] != "json_invalid":
            raise _bad_request(exc) from exc
    if _has_lone_surrogate(raw, problem["msg"]):
        raise InvalidText(
            "the body has a lone surrogate, half of a character, as an escape from \\ud800 to"
            " \\udfff; expected Unicode text; replace or remove it before sending"
        )
    raise InvalidJson(f"the body is no valid JSON: {problem['msg']}")


def _bad_request(exc: ValidationError) -> BadRequest:
    problem = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(step) for step in problem["loc"])[:100]
    if not field:
        return BadRequest("the body has to be a JSON object")
    if problem["type"] == "extra_forbidden":
        return BadRequest(f"unknown field {field!r}", param=field, code="unknown_parameter")
    if problem["type"] == "missing":
        return BadRequest(f"the field {field!r} is missing", param=field, code="missing_parameter")
    return BadRequest(f"{field}: {problem['msg']}", param=field, code="invalid_parameter")


def _has_lone_surrogate(raw: bytearray, problem: str) -> bool:
    """Whether that is all that keeps a body from being JSON; Python's own parser takes it."""
    if "hex escape" not in problem:  # how the parser calls it, among other things
        return False
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def request_schema(model: type[Body]) -> dict[str, Any]:
    """What `/openapi.json` says of a body that the handler reads itself."""
    schema = model.model_json_schema(
        ref_template=f"#/components/schemas/{model.__name__}/{{model}}"
    )
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
