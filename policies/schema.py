"""What a policy and a policy set are: the strict shape of the YAML files, and their hashes.

Knows nothing of models, prompts or scores. The shape is design page section 5; `json_schema`
exports it for editors.
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


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


class Example(Strict):
    """A text with its label: documentation, and a test of the policy."""

    text: str = Field(min_length=1)
    surface: Surface
    violates: bool
    prompt: str | None = None
    """For a response: the prompt that it answers."""
    note: str | None = None


class Policy(Strict):
    """One rule put to the classifier, with the words for each surface."""

    id: Identifier
    version: int = Field(ge=1)
    """Raised on every change of text."""
    title: str = Field(min_length=1, max_length=120)
    definition: Annotated[str, Field(min_length=1)] | SurfaceDefinitions
    severity: Literal["low", "medium", "high"]
    source: str | None = None
    """Where the wording comes from."""
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _examples_have_a_definition(self) -> Self:
        for example in self.examples:
            if self.definition_for(example.surface) is None:
                raise ValueError(
                    f"an example is for surface {example.surface!r}, which has no definition"
                )
        return self

    def definition_for(self, surface: Surface) -> str | None:
        """The text to judge `surface` by; None when the policy does not apply to it."""
        if isinstance(self.definition, str):
            return self.definition
        return getattr(self.definition, surface.value)  # type: ignore[no-any-return]

    @property
    def hash(self) -> str:
        """Twelve hex digits over what the classifier reads; examples do not change it."""
        definitions = {surface.value: self.definition_for(surface) for surface in Surface}
        return _digest({"id": self.id, "version": self.version, "definitions": definitions})


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
        values = [threshold for threshold, _ in steps]
        if values != sorted(values):
            raise ValueError(
                "a more severe action needs a threshold at least as high as the milder one's"
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


class PolicyRule(Strict):
    """A policy within a policy set: its thresholds, action and mode."""

    id: Identifier
    threshold: Probability | ActionThresholds
    action: Action | None = None
    mode: Literal["enforce", "shadow"] = "enforce"

    @model_validator(mode="after")
    def _action_fits_threshold(self) -> Self:
        ladder = isinstance(self.threshold, ActionThresholds)
        if ladder and self.action is not None:
            raise ValueError("give either one threshold with an action, or a threshold per action")
        if not ladder and self.action in (None, Action.ALLOW):
            raise ValueError("one threshold needs an action: flag, review, redact or block")
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
    version: int = Field(ge=1)
    policies: tuple[PolicyRule, ...] = Field(min_length=1)
    on_error: Literal["block", "allow"] = "block"
    """What a gated request gets when scoring fails."""
    on_incomplete: Literal["block", "review", "allow"] = "review"
    """What content gets of which some part could not be scored."""

    @model_validator(mode="after")
    def _no_policy_twice(self) -> Self:
        ids = [rule.id for rule in self.policies]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"policies named twice: {', '.join(repeated)}")
        return self

    @property
    def hash(self) -> str:
        """Twelve hex digits over the whole set."""
        return _digest(self.model_dump(mode="json"))


def json_schema(kind: Literal["policy", "policy-set"]) -> dict[str, Any]:
    """The JSON Schema of a policy file or a policy-set file, for editors."""
    model = Policy if kind == "policy" else PolicySet
    schema = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
