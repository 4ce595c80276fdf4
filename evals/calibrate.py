"""Fits a calibration to the raw scores of finished runs, and says how good it is on other records.

A method is chosen by cross-validation: each record's probability comes from a curve that was
fitted without it, and the lowest log loss wins. Records are not weighted, so a probability is that
of the data's own share of violations (`Calibration.prior` moves it to another).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from evals.errors import RunError
from evals.finished import FinishedRun
from evals.metrics import Bools, Floats, brier, ece, log_loss
from moderation.calibration import (
    Calibration,
    Curve,
    FittedData,
    FittedModel,
    Identity,
    Isotonic,
    Platt,
    PolicyCalibration,
    Quality,
    SurfaceCalibration,
    Temperature,
    to_logit,
)
from policies import Surface

Method = Literal["identity", "temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Simplest first: of equals the first one is chosen."""
MIN_OF_EACH = 50
"""Positives, and negatives, that a curve needs."""
UNSTATED = "unstated"
"""Revision of a model on a server whose file does not say."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Records of one policy."""

    logits: Floats
    """Of the raw scores, ``(N,)``, clamped."""
    raw: Floats
    labels: Bools

    @property
    def num_positives(self) -> int:
        return int(self.labels.sum())

    def lacks(self) -> str | None:
        """Why nothing can be fitted to them."""
        num_pos, num_neg = self.num_positives, len(self.labels) - self.num_positives
        if min(num_pos, num_neg) >= MIN_OF_EACH:
            return None
        return f"{num_pos} positives and {num_neg} negatives; {MIN_OF_EACH} of each are needed"


def calibrate(
    runs: Sequence[FinishedRun],
    *,
    methods: Sequence[Method] = METHODS,
    folds: int = 5,
    seed: int = 0,
    prior: float | None = None,
) -> Calibration:
    """A calibration for every policy and surface of the runs.

    A surface with too few records gets the curve of all surfaces together, or none, and the reason.

    Args:
        runs: of one model; see `read_runs`.
        methods: to choose from.
        folds: of the cross-validation.
        seed: of the folds.
        prior: see `Calibration`.

    Raises:
        RunError: the model has no revision that the calibration could be held to, or nothing was
            labelled.
    """
    model = runs[0].manifest.model
    if model.revision == UNSTATED:
        raise RunError(
            f"the model {model.name!r} states no revision, so nobody could tell whose scores these"
            " are; add `revision:` to its file and run again"
        )
    rows = pl.concat([run.scores.select("policy", "surface", "raw", "label") for run in runs])
    if rows.is_empty():
        raise RunError("the runs hold no record with a label and a score; expected some")
    hashes = {id_: hash_ for run in runs for id_, hash_ in run.manifest.policy_set.policies.items()}
    policies = {
        policy_id: PolicyCalibration(
            hash=hashes[policy_id],
            surfaces=dict(_surfaces(rows.filter(policy=policy_id), methods, folds, seed)),
        )
        for policy_id in sorted(rows["policy"].unique())
    }
    return Calibration(
        model=FittedModel(name=model.name, revision=model.revision, template=model.template),
        data=tuple(
            FittedData(
                name=run.manifest.data.name,
                sha256=run.manifest.data.sha256,
                sample=run.manifest.sample,
                seed=run.manifest.seed,
            )
            for run in runs
        ),
        folds=folds,
        seed=seed,
        prior=prior,
        policies=policies,
    )


def fit(method: Method, logits: Floats, labels: Bools) -> Curve | None:
    """One curve; None where the best one of its kind falls, so that worse content scored lower.

    Args:
        method: which kind.
        logits: ``(N,)``.
        labels: ``(N,)``, of both classes.
    """
    if method == "identity":
        return Identity()
    if method == "isotonic":
        return _fit_isotonic(logits, labels)
    slope, intercept = _logistic(logits, labels, with_intercept=method == "platt")
    if slope <= 0:
        return None
    if method == "temperature":
        return Temperature(temperature=1 / slope)
    return Platt(slope=slope, intercept=intercept)


def _surfaces(
    rows: pl.DataFrame, methods: Sequence[Method], folds: int, seed: int
) -> Iterator[tuple[Surface, SurfaceCalibration]]:
    """The curves of one policy."""
    every = _labelled(rows)
    for surface in sorted(rows["surface"].unique()):
        alone = _labelled(rows.filter(surface=surface))
        on: Literal["surface", "all_surfaces"] | None = "surface"
        reason, used = alone.lacks(), alone
        if reason is not None:
            on, used = "all_surfaces", every
            if (why := every.lacks()) is not None:
                on, used = None, alone
                if len(every.labels) > len(alone.labels):
                    reason += f" (all surfaces together: {why})"
        if on is None:
            yield (
                Surface(surface),
                SurfaceCalibration(
                    curve=Identity(),
                    fitted_on=None,
                    reason=reason,
                    records=len(alone.labels),
                    positives=alone.num_positives,
                ),
            )
        else:
            curve, after = _choose(used, methods, folds, seed)
            yield (
                Surface(surface),
                SurfaceCalibration(
                    curve=curve,
                    fitted_on=on,
                    reason=reason,
                    records=len(used.labels),
                    positives=used.num_positives,
                    before=_quality(used.labels, used.raw),
                    after=after,
                ),
            )


def _labelled(rows: pl.DataFrame) -> _Labelled:
    raw = rows["raw"].to_numpy().astype(np.float64)
    logits = np.array([to_logit(each) for each in raw], dtype=np.float64)
    return _Labelled(logits, raw, rows["label"].to_numpy().astype(np.bool_))


def _choose(
    used: _Labelled, methods: Sequence[Method], folds: int, seed: int
) -> tuple[Curve, Quality]:
    """The curve of the best method, fitted to all records, and its cross-validated quality."""
    best: tuple[Curve, Quality] | None = None
    for method in methods:
        curve = fit(method, used.logits, used.labels)
        held_out = _cross_validated(method, used, folds, seed)
        if curve is None or held_out is None:
            continue
        quality = _quality(used.labels, held_out)
        if best is None or quality.log_loss < best[1].log_loss:
            best = curve, quality
    return best or (Identity(), _quality(used.labels, used.raw))


def _cross_validated(method: Method, used: _Labelled, folds: int, seed: int) -> Floats | None:
    """The probability of each record by a curve fitted without it, ``(N,)``."""
    if method == "identity":
        return used.raw
    found = np.empty_like(used.logits)
    split = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fitted, held_out in split.split(used.logits, used.labels):
        curve = fit(method, used.logits[fitted], used.labels[fitted])
        if curve is None:
            return None
        logits = np.array([curve.logit(x) for x in used.logits[held_out]])
        found[held_out] = 1 / (1 + np.exp(-logits))
    return found


def _quality(labels: Bools, probabilities: Floats) -> Quality:
    return Quality(
        ece=ece(labels, probabilities),
        brier=brier(labels, probabilities),
        log_loss=log_loss(labels, probabilities),
    )


def _logistic(logits: Floats, labels: Bools, *, with_intercept: bool) -> tuple[float, float]:
    """Slope and intercept, to Platt's targets: separable scores have a finite slope with them.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.
    """
    num_pos, num_neg = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (num_pos + 1) / (num_pos + 2), 1 / (num_neg + 2))
    # a target between 0 and 1 is a positive and a negative of that much weight
    model = LogisticRegression(C=np.inf, fit_intercept=with_intercept, max_iter=1000, tol=1e-8)
    model.fit(
        np.concatenate([logits, logits])[:, None],
        np.repeat([True, False], len(logits)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    intercept = float(model.intercept_[0]) if with_intercept else 0.0
    return float(model.coef_[0, 0]), intercept


def _fit_isotonic(logits: Floats, labels: Bools) -> Isotonic:
    """No curve of N records claims more than 1 in N + 2 against what it has not seen."""
    least = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least)
    model.fit(logits, labels.astype(np.float64))
    probabilities = np.asarray(model.y_thresholds_, dtype=np.float64)
    return Isotonic(
        raw=tuple(map(float, model.X_thresholds_)),
        calibrated=tuple(map(float, np.log(probabilities / (1 - probabilities)))),
    )
