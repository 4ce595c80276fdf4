"""What a service is asked about a record, and what its answer says: as scores, or as no score.

Two kinds of service: Wardgate, whose verdicts name policies, model and coverage, and any server of
OpenAI's moderation API, whose categories stand for policies. Nothing that a service says is taken
for a number in [0, 1] unless it is one. Knows nothing of HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evals.calibrate import UNSTATED
from evals.categories import Categories
from evals.journal import PolicyOutcome
from moderation.content import Content, TextPart
from moderation.verdict import ModelInfo
from policies import PolicyRule


class NoScore(Exception):
    """An answer that is no score of the record; the message repeats none of its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What a service says of one policy."""

    raw: float
    calibrated: float
    is_calibrated: bool
    words: str
    """Hash of the policy's words, or what stands for them."""

    def outcome(self, rule: PolicyRule) -> PolicyOutcome:
        """By the thresholds of the run: those of the service are its own affair."""
        thresholds = [threshold for threshold, _ in rule.steps()]
        reached = [threshold for threshold in thresholds if self.calibrated >= threshold]
        return PolicyOutcome(
            raw=self.raw,
            calibrated=self.calibrated,
            threshold=reached[-1] if reached else thresholds[0],
            violates=bool(reached),
            is_calibrated=self.is_calibrated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service says of one record."""

    model: ModelInfo
    scores: dict[str, Stated]
    """By policy id; one for each that was asked."""
    complete: bool
    """Whether all of the content was judged, as far as the service says."""
    tokens: int | None
    """Content tokens that were read; None where the service does not say."""
    windows: int | None


class Api(Protocol):
    """A kind of service."""

    @property
    def categories(self) -> Categories | None:
        """What its scores are made of; None where it knows policies."""

    def body(self, content: Content, policies: Sequence[str], /) -> dict[str, object]:
        """Of `POST /v1/moderations`."""

    def read(self, answer: Any, policies: Sequence[str]) -> Answer:
        """Raises `NoScore`: a policy has no score, or one that is no number in [0, 1]."""


class WardgateApi:
    """A service of this project: asked for policies by their ids, besides its operator's."""

    categories = None

    def body(self, content: Content, policies: Sequence[str], /) -> dict[str, object]:
        """See `Api`; a response goes with the prompt that it answers."""
        context = {} if content.context is None else {"context": content.context}
        return {
            "input": _text(content),
            "surface": content.surface.value,
            "policies": list(policies),
            **context,
        }

    def read(self, answer: Any, policies: Sequence[str]) -> Answer:
        """See `Api`."""
        try:
            verdict = _WardgateAnswer.model_validate(answer).results[0].wardgate
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise NoScore(
                f"the answer is no verdict of Wardgate's ({where}: {first['msg']})"
            ) from None  # it quotes the answer
        found = {score.policy: score for score in verdict.scores}
        _no_gap(found, policies, "policy")
        return Answer(
            model=ModelInfo(**verdict.models[0].model_dump()),
            scores={
                policy: Stated(
                    raw=found[policy].raw,
                    calibrated=found[policy].calibrated,
                    is_calibrated=found[policy].is_calibrated,
                    words=found[policy].hash,
                )
                for policy in policies
            },
            complete=verdict.complete,
            tokens=sum(part.tokens for part in verdict.coverage),
            windows=sum(part.windows for part in verdict.coverage),
        )


class _Read(BaseModel):
    """Fields that are not needed here are passed over; the others are what they should be."""

    model_config = ConfigDict(strict=True)


Probability = Annotated[float, Field(ge=0.0, le=1.0)]  # refuses NaN too


class _Score(_Read):
    policy: str
    hash: str
    raw: Probability
    calibrated: Probability
    is_calibrated: bool


class _Part(_Read):
    tokens: int
    windows: int


class _Model(_Read):
    name: str
    revision: str
    template: str
    dtype: str
    calibration: str | None


class _Verdict(_Read):
    complete: bool
    scores: list[_Score]
    coverage: list[_Part]
    models: list[_Model] = Field(min_length=1, max_length=1)


class _WardgateResult(_Read):
    wardgate: _Verdict


class _WardgateAnswer(_Read):
    results: list[_WardgateResult] = Field(min_length=1, max_length=1)


@dataclass(frozen=True)
class CategoryApi:
    """Any server of OpenAI's moderation API. It gets what is judged alone: such a server knows no
    responses, and would judge the prompt as well."""

    categories: Categories

    def body(self, content: Content, _policies: Sequence[str], /) -> dict[str, object]:
        """See `Api`; all categories come with every answer."""
        model = {} if self.categories.model is None else {"model": self.categories.model}
        return {"input": _text(content), **model}

    def read(self, answer: Any, policies: Sequence[str]) -> Answer:
        """See `Api`: the highest score of a policy's categories."""
        match answer:
            case {"model": str(model), "results": [{"category_scores": dict(scores)} as result]}:
                pass
            case _:
                raise NoScore("the answer is none of OpenAI's moderation API, of one result")
        # a category that was not applied to the input has a score of 0 that means nothing
        applied = result.get("category_applied_input_types") or {}
        there = {name: score for name, score in scores.items() if applied.get(name) != []}
        wanted = {policy: self.categories.policies[policy] for policy in policies}
        _no_gap(there, [name for names in wanted.values() for name in names], "category")
        values = {
            policy: max(_probability(there[name], name) for name in names)
            for policy, names in wanted.items()
        }
        return Answer(
            model=ModelInfo(name=model, revision=UNSTATED, template="categories", dtype="remote"),
            scores={
                policy: Stated(
                    raw=value,
                    calibrated=value,
                    is_calibrated=False,
                    words=f"highest of {', '.join(wanted[policy])}",
                )
                for policy, value in values.items()
            },
            complete=True,
            tokens=None,
            windows=None,
        )


def _text(content: Content) -> str:
    (part,) = content.parts
    assert isinstance(part, TextPart), "services are asked about texts alone; see `meet`"
    return part.text


def _no_gap(found: dict[str, Any], wanted: Sequence[str], what: str) -> None:
    if missing := sorted(set(wanted) - found.keys()):
        raise NoScore(f"the service gives no score for the {what} {', '.join(missing)}")


def _probability(value: object, name: str) -> float:
    """Raises `NoScore`: not a number in [0, 1]; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoScore(f"the score of {name!r} is a {type(value).__name__}; expected a number")
    if not 0.0 <= value <= 1.0:
        raise NoScore(f"the score of {name!r} is {value}; expected a number in [0, 1]")
    return float(value)
