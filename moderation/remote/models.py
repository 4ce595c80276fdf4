"""Classifiers on a model server: the file that describes one, and the checks before it may judge.

A server that answers is not yet one whose answers mean anything: another model, another tokenizer
or a prompt that it cut off all give plausible numbers. `load_remote` checks what can be checked
from outside and raises `ModelRefused` with the reason.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
)

from moderation.checkpoints import (
    CONTEXT_TOKENS,
    MIN_CONTEXT_TOKENS,
    Classifier,
    Elsewhere,
    answer_ids,
)
from moderation.engine import Ask
from moderation.errors import EngineError, ModelRefused, ModelUnavailable
from moderation.prompts import JudgePrompt, PromptBuilder
from moderation.remote.engine import TOP_LOGPROBS, RemoteEngine, TextPrompts, read_completion
from moderation.remote.logprobs import MIN_MASS, AnswerTokens
from moderation.remote.server import ModelServer
from moderation.templates import TEMPLATES, Template
from moderation.tokenizer import SafeTokenizer
from moderation.verdict import ModelInfo
from moderation.weights import read_tokenizer


def _server_url(value: object) -> str:
    url = TypeAdapter(HttpUrl).validate_python(value)
    if url.username or url.password:
        raise ValueError("holds a password; put the key into WARDGATE_REMOTE_API_KEY")
    return str(url).rstrip("/")


class RemoteSpec(BaseModel):
    """What the YAML file of a remote model says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, BeforeValidator(_server_url)]
    """Up to and with `/v1`."""
    model: str = Field(min_length=1)
    """What the server calls it."""
    tokenizer: str = Field(min_length=1)
    """A directory or hub id with the model's `tokenizer.json`."""
    template: str
    """One of `TEMPLATES`, for text."""
    revision: str = "unstated"
    """What verdicts record; no server tells which weights it runs."""
    max_prompt_tokens: int | None = Field(None, ge=MIN_CONTEXT_TOKENS)
    """Of one prompt; 8,192 or what the server says that it takes, if that is less, by default."""
    window_tokens: int | None = Field(None, ge=1)
    """Content tokens of one prompt at most; what fits by default."""
    send: Literal["tokens", "text"] = "tokens"
    """`text` for servers that take no token ids; then some contents cannot be scored."""
    top_logprobs: int = Field(TOP_LOGPROBS, ge=2)
    """Tokens that the server is asked for; the server may take fewer, and says so by refusing."""
    min_mass: float = Field(MIN_MASS, ge=0, le=1)
    """See `moderation.remote.logprobs.MIN_MASS`."""
    max_connections: int = Field(16, ge=1)
    """Requests at a time."""
    timeout_s: float = Field(60.0, gt=0)
    """Of one request; the deadline of the caller ends it before."""


class _Served(BaseModel):
    id: str
    max_model_len: int | None = None
    """vLLM's: tokens of prompt and answer together."""


class _ModelList(BaseModel):
    data: list[_Served]


def read_spec(path: Path) -> RemoteSpec:
    """The description of a remote model.

    Raises:
        ModelUnavailable: the file cannot be read.
        ModelRefused: it is no such description; says which key is wrong.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelUnavailable(f"{path} cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise ModelRefused(f"{path} is not valid YAML: {exc}") from exc
    if not isinstance(data, dict):
        raise ModelRefused(f"{path}: expected a mapping with url, model, tokenizer and template")
    try:
        return RemoteSpec.model_validate(data)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ModelRefused(f"{path}: {where}: {problem['msg']}") from None  # it quotes the URL


def load_remote(spec: RemoteSpec, *, name: str, api_key: SecretStr | None = None) -> Classifier:
    """Checks a remote model and makes a classifier of it.

    Args:
        spec: where it is and how it is asked.
        name: what verdicts call it.
        api_key: sent as a bearer token.

    Raises:
        ModelUnavailable: the server cannot be reached, or the tokenizer cannot be read.
        ModelRefused: a check failed; the message says which.
    """
    template = _template(spec.template)
    tokenizer = read_tokenizer(spec.tokenizer)
    answers = AnswerTokens(*answer_ids(tokenizer))
    builder = PromptBuilder(template, tokenizer)
    probe = _probe(builder)
    checks = [f"answer ids Yes={answers.yes} No={answers.no}"]
    served = asyncio.run(_served(spec, api_key))
    checks.append(f"the server lists {spec.model}")
    context = _context(spec, served)
    as_text = None
    if spec.send == "text":
        adds_bos = asyncio.run(_adds_bos(spec, api_key, tokenizer, probe))
        as_text = TextPrompts(tokenizer, server_adds_bos=adds_bos)
        checks.append("the server makes the same tokens of a prompt sent as text")
    engine = RemoteEngine(
        _server(spec, api_key),
        model=spec.model,
        answers=answers,
        max_prompt_tokens=context,
        top_logprobs=spec.top_logprobs,
        min_mass=spec.min_mass,
        as_text=as_text,
    )
    try:
        engine.p_yes([Ask(probe)])
    except EngineError as exc:
        engine.close()
        hint = "" if as_text else "; a server that takes no token ids needs `send: text`"
        raise ModelRefused(f"a probe of {spec.url} gave no score: {exc}{hint}") from exc
    checks.append("a probe gives a score")
    return Classifier(
        info=ModelInfo(name=name, revision=spec.revision, template=template.name, dtype="remote"),
        engine=engine,
        builder=builder,
        model=Elsewhere(),
        window_tokens=spec.window_tokens or context,
        to_pixels=None,
        checks=tuple(checks),
    )


def _template(name: str) -> Template:
    texts = {
        each.name: each
        for each in TEMPLATES.values()
        if not each.has_pixels and not any(words.query for words in each.surfaces.values())
    }
    if name not in texts:
        raise ModelRefused(
            f"the template {name!r} cannot be asked of a model server; expected"
            f" {' or '.join(texts)} (images, and policies apart from the content, need a model in"
            " this process)"
        )
    return texts[name]


def _probe(builder: PromptBuilder) -> JudgePrompt:
    content = builder.content_tokens("What is the capital of Australia?").ids
    surface = next(iter(builder.template.surfaces))
    return builder.text_prompt(surface, content, ["The text shall not contain insults."])


def _server(spec: RemoteSpec, api_key: SecretStr | None) -> ModelServer:
    return ModelServer(
        spec.url,
        api_key=api_key,
        timeout_s=spec.timeout_s,
        max_connections=spec.max_connections,
    )


async def _served(spec: RemoteSpec, api_key: SecretStr | None) -> _Served:
    """What the server says of the model. Raises `ModelUnavailable`, `ModelRefused`."""
    server = _server(spec, api_key)
    try:
        listed = _ModelList.model_validate_json(await server.get("models"))
    except EngineError as exc:
        raise ModelUnavailable(f"{spec.url}: {exc}; check the address, and that it runs") from exc
    except ValidationError:
        raise ModelRefused(
            f"{spec.url}/models answered with something that is no list of models; expected the"
            " base URL of an OpenAI-compatible server, which mostly ends with /v1"
        ) from None
    finally:
        await server.close()
    for served in listed.data:
        if served.id == spec.model:
            return served
    known = ", ".join(repr(served.id) for served in listed.data[:5]) or "none"
    raise ModelRefused(f"{spec.url} serves no model {spec.model!r}; it lists {known}")


def _context(spec: RemoteSpec, served: _Served) -> int:
    """Tokens that a prompt may have. Raises `ModelRefused`."""
    most = served.max_model_len - 1 if served.max_model_len else None  # one token is the answer
    if spec.max_prompt_tokens is None:
        context = min(CONTEXT_TOKENS, most or CONTEXT_TOKENS)
    else:
        context = spec.max_prompt_tokens
    if most is not None and not MIN_CONTEXT_TOKENS <= context <= most:
        raise ModelRefused(
            f"{spec.url} takes prompts of {most} tokens of {spec.model!r}; expected at least"
            f" {spec.max_prompt_tokens or MIN_CONTEXT_TOKENS}"
        )
    return context


async def _adds_bos(
    spec: RemoteSpec, api_key: SecretStr | None, tokenizer: SafeTokenizer, probe: JudgePrompt
) -> bool:
    """Whether the server puts `<bos>` before a text, by how many tokens it then reads.

    Raises:
        ModelRefused: neither way does it read as many as the prompt has.
    """
    ids = (*probe.prefix, *probe.leaves[0])
    server = _server(spec, api_key)
    found = []
    try:
        for adds_bos in (True, False):
            text = TextPrompts(tokenizer, server_adds_bos=adds_bos).render(ids)
            body = {"model": spec.model, "prompt": text, "max_tokens": 1}
            completion = read_completion(await server.post("completions", body))
            if completion.prompt_tokens == len(ids):
                return adds_bos
            found.append(completion.prompt_tokens)
    except EngineError as exc:
        raise ModelRefused(f"a probe of {spec.url} failed: {exc}") from exc
    finally:
        await server.close()
    raise ModelRefused(
        f"{spec.url} reads {found[0]} tokens of a prompt of {len(ids)} tokens, {found[1]} with"
        " <bos>: it has another tokenizer, puts a template of its own around prompts, or does not"
        " count them (usage.prompt_tokens)"
    )
