"""What a policy and a policy set are: the strict shape of the YAML files, and their hashes.

Knows nothing of models, prompts or scores. The shape is design page section 5; `json_schema`
exports it for editors.
"""

import hashlib
import json
import re
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
# strict: a lax number would read `version: true` as 1 and a quoted "0.5" as 0.5
Version = Annotated[int, Field(ge=1, strict=True)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0, strict=True)]

ONE, MANY = "<one>", "<many>"
"""Tags of a union's branches. They stand in the locations of pydantic's errors and, because of
the angle brackets, are no key of any file."""


class Surface(StrEnum):
    """Where content comes from; each surface is judged in its own words."""

    PROMPT = "prompt"
    RESPONSE = "response"
    IMAGE = "image"


class Action(StrEnum):
    """What happens to content, in rising order of severity."""

    ALLOW = "allow"
    FLAG = "flag"
    REVIEW = "review"
    REDACT = "redact"
    BLOCK = "block"

    @property
    def rank(self) -> int:
        """Position in the order of severity; the highest rank of all policies wins."""
        return list(Action).index(self)


class Strict(BaseModel):
    """A misspelt key is an error, not a default; a loaded value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class SurfaceDefinitions(Strict):
    """One definition a surface; a missing surface is not judged under this policy."""

    prompt: str | None = Field(default=None, min_length=1)
    response: str | None = Field(default=None, min_length=1)
    image: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any((self.prompt, self.response, self.image)):
            raise ValueError("needs a text for at least one of prompt, response, image")
        return self


def _definition_branch(value: object) -> str | None:
    if isinstance(value, str):
        return ONE
    return MANY if isinstance(value, dict | SurfaceDefinitions) else None


Definition = Annotated[
    Annotated[str, Field(min_length=1), Tag(ONE)] | Annotated[SurfaceDefinitions, Tag(MANY)],
    Discriminator(
        _definition_branch,
        custom_error_type="definition_shape",
        custom_error_message="expected a text, or a text for each of prompt, response, image",
    ),
]


class Example(Strict):
    """A text with its label: documentation, and a test of the policy."""

    text: str = Field(min_length=1)
    surface: Surface
    violates: bool = Field(strict=True)
    prompt: str | None = None
    """For a response: the prompt that it answers."""
    margin: Probability | None = None
    """How far the calibrated score must be on the right side of the threshold. In a pair, how far
    the scores of what violates must be above those of what does not."""
    pair: str | None = Field(default=None, min_length=1)
    """A name that near misses share with what they are near to: whatever the threshold, each
    violating example of a pair must score above each other one."""
    expected: Literal["fail"] | None = None
    """A known failure: the example does not hold, and it is an error once it does."""
    pair_expected: Literal["fail"] | None = None
    """The same of its pair; one example of the pair says so."""
    note: str | None = None

    @field_validator("surface")
    @classmethod
    def _is_of_text(cls, value: Surface) -> Surface:
        if value is Surface.IMAGE:
            raise ValueError("an example is a text: expected 'prompt' or 'response'")
        return value

    @model_validator(mode="after")
    def _only_responses_answer(self) -> Self:
        if self.prompt is not None and self.surface is not Surface.RESPONSE:
            raise _wrong_at("only an example for surface 'response' answers a prompt", "prompt")
        return self

    @model_validator(mode="after")
    def _only_pairs_fail_as_pairs(self) -> Self:
        if self.pair_expected is not None and self.pair is None:
            raise _wrong_at("is said of a pair, and the example is in none", "pair_expected")
        return self


class Policy(Strict):
    """One rule put to the classifier, with the words for each surface."""

    id: Identifier
    version: Version
    """Raised on every change of text."""
    title: str = Field(min_length=1, max_length=120)
    definition: Definition
    severity: Literal["low", "medium", "high"]
    source: str | None = None
    """Where the wording comes from."""
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _examples_have_a_definition(self) -> Self:
        for index, example in enumerate(self.examples):
            if self.definition_for(example.surface) is None:
                raise _wrong_at(
                    f"the policy has no definition for {example.surface.value!r}",
                    "examples",
                    index,
                    "surface",
                )
        return self

    @model_validator(mode="after")
    def _pairs_have_both_sides(self) -> Self:
        sides: dict[str, set[bool]] = {}
        for example in self.examples:
            if example.pair is not None:
                sides.setdefault(example.pair, set()).add(example.violates)
        for index, example in enumerate(self.examples):
            if example.pair is not None and len(sides[example.pair]) == 1:
                lacking = "violates" if not example.violates else "does not violate"
                raise _wrong_at(
                    f"no example of the pair {example.pair!r} {lacking} the policy; a pair needs"
                    " one that does and one that does not",
                    "examples",
                    index,
                    "pair",
                )
        return self

    def definition_for(self, surface: Surface) -> str | None:
        """The text to judge `surface` by; None when the policy does not apply to it."""
        if isinstance(self.definition, str):
            return self.definition
        return getattr(self.definition, surface.value)  # type: ignore[no-any-return]

    @property
    def hash(self) -> str:
        """Twelve hex digits over what the classifier reads: the definition for each surface.

        Nothing else changes it, so an unchanged hash says that older scores still hold, and a
        changed hash under an unchanged version that somebody forgot to raise the version.
        """
        return _digest({surface.value: self.definition_for(surface) for surface in Surface})


class ActionThresholds(Strict):
    """A ladder: the highest threshold that the score reaches names the action."""

    flag: Probability | None = None
    review: Probability | None = None
    redact: Probability | None = None
    block: Probability | None = None

    @model_validator(mode="after")
    def _rises_with_severity(self) -> Self:
        steps = self.steps()
        if not steps:
            raise ValueError("needs a threshold for at least one of flag, review, redact, block")
        for (low, mild), (high, severe) in pairwise(steps):
            if high < low:
                raise _wrong_at(
                    f"{high:g} is lower than the {low:g} of the milder action {mild.value!r};"
                    " thresholds rise with the action",
                    severe.value,
                )
        return self

    def steps(self) -> list[tuple[float, Action]]:
        """(threshold, action) pairs, mildest action first."""
        named = [
            (self.flag, Action.FLAG),
            (self.review, Action.REVIEW),
            (self.redact, Action.REDACT),
            (self.block, Action.BLOCK),
        ]
        return [(threshold, action) for threshold, action in named if threshold is not None]


def _threshold_branch(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ONE
    return MANY if isinstance(value, dict | ActionThresholds) else None


Threshold = Annotated[
    Annotated[Probability, Tag(ONE)] | Annotated[ActionThresholds, Tag(MANY)],
    Discriminator(
        _threshold_branch,
        custom_error_type="threshold_shape",
        custom_error_message="expected a number between 0 and 1, or one for each of flag, review,"
        " redact, block",
    ),
]


LANGUAGE_TAG = (
    r"[A-Za-z]{2,3}(-[A-Za-z]{3}){0,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?"
    r"(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3})){0,4}"
)
"""BCP 47: a language, and where it is needed a script, a region and variants."""


def _languages_are_tags(value: dict[object, object]) -> dict[object, object]:
    seen: set[str] = set()
    for tag in value:
        if not isinstance(tag, str):
            raise _wrong_at(
                f"expected language tags, found {tag!r}; put no, which is Norwegian, in quotes"
                if tag is False
                else f"expected language tags, found {tag!r}"
            )
        if not re.fullmatch(LANGUAGE_TAG, tag):
            raise _wrong_at("is no language tag; expected one such as en, de-CH or zh-Hant", tag)
        if tag.lower() in seen:
            raise _wrong_at("this language stands twice", tag)
        seen.add(tag.lower())
    return value


def _refusal_branch(value: object) -> str | None:
    if isinstance(value, str):
        return ONE
    return MANY if isinstance(value, dict) else None


_Words = Annotated[str, Field(min_length=1)]
Refusal = Annotated[
    Annotated[_Words, Tag(ONE)]
    | Annotated[
        dict[str, _Words],
        Field(min_length=1, json_schema_extra={"propertyNames": {"pattern": f"^{LANGUAGE_TAG}$"}}),
        BeforeValidator(_languages_are_tags),
        Tag(MANY),
    ],
    Discriminator(
        _refusal_branch,
        custom_error_type="refusal_shape",
        custom_error_message="expected a text, or a text for each of some languages",
    ),
]
"""What is said in place of what was blocked; the first language where none is asked for."""


class PolicyRule(Strict):
    """A policy within a policy set: its thresholds, action and mode."""

    id: Identifier
    threshold: Threshold
    action: Action | None = None
    mode: Literal["enforce", "shadow"] = "enforce"
    refusal: Refusal | None = None
    """What the gate says where this policy decides."""

    @model_validator(mode="after")
    def _action_fits_threshold(self) -> Self:
        ladder = isinstance(self.threshold, ActionThresholds)
        if ladder and self.action is not None:
            raise _wrong_at("stands beside a threshold for each action; remove one", "action")
        if not ladder and self.action in (None, Action.ALLOW):
            raise _wrong_at(
                "one threshold needs an action: flag, review, redact or block", "action"
            )
        return self

    def steps(self) -> list[tuple[float, Action]]:
        """(threshold, action) pairs, mildest action first; never empty."""
        if isinstance(self.threshold, ActionThresholds):
            return self.threshold.steps()
        assert self.action is not None  # held by the validator
        return [(self.threshold, self.action)]


class PolicySet(Strict):
    """The policies that apply together, and what failure means for them."""

    id: Identifier
    version: Version
    policies: tuple[PolicyRule, ...] = Field(min_length=1)
    on_error: Literal["block", "allow"] = "block"
    """What a gated request gets when scoring fails."""
    on_incomplete: Literal["block", "review", "allow"] = "review"
    """What content gets of which some part could not be scored."""
    refusal: Refusal | None = None
    """What the gate says where the policy that decides has no words of its own."""

    @model_validator(mode="after")
    def _no_policy_twice(self) -> Self:
        seen: set[str] = set()
        for index, rule in enumerate(self.policies):
            if rule.id in seen:
                raise _wrong_at(f"{rule.id!r} stands twice in the set", "policies", index, "id")
            seen.add(rule.id)
        return self

    @property
    def hash(self) -> str:
        """Twelve hex digits over all that a verdict follows from: the set without its refusals."""
        return _digest(
            self.model_dump(
                mode="json", exclude={"refusal": True, "policies": {"__all__": {"refusal"}}}
            )
        )


def json_schema(kind: Literal["policy", "policy-set"]) -> dict[str, Any]:
    """The JSON Schema of a policy file or a policy-set file, for editors."""
    model = Policy if kind == "policy" else PolicySet
    schema = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _wrong_at(message: str, *key: str | int) -> PydanticCustomError:
    """The error of a check over several keys, naming the one to change by its path."""
    return PydanticCustomError("wrong_at", "{message}", {"message": message, "at": key})


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
