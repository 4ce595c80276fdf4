"""P(Yes) from the log-probabilities that an OpenAI-compatible server returns with one token.

Knows the two shapes of the wire format, and what an answer that is not among the returned tokens
proves. Knows nothing of HTTP.
"""

import math
from dataclasses import dataclass

from pydantic import BaseModel

from moderation.errors import Unscorable

MIN_MASS = 0.1
"""Least probability of Yes and No together. ShieldGemma puts nearly all of it there; far less says
that the server runs another model, or was given another model's template."""
MAX_UNCERTAINTY = 0.01
"""Widest interval of P(Yes) that is taken for a score where one answer was not returned."""

_NEVER = -1000.0
"""Servers write the logarithm of 0 as -9999 or as the lowest float: a token that was masked out."""
_ROUNDING = 1e-2
"""How far above one a probability may be for the server's number format."""
_ID_PREFIX = "token_id:"
"""How vLLM names a token when asked to `return_tokens_as_token_ids`."""

Logprobs = dict[int | bytes, float]
"""By token id, or by the token's bytes where the server does not tell the id."""


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The ids of the two answers."""

    yes: int
    no: int


class _Token(BaseModel):
    id: int | None = None
    token: str = ""
    bytes: list[int] | None = None
    logprob: float | None = None


class _Position(_Token):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    """`content`: llama.cpp, and OpenAI's chats. The other fields: OpenAI's completions, vLLM,
    SGLang, llama-cpp-python."""

    content: list[_Position] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class _Choice(BaseModel):
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None


class Completion(BaseModel):
    """The answer of `POST /v1/completions`, as far as it is read."""

    choices: list[_Choice]
    usage: _Usage | None = None

    @property
    def prompt_tokens(self) -> int | None:
        """How many tokens the server says that it read."""
        return self.usage.prompt_tokens if self.usage else None

    def first_logprobs(self) -> Logprobs:
        """The tokens that may come first, with their log-probabilities; empty where there are
        none."""
        logprobs = self.choices[0].logprobs if self.choices else None
        if logprobs is None:
            return {}
        found: Logprobs = {}
        if logprobs.content:
            first = logprobs.content[0]
            for each in (*first.top_logprobs, first):
                if each.logprob is not None:
                    found[_key(each)] = each.logprob
            return found
        listed = (logprobs.top_logprobs or [None])[0] or {}
        named = [*listed.items()]
        named += zip((logprobs.tokens or [])[:1], logprobs.token_logprobs or [], strict=False)
        for text, logprob in named:
            if logprob is not None:
                found[_key(_Token(token=text))] = logprob
        return found


def _key(token: _Token) -> int | bytes:
    if token.id is not None:
        return token.id
    number = token.token.removeprefix(_ID_PREFIX)
    if number != token.token and number.isdecimal():
        return int(number)
    return bytes(token.bytes) if token.bytes else token.token.encode("utf-8", "replace")


def score_of(logprobs: Logprobs, answers: AnswerTokens, *, top: int, min_mass: float) -> float:
    """P(Yes) against P(No), where Yes means "violates the policy".

    Where one answer was not returned, it is at most as probable as the last of the `top` most
    probable tokens. That bounds P(Yes) from one side; the bound is the score where it is within
    `MAX_UNCERTAINTY` of the other end. An answer that is missing is never taken for impossible.

    Args:
        logprobs: natural logarithms of probabilities over the whole vocabulary.
        answers: the ids; where the server gave bytes, exactly `Yes` and `No` are the answers.
        top: how many of the most probable tokens the server was asked for.
        min_mass: see `MIN_MASS`.

    Raises:
        Unscorable: the answers are missing, too improbable, or no probabilities.
    """
    if not logprobs:
        raise Unscorable("the model server returned no logprobs; it must support them")
    if not all(logprob <= _ROUNDING for logprob in logprobs.values()):  # refuses NaN too
        raise Unscorable("the model server answered with a number that is no log-probability")
    yes = _probability(logprobs, answers.yes, b"Yes")
    no = _probability(logprobs, answers.no, b"No")
    if yes is None and no is None:
        raise Unscorable(
            f"neither Yes nor No is among the {len(logprobs)} tokens that the model server"
            " returned: it runs another model, or expects another template"
        )
    mass = (yes or 0.0) + (no or 0.0)
    if not min_mass <= mass <= 1 + _ROUNDING:
        raise Unscorable(
            f"Yes and No have a probability of {mass:.2g} together, expected at least"
            f" {min_mass:g}: the server runs another model, or expects another template"
        )
    if yes is not None and no is not None:
        return yes / (yes + no)
    ranked = sorted(logprobs.values(), reverse=True)
    if len(ranked) < top:
        raise Unscorable(
            f"the model server returned {len(ranked)} tokens of the {top} asked for, and"
            f" {'Yes' if yes is None else 'No'} is not one of them"
        )
    most = math.exp(ranked[top - 1])
    uncertainty = most / (most + mass)
    if uncertainty > MAX_UNCERTAINTY:
        raise Unscorable(
            f"{'Yes' if yes is None else 'No'} is not among the {top} most probable tokens, which"
            f" leaves P(Yes) open by {uncertainty:.2g}, expected at most {MAX_UNCERTAINTY:g}; ask"
            " the server for more tokens (top_logprobs)"
        )
    return uncertainty if yes is None else 1.0 - uncertainty


def _probability(logprobs: Logprobs, token_id: int, spelled: bytes) -> float | None:
    """Of one answer; None where the server did not return it, or masked it out."""
    logprob = logprobs.get(token_id, logprobs.get(spelled))
    return None if logprob is None or logprob <= _NEVER else math.exp(logprob)
