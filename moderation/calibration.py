"""From P(Yes) to the probability that content violates a policy: a file of monotone curves.

A calibration was fitted for the scores of one model and for the words of each policy. It refuses
another model, and leaves the scores of a policy with other words as they are. `evals.calibrate`
fits one; nothing here needs more than the standard library and pydantic.
"""

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from moderation.errors import ModelRefused, ModelUnavailable
from policies import Policy, Surface

CLAMP = 1e-6
"""Raw scores nearer to 0 or 1 than this count as this near: rounding decides what lies beyond."""
_MAX_LOGIT = 700.0
"""`math.exp` takes no more."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identity(_Strict):
    """Leaves a score as it is."""

    method: Literal["identity"] = "identity"

    def logit(self, x: float) -> float:
        """The calibrated logit of the raw logit `x`; the same in the other curves."""
        return x


class Temperature(_Strict):
    """Pulls scores towards 0.5, or pushes them away from it."""

    method: Literal["temperature"] = "temperature"
    temperature: FiniteFloat = Field(gt=0)

    def logit(self, x: float) -> float:
        """See `Identity`."""
        return x / self.temperature


class Platt(_Strict):
    """A logistic regression on the logit."""

    method: Literal["platt"] = "platt"
    slope: FiniteFloat = Field(gt=0)
    intercept: FiniteFloat

    def logit(self, x: float) -> float:
        """See `Identity`."""
        return self.slope * x + self.intercept


class Isotonic(_Strict):
    """Straight lines between knots, level outside of them; in logits, as everything here."""

    method: Literal["isotonic"] = "isotonic"
    raw: tuple[FiniteFloat, ...] = Field(min_length=1)
    """Rising."""
    calibrated: tuple[FiniteFloat, ...]
    """One for each of `raw`, never falling."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        rises = list(self.raw) == sorted(set(self.raw))
        if not rises or list(self.calibrated) != sorted(self.calibrated):
            raise ValueError("knots must rise: 'raw' strictly, 'calibrated' without falling")
        if len(self.raw) != len(self.calibrated):
            raise ValueError(f"{len(self.raw)} raw knots, {len(self.calibrated)} calibrated ones")
        return self

    def logit(self, x: float) -> float:
        """See `Identity`."""
        right = bisect_right(self.raw, x)
        if right == 0 or right == len(self.raw):
            return self.calibrated[0] if right == 0 else self.calibrated[-1]
        x0, x1 = self.raw[right - 1], self.raw[right]
        y0, y1 = self.calibrated[right - 1], self.calibrated[right]
        return min(y1, y0 + (x - x0) / (x1 - x0) * (y1 - y0))


Curve = Identity | Temperature | Platt | Isotonic


class Quality(_Strict):
    """How good probabilities are, on records that they were not fitted on."""

    ece: FiniteFloat
    """Expected calibration error."""
    brier: FiniteFloat
    log_loss: FiniteFloat


class SurfaceCalibration(_Strict):
    """The curve for one policy on one surface, and the evidence for it."""

    curve: Annotated[Curve, Field(discriminator="method")]
    fitted_on: Literal["surface", "all_surfaces"] | None
    """Whose records the curve comes from; None where there were too few to fit or check any, so
    that scores stay raw."""
    reason: str | None = None
    """Why it is not the surface alone that it was fitted on, or nothing."""
    records: int = Field(ge=0)
    """That it was fitted on."""
    positives: int = Field(ge=0)
    before: Quality | None = None
    """Of raw scores; None where nothing was fitted."""
    after: Quality | None = None
    """Of calibrated scores, cross-validated."""

    @model_validator(mode="after")
    def _has_both_classes(self) -> Self:
        if self.fitted_on is not None and not 0 < self.positives < self.records:
            raise ValueError("a fitted curve needs positives and negatives")
        return self


class PolicyCalibration(_Strict):
    """The curves of one policy."""

    hash: str
    """Of the policy's words."""
    surfaces: dict[Surface, SurfaceCalibration]


class FittedModel(_Strict):
    """Whose scores were fitted."""

    name: str
    revision: str
    template: str

    def __str__(self) -> str:
        return f"{self.name} of revision {self.revision!r} (template {self.template})"


class FittedData(_Strict):
    """What was scored."""

    name: str
    sha256: str
    sample: int | None = None
    seed: int = 0
    """Of the sample."""


class Calibration(_Strict):
    """The curves of all policies for one model."""

    format: Literal[1] = 1
    model: FittedModel
    data: tuple[FittedData, ...]
    folds: int
    seed: int
    """Of the folds."""
    prior: float | None = Field(default=None, gt=0, lt=1)
    """The share of violations that probabilities are for; that of the data where None."""
    policies: dict[str, PolicyCalibration]

    @property
    def id(self) -> str:
        """Named by its contents."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"cal-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def curve(self, policy: Policy, surface: Surface) -> Callable[[float], float] | None:
        """From raw score to probability; never falls. None where scores stay raw."""
        return self.curve_of(policy.id, policy.hash, surface)

    def curve_of(
        self, policy_id: str, policy_hash: str, surface: Surface
    ) -> Callable[[float], float] | None:
        """`curve`, for who has only the names."""
        found = self.policies.get(policy_id)
        if found is None or found.hash != policy_hash:
            return None
        entry = found.surfaces.get(surface)
        if entry is None or entry.fitted_on is None:
            return None
        shift = 0.0
        if self.prior is not None:
            shift = _logit(self.prior) - _logit(entry.positives / entry.records)
        if isinstance(entry.curve, Identity) and shift == 0.0:
            return _as_it_is
        curve = entry.curve
        return lambda raw: _sigmoid(curve.logit(to_logit(raw)) + shift)

    def check_fits(self, model: FittedModel) -> None:
        """Raises `ModelRefused` when it was fitted for other scores than this model's."""
        fitted = self.model
        if (model.revision, model.template) != (fitted.revision, fitted.template):
            raise ModelRefused(
                f"the calibration {self.id} was fitted for {fitted}, the model is {model}; make one"
                " for this model with wardgate eval calibrate, or leave it out for raw scores"
            )

    def gaps(self, policies: Iterable[Policy]) -> list[str]:
        """In words, every policy and surface of text whose scores stay raw, and why."""
        found = []
        for policy in policies:
            fitted = self.policies.get(policy.id)
            if fitted is None:
                found.append(f"{policy.id} is not in it")
            elif fitted.hash != policy.hash:
                found.append(
                    f"{policy.id} has other words now (hash {policy.hash}, fitted for"
                    f" {fitted.hash})"
                )
            else:
                found += _surface_gaps(policy, fitted)
        return found


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file.

    Raises:
        ModelUnavailable: the file cannot be read.
        ModelRefused: it is no calibration, or was changed since it was written.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelUnavailable(
            f"the calibration {path} cannot be read: {exc.strerror or exc}"
        ) from exc
    except ValueError as exc:
        raise ModelRefused(f"{path} is no calibration: it is not JSON ({exc})") from exc
    if not isinstance(data, dict):
        raise ModelRefused(f"{path} is no calibration: expected a JSON object")
    named = data.pop("id", None)
    try:
        calibration = Calibration.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelRefused(f"{path} is no calibration: {where}: {first['msg']}") from exc
    if named != calibration.id:
        raise ModelRefused(
            f"{path} names itself {named!r}, its contents are {calibration.id!r}: it was changed by"
            " hand or cut off; make it again with wardgate eval calibrate"
        )
    return calibration


def calibration_json(calibration: Calibration) -> str:
    """The text of its file."""
    data = {"id": calibration.id, **calibration.model_dump(mode="json")}
    return json.dumps(data, indent=1) + "\n"


def to_logit(raw: float) -> float:
    """The logit of a raw score, clamped."""
    return _logit(min(max(raw, CLAMP), 1 - CLAMP))


def _surface_gaps(policy: Policy, fitted: PolicyCalibration) -> list[str]:
    found = []
    for surface in (Surface.PROMPT, Surface.RESPONSE):
        if policy.definition_for(surface) is None:
            continue
        entry = fitted.surfaces.get(surface)
        if entry is None:
            found.append(f"{policy.id} has no curve for a {surface.value}")
        elif entry.fitted_on is None:
            found.append(f"{policy.id} has no curve for a {surface.value} ({entry.reason})")
    return found


def _as_it_is(raw: float) -> float:
    return raw


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -_MAX_LOGIT), _MAX_LOGIT)))
